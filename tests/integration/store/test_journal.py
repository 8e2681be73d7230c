"""The contract of a replay journal, for the one on disk and the one that unit tests use."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from doubles import MemoryJournal
from msgspec.structs import replace

from meshnode.app.ports import Journal, JournalEntry, Undone
from meshnode.core.commands.commands import COMMAND, RECEIPT
from meshnode.core.errors import ConflictError, ExhaustedError
from meshnode.core.keys import Signed
from meshnode.node.homes.books import StoredJournal
from meshnode.store import journal as stored
from meshnode.store.database import Database

NOW_S = 1_790_000_000.0
ENTRY = JournalEntry(bytes(16), bytes(32), int(NOW_S) + 60)
RECEIPT_SIGNED = Signed(RECEIPT, b"what became of it", bytes(64))
COMMANDS_MAX = 5


@pytest.fixture(params=["memory", "disk"])
async def journal(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Journal]:
    if request.param == "memory":
        yield MemoryJournal(commands_max=COMMANDS_MAX)
        return
    monkeypatch.setattr(stored, "COMMANDS_MAX", COMMANDS_MAX)
    database = Database(tmp_path / "node.db")
    yield StoredJournal(database)
    database.close()


@pytest.fixture(params=["memory", "disk"])
async def roomy(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Journal]:
    """One with ten places, five of each signer; all but one of them for anything."""
    if request.param == "memory":
        yield MemoryJournal(commands_max=10, signer_max=request.getfixturevalue("share"))
        return
    monkeypatch.setattr(stored, "COMMANDS_MAX", 10)
    monkeypatch.setattr(stored, "SIGNER_MAX", request.getfixturevalue("share"))
    database = Database(tmp_path / "node.db")
    yield StoredJournal(database)
    database.close()


@pytest.fixture
def share(request: pytest.FixtureRequest) -> int:
    return 5 if "share" in request.node.name else 100


def other_id(number: int) -> JournalEntry:
    return replace(ENTRY, command_id=bytes([number + 1] * 16))


async def test_a_command_is_new_once(journal: Journal):
    assert await journal.begin(ENTRY, NOW_S) is None
    assert await journal.begin(other_id(1), NOW_S) is None


async def test_a_command_that_was_answered_gives_its_receipt_again(journal: Journal):
    await journal.begin(ENTRY, NOW_S)
    await journal.finish(ENTRY.command_id, RECEIPT_SIGNED)
    assert await journal.begin(ENTRY, NOW_S) == RECEIPT_SIGNED
    assert await journal.begin(ENTRY, NOW_S + 59) == RECEIPT_SIGNED


async def test_a_command_without_an_answer_is_not_started_again(journal: Journal):
    await journal.begin(ENTRY, NOW_S)
    with pytest.raises(ConflictError, match="outcome is not known"):
        await journal.begin(ENTRY, NOW_S)


@pytest.mark.parametrize("answered", [False, True])
async def test_the_same_id_with_other_content_is_a_conflict(journal: Journal, answered: bool):
    await journal.begin(ENTRY, NOW_S)
    if answered:
        await journal.finish(ENTRY.command_id, RECEIPT_SIGNED)
    with pytest.raises(ConflictError, match="same id"):
        await journal.begin(replace(ENTRY, content_hash=b"\1" * 32), NOW_S)


async def test_an_expired_command_is_forgotten_and_a_present_one_is_not(journal: Journal):
    await journal.begin(ENTRY, NOW_S)
    await journal.finish(ENTRY.command_id, RECEIPT_SIGNED)
    late_s = float(ENTRY.expires_s)
    assert await journal.begin(ENTRY, late_s) == RECEIPT_SIGNED
    assert await journal.begin(ENTRY, late_s + 1) is None


async def test_a_full_journal_refuses_new_commands_until_old_ones_expire(journal: Journal):
    for number in range(COMMANDS_MAX):
        await journal.begin(other_id(number), NOW_S)
    for entry in (ENTRY, replace(ENTRY, is_stop=True)):
        with pytest.raises(ExhaustedError):
            await journal.begin(entry, NOW_S)
    await journal.finish(other_id(0).command_id, RECEIPT_SIGNED)
    assert await journal.begin(other_id(0), NOW_S) == RECEIPT_SIGNED
    assert await journal.begin(replace(ENTRY, expires_s=int(NOW_S) + 999), NOW_S + 61) is None


async def test_kills_have_places_that_nothing_else_takes(roomy: Journal):
    taken = [await _is_taken(roomy, other_id(number)) for number in range(12)]
    assert taken == [True] * 9 + [False] * 3
    assert await _is_taken(roomy, replace(other_id(100), is_stop=True))
    assert not await _is_taken(roomy, replace(other_id(101), is_stop=True))


async def test_one_signer_gets_its_share_and_leaves_the_rest(roomy: Journal):
    mine = [replace(other_id(n), signer=b"one", is_stop=True) for n in range(6)]
    assert [await _is_taken(roomy, entry) for entry in mine] == [True] * 5 + [False]
    assert await _is_taken(roomy, replace(other_id(100), signer=b"other"))
    later_s = NOW_S + 61
    assert await roomy.begin(replace(mine[5], expires_s=int(later_s) + 9), later_s) is None


async def _is_taken(journal: Journal, entry: JournalEntry) -> bool:
    try:
        return await journal.begin(entry, NOW_S) is None
    except ExhaustedError:
        return False


async def test_what_became_of_a_command_can_be_asked_without_beginning_it(journal: Journal):
    assert await journal.answered(ENTRY) is None
    await journal.begin(ENTRY, NOW_S)
    with pytest.raises(ConflictError, match="outcome is not known"):
        await journal.answered(ENTRY)
    await journal.finish(ENTRY.command_id, RECEIPT_SIGNED)
    assert await journal.answered(ENTRY) == RECEIPT_SIGNED
    with pytest.raises(ConflictError, match="same id"):
        await journal.answered(replace(ENTRY, content_hash=b"\1" * 32))


async def test_of_a_hundred_beginning_at_once_one_is_new(journal: Journal):
    async def begin() -> bool:
        try:
            return await journal.begin(ENTRY, NOW_S) is None
        except ConflictError:
            return False

    assert sum(await asyncio.gather(*(begin() for _ in range(100)))) == 1


async def test_finishing_what_never_began_changes_nothing(journal: Journal):
    await journal.finish(ENTRY.command_id, RECEIPT_SIGNED)
    assert await journal.begin(ENTRY, NOW_S) is None


async def test_a_journal_on_disk_outlives_its_node(tmp_path: Path):
    database = Database(tmp_path / "node.db")
    journal = StoredJournal(database)
    generation = await database.run(stored.generation, 5)
    await journal.begin(ENTRY, NOW_S)
    await journal.begin(other_id(1), NOW_S)
    await journal.finish(ENTRY.command_id, RECEIPT_SIGNED)
    database.close()
    database = Database(tmp_path / "node.db")
    journal = StoredJournal(database)
    assert await journal.begin(ENTRY, NOW_S) == RECEIPT_SIGNED
    with pytest.raises(ConflictError, match="outcome is not known"):
        await journal.begin(other_id(1), NOW_S)
    assert await database.run(stored.generation, 6) == generation == 5
    database.close()


async def test_what_was_not_finished_is_returned_with_how_far_it_came(tmp_path: Path):
    database = Database(tmp_path / "node.db")
    journal = StoredJournal(database)
    commands = [Signed(COMMAND, bytes([number]), bytes(64)) for number in range(3)]
    for command in commands:
        entry = replace(ENTRY, command_id=command.payload, content_hash=command.hash)
        await journal.begin(replace(entry, command=command), NOW_S)
    await journal.execute(commands[1].payload)
    await journal.execute(commands[2].payload)
    await journal.finish(commands[2].payload, RECEIPT_SIGNED)
    await journal.begin(other_id(1), NOW_S)  # as an older version has left it: without the command
    database.close()
    database = Database(tmp_path / "node.db")
    left = await database.run(stored.undone)
    assert left == [Undone(commands[0], has_begun=False), Undone(commands[1], has_begun=True)]
    held = "SELECT count(*) FROM journal WHERE command IS NOT NULL"
    (kept,) = await database.run(lambda c: c.execute(held).fetchone())
    assert kept == 2  # what is done is not kept whole
    database.close()


async def test_a_damaged_command_is_not_gone_on_with(database: Database):
    command = Signed(COMMAND, b"one", bytes(64))
    entry = replace(ENTRY, content_hash=command.hash, command=command)
    await StoredJournal(database).begin(entry, NOW_S)
    await database.run(lambda c: c.execute("UPDATE journal SET command = x'00'"))
    assert await database.run(stored.undone) == []
    with pytest.raises(ConflictError, match="outcome is not known"):
        await StoredJournal(database).begin(entry, NOW_S)


async def test_the_latest_time_is_noted_with_whatever_is_forgotten_and_only_rises(tmp_path: Path):
    database = Database(tmp_path / "node.db")
    journal = StoredJournal(database)
    await journal.begin(ENTRY, NOW_S)
    assert await database.run(stored.floor) == 0.0
    await journal.begin(other_id(1), NOW_S + 100)  # forgets the first
    assert await database.run(stored.floor) == NOW_S + 100
    await journal.raise_floor(NOW_S)
    assert await database.run(stored.floor) == NOW_S + 100
    await journal.raise_floor(NOW_S + 200)
    database.close()
    database = Database(tmp_path / "node.db")
    assert await database.run(stored.floor) == NOW_S + 200
    database.close()


async def test_a_new_database_has_a_generation_of_its_own(tmp_path: Path):
    generations = []
    for number in (1 << 63, (1 << 64) - 1):  # beyond what SQLite's integers hold
        database = Database(tmp_path / f"{number}.db")
        generations.append(await database.run(stored.generation, number))
        database.close()
    assert generations == [1 << 63, (1 << 64) - 1]
