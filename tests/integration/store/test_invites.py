"""The contract of an admitter's invites, for those on disk and those that unit tests use."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from doubles import MemoryInvites

from meshnode.app.ports import Device, InviteBook, OutstandingInvite
from meshnode.core.errors import ConflictError, NotFoundError, NotPermittedError
from meshnode.core.keys import Signed
from meshnode.core.roles import INVITE
from meshnode.node.books import StoredInvites
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
    monkeypatch.setattr(invites, "INVITES_MAX", INVITES_MAX)
    database = Database(tmp_path / "node.db")
    yield StoredInvites(database)
    database.close()


def key(number: int) -> bytes:
    return bytes([number] * 32)


async def test_an_invite_comes_back_as_it_was(book: InviteBook):
    named = replace(ONCE, labels={"room": "lab"}, for_key=key(1))
    await book.add(named, NOW_S)
    assert await book.get(ONCE.invite_id) == named


async def test_an_unknown_invite_is_not_found_and_gives_no_use(book: InviteBook):
    with pytest.raises(NotFoundError):
        await book.get(ONCE.invite_id)
    with pytest.raises(NotPermittedError):
        await book.take_use(ONCE.invite_id, Device(key(1)), NOW_S)


async def test_a_use_is_taken_once(book: InviteBook):
    await book.add(ONCE, NOW_S)
    await book.take_use(ONCE.invite_id, Device(key(1)), NOW_S)
    assert (await book.get(ONCE.invite_id)).uses_left == 0
    with pytest.raises(NotPermittedError):
        await book.take_use(ONCE.invite_id, Device(key(2)), NOW_S)


async def test_the_same_device_asking_again_takes_no_second_use(book: InviteBook):
    await book.add(replace(ONCE, uses_left=2), NOW_S)
    taken = [await book.take_use(ONCE.invite_id, Device(key(1)), NOW_S) for _ in range(5)]
    assert taken == [True, False, False, False, False]
    assert (await book.get(ONCE.invite_id)).uses_left == 1


async def test_an_expired_invite_is_known_and_gives_no_use(book: InviteBook):
    await book.add(ONCE, NOW_S)
    with pytest.raises(NotPermittedError):
        await book.take_use(ONCE.invite_id, Device(key(1)), ONCE.expires_s + 1)
    assert (await book.get(ONCE.invite_id)).uses_left == 1
    await book.take_use(ONCE.invite_id, Device(key(1)), float(ONCE.expires_s))


@pytest.mark.parametrize("uses", [1, 3])
async def test_of_parallel_devices_no_more_than_uses_are_admitted(book: InviteBook, uses: int):
    await book.add(replace(ONCE, uses_left=uses), NOW_S)

    async def take(number: int) -> bool:
        try:
            await book.take_use(ONCE.invite_id, Device(key(number)), NOW_S)
        except NotPermittedError:
            return False
        return True

    assert sum(await asyncio.gather(*(take(number) for number in range(50)))) == uses
    assert (await book.get(ONCE.invite_id)).uses_left == 0


async def test_a_full_book_takes_no_more_until_old_invites_are_long_expired(book: InviteBook):
    for number in range(INVITES_MAX):
        await book.add(replace(ONCE, invite_id=bytes([number] * 16)), NOW_S)
    one_more = replace(ONCE, invite_id=b"m" * 16, expires_s=int(NOW_S) + 30 * DAY_S)
    with pytest.raises(ConflictError):
        await book.add(one_more, NOW_S + DAY_S)
    await book.add(one_more, ONCE.expires_s + 7 * DAY_S + 1)
    with pytest.raises(NotFoundError):
        await book.get(ONCE.invite_id)


async def test_a_use_gives_one_operator_key_a_role_and_no_second(book: InviteBook):
    await book.add(ONCE, NOW_S)
    await book.take_use(ONCE.invite_id, Device(key(1), key(7)), NOW_S)
    await book.take_use(ONCE.invite_id, Device(key(1), key(7)), NOW_S)
    with pytest.raises(NotPermittedError):
        await book.take_use(ONCE.invite_id, Device(key(1), key(8)), NOW_S)
