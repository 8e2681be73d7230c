"""The contract of a replay journal, for the one on disk and the one that unit tests use."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from doubles import MemoryJournal

from meshnode.app.ports import Journal, JournalEntry
from meshnode.core.commands import RECEIPT
from meshnode.core.errors import ConflictError, RefusedError
from meshnode.core.keys import Signed
from meshnode.node.books import StoredJournal
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
    with pytest.raises(RefusedError):
        await journal.begin(ENTRY, NOW_S)
    await journal.finish(other_id(0).command_id, RECEIPT_SIGNED)
    assert await journal.begin(other_id(0), NOW_S) == RECEIPT_SIGNED
    assert await journal.begin(replace(ENTRY, expires_s=int(NOW_S) + 999), NOW_S + 61) is None


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


async def test_a_new_database_has_a_generation_of_its_own(tmp_path: Path):
    generations = []
    for number in (1 << 63, (1 << 64) - 1):  # beyond what SQLite's integers hold
        database = Database(tmp_path / f"{number}.db")
        generations.append(await database.run(stored.generation, number))
        database.close()
    assert generations == [1 << 63, (1 << 64) - 1]
