"""The contract of an admitter's invites, for those on disk and those that unit tests use."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from math import inf
from pathlib import Path

import pytest
from doubles import MemoryInvites
from msgspec.structs import replace

from meshnode.app.ports import Device, InviteBook, OutstandingInvite
from meshnode.core.control.roles import INVITE
from meshnode.core.errors import ConflictError, NotFoundError, NotPermittedError
from meshnode.core.keys import Signed
from meshnode.node.homes.books import StoredInvites
from meshnode.store import invites
from meshnode.store.database import Database

NOW_S = 1_790_000_000.0
WORD = Signed(INVITE, b"an admin's word", bytes(64))
ONCE = OutstandingInvite(bytes(16), b"s" * 16, WORD, "operator", 1, int(NOW_S) + 60)
INVITES_MAX = 5
DAY_S = 86400


@pytest.fixture(params=["memory", "disk"])
async def book(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[InviteBook]:
    if request.param == "memory":
        yield MemoryInvites(invites_max=INVITES_MAX)
        return
    bound(monkeypatch)
    database = Database(tmp_path / "node.db")
    yield StoredInvites(database)
    database.close()


def bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invites, "INVITES_MAX", INVITES_MAX)
    monkeypatch.setattr(invites, "KEPT_MAX", 2 * INVITES_MAX)


def key(number: int) -> bytes:
    return bytes([number] * 32)


async def test_an_invite_comes_back_as_it_was(book: InviteBook):
    named = replace(ONCE, labels={"room": "lab"}, for_key=key(1))
    await book.add(named, NOW_S, NOW_S - DAY_S)
    assert await book.get(ONCE.invite_id) == named


async def test_an_unknown_invite_is_not_found_and_gives_no_use(book: InviteBook):
    with pytest.raises(NotFoundError):
        await book.get(ONCE.invite_id)
    with pytest.raises(NotPermittedError):
        await book.take_use(ONCE.invite_id, Device(key(1)), NOW_S)


async def test_a_use_is_taken_once(book: InviteBook):
    await book.add(ONCE, NOW_S, NOW_S - DAY_S)
    await book.take_use(ONCE.invite_id, Device(key(1)), NOW_S)
    assert (await book.get(ONCE.invite_id)).uses_left == 0
    with pytest.raises(NotPermittedError):
        await book.take_use(ONCE.invite_id, Device(key(2)), NOW_S)


async def test_the_same_device_asking_again_takes_no_second_use(book: InviteBook):
    await book.add(replace(ONCE, uses_left=2), NOW_S, NOW_S - DAY_S)
    taken = [await book.take_use(ONCE.invite_id, Device(key(1)), NOW_S) for _ in range(5)]
    assert taken == [True, False, False, False, False]
    assert (await book.get(ONCE.invite_id)).uses_left == 1


async def test_an_expired_invite_is_known_and_gives_no_use(book: InviteBook):
    await book.add(ONCE, NOW_S, NOW_S - DAY_S)
    with pytest.raises(NotPermittedError):
        await book.take_use(ONCE.invite_id, Device(key(1)), ONCE.expires_s + 1)
    assert (await book.get(ONCE.invite_id)).uses_left == 1
    await book.take_use(ONCE.invite_id, Device(key(1)), float(ONCE.expires_s))


@pytest.mark.parametrize("uses", [1, 3])
async def test_of_parallel_devices_no_more_than_uses_are_admitted(book: InviteBook, uses: int):
    await book.add(replace(ONCE, uses_left=uses), NOW_S, NOW_S - DAY_S)

    async def take(number: int) -> bool:
        try:
            await book.take_use(ONCE.invite_id, Device(key(number)), NOW_S)
        except NotPermittedError:
            return False
        return True

    assert sum(await asyncio.gather(*(take(number) for number in range(50)))) == uses
    assert (await book.get(ONCE.invite_id)).uses_left == 0


def numbered(number: int, **fields) -> OutstandingInvite:
    return replace(ONCE, invite_id=bytes([number] * 16), **fields)


async def known(book: InviteBook, numbers: range) -> list[int]:
    """Return which of them the book still tells from unknown ones."""
    found = []
    for number in numbers:
        with suppress(NotFoundError):
            await book.get(bytes([number] * 16))
            found.append(number)
    return found


async def test_more_invites_than_may_be_outstanding_are_refused_until_one_is_used_or_expires(
    book: InviteBook,
):
    for number in range(INVITES_MAX):
        await book.add(numbered(number), NOW_S, 0.0)
    with pytest.raises(ConflictError, match="outstanding"):
        await book.add(numbered(10), NOW_S, 0.0)
    await book.take_use(bytes(16), Device(key(1)), NOW_S)
    later_s = ONCE.expires_s + 1
    await book.add(numbered(11, expires_s=later_s), NOW_S, 0.0)
    with pytest.raises(ConflictError):
        await book.add(numbered(12), NOW_S, 0.0)
    await book.add(numbered(13, expires_s=later_s), later_s, 0.0)


def test_who_hears_that_no_more_can_be_made_hears_until_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bound(monkeypatch)
    with closing(Database(tmp_path / "node.db")) as database:
        for number in range(INVITES_MAX):
            one = numbered(number, expires_s=int(NOW_S) + 60 + number)
            database.run_now(invites.add, one, NOW_S, 0.0)
        with pytest.raises(ConflictError) as failure:
            database.run_now(invites.add, numbered(10), NOW_S, 0.0)
    assert "the first of them expires in 61 s" in failure.value.hint


async def test_what_expired_before_a_time_is_known_no_more(book: InviteBook):
    await book.add(numbered(1), NOW_S, 0.0)
    await book.add(numbered(2, expires_s=ONCE.expires_s + 1), NOW_S, 0.0)
    await book.add(numbered(3, expires_s=ONCE.expires_s + DAY_S), NOW_S, ONCE.expires_s + 1)
    assert await known(book, range(5)) == [2, 3]


async def test_of_what_is_kept_beyond_the_bound_the_used_go_first_then_the_earliest_expired(
    book: InviteBook,
):
    soon_s, after_s = int(NOW_S) + 60, NOW_S + 120
    for number, ends_s in enumerate([soon_s + 9, soon_s, soon_s + 20]):
        await book.add(numbered(number, expires_s=ends_s), NOW_S, -inf)
        await book.take_use(bytes([number] * 16), Device(key(number)), NOW_S)
    for number in range(3, 8):
        await book.add(numbered(number, expires_s=soon_s + 10 - number), NOW_S, -inf)
    left = list(range(8))
    for number, goes in zip(range(8, 13), [None, None, 1, 0, 2], strict=True):
        await book.add(numbered(number, expires_s=soon_s + 100), after_s, -inf)
        left = [*(one for one in left if one != goes), number]
        assert await known(book, range(20)) == left
    await book.add(numbered(13), after_s + DAY_S, -inf)
    assert await known(book, range(20)) == [3, 4, 5, 6, *range(8, 14)]


async def test_a_use_gives_one_operator_key_a_role_and_no_second(book: InviteBook):
    await book.add(ONCE, NOW_S, NOW_S - DAY_S)
    await book.take_use(ONCE.invite_id, Device(key(1), key(7)), NOW_S)
    await book.take_use(ONCE.invite_id, Device(key(1), key(7)), NOW_S)
    with pytest.raises(NotPermittedError):
        await book.take_use(ONCE.invite_id, Device(key(1), key(8)), NOW_S)
