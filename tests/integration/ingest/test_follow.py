import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from meshnode.core.errors import UsageError
from meshnode.core.ledger.ledger import (
    Batch,
    Diagnostics,
    DiagnosticsKey,
    LedgerRow,
    Slot,
    StoredReader,
)
from meshnode.ingest.follow import follow
from meshnode.ingest.reading import SourceConfig, SourceState
from meshnode.ingest.sources import reader_of
from meshnode.store import ledger
from meshnode.store.migrations import migrate

pytestmark = pytest.mark.integration


def line(number: int, session: str = "s1") -> str:
    call = json.dumps({"session_id": session, "model": "gpt-4o", "input_token": 10})
    start = "2026-02-01T09:30:15Z"
    outer = {"ai_log": call, "request_id": f"r{number}", "start_time": start}
    return json.dumps(outer) + "\n"


class Node:
    """Keeps in SQLite what a follower reads; its clock only moves when `turn` is called."""

    def __init__(self, source: SourceConfig) -> None:
        self.source = source
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        migrate(self.connection)
        self.published: list[LedgerRow] = []
        self.states: list[SourceState] = []
        self.pauses_s: list[float] = []
        self.fail: Exception | None = None
        self.commits = 0
        self._waiting = asyncio.Semaphore(0)
        self._go = asyncio.Semaphore(0)

    async def load(self, key: DiagnosticsKey) -> StoredReader | None:
        return ledger.load(self.connection, key)

    async def commit(self, batch: Batch) -> list[LedgerRow]:
        self.commits += 1
        if self.fail:
            raise self.fail
        return ledger.commit(self.connection, batch, 0)

    async def wait(self, pause_s: float) -> None:
        self.pauses_s.append(pause_s)
        self._waiting.release()
        await self._go.acquire()

    async def settled(self) -> None:
        """Until the follower has read all there is and waits."""
        await asyncio.wait_for(self._waiting.acquire(), 20)

    async def turn(self) -> None:
        """Let one interval pass."""
        self._go.release()
        await self.settled()

    @property
    def records(self) -> int:
        values = [value for _, value in ledger.slots(self.connection)]
        return sum(value.records for value in values if isinstance(value, Slot))

    @asynccontextmanager
    async def following(self, publish: Callable[[list[LedgerRow]], None] | None = None):
        publish = publish or self.published.extend
        async with asyncio.TaskGroup() as group:
            task = group.create_task(
                follow(self.source, self.commit, publish, self.load, self.states.append, self.wait)
            )
            await self.settled()
            yield self
            task.cancel()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


@pytest.fixture
def node(path: Path):
    node = Node(SourceConfig("higress", str(path), refresh_interval_s=1.5))
    yield node
    node.connection.close()


def write(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.write("".join(lines))


def rotate(path: Path) -> None:
    path.rename(path.with_name("access.log.1"))


async def test_a_growing_log_is_counted_and_published(node: Node, path: Path):
    async with node.following():
        assert node.states[-1].detail == f"waiting for {path}: it does not exist yet"
        write(path, line(1), line(2)[:40])
        await node.turn()
        assert node.states[-1] == SourceState("higress", str(path), 1, "ok")
        write(path, line(2)[40:])
        rotate(path)
        write(path, line(3))
        await node.turn()
        assert node.states[-1].records == node.records == 3
    latest = dict(node.published)
    assert latest == dict(ledger.slots(node.connection))
    assert set(node.pauses_s) == {1.5}


async def test_a_quiet_log_costs_no_commit(node: Node, path: Path):
    write(path, line(1), "half a li")
    async with node.following():
        commits = node.commits
        await node.turn()
        await node.turn()
        assert node.commits == commits


async def test_a_restart_goes_on_where_it_was(node: Node, path: Path):
    write(path, line(1))
    async with node.following():
        pass
    write(path, line(2))
    async with node.following():
        assert node.states[-1].records == 2
    found = [value for _, value in ledger.slots(node.connection) if isinstance(value, Diagnostics)]
    assert found == [Diagnostics(records=2)]


async def test_faults_that_another_reader_has_counted_meanwhile_are_not_counted_again(
    node: Node, path: Path
):
    async with node.following():
        for number in (1, 2):
            write(path, line(number), f"nonsense {number}\n")
            other = reader_of(node.source)
            stored = ledger.load(node.connection, other.key) or StoredReader({}, Diagnostics())
            ledger.commit(node.connection, other.read(stored.places, 1 << 20).batch, 0)
            other.close()
            write(path, line(number + 10), f"more nonsense {number}\n")
            await node.turn()
            assert node.states[-1] == SourceState("higress", str(path), 2 * number, "ok")
    found = [value for _, value in ledger.slots(node.connection) if isinstance(value, Diagnostics)]
    assert found == [Diagnostics(records=4, unparsable_lines=4)]


async def test_what_another_reader_has_overtaken_in_a_tree_is_looked_at_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("meshnode.ingest.follow.READ_BYTES_MAX", 10)
    node = Node(SourceConfig("gemini", str(tmp_path)))
    chats = tmp_path / "project" / "chats"
    chats.mkdir(parents=True)
    async with node.following():
        for name in "abc":
            write(chats / f"{name}.jsonl", f'{{"sessionId": "{name}"}}\n', "nonsense\n")
        other = reader_of(node.source)
        ledger.commit(node.connection, other.read({}, 10).batch, 0)
        await node.turn()
        assert node.states[-1].detail == "ok"
    found = [value for _, value in ledger.slots(node.connection) if isinstance(value, Diagnostics)]
    assert found == [Diagnostics(unparsable_lines=3)]
    node.connection.close()


async def test_a_failing_store_is_told_waited_for_and_loses_nothing(node: Node, path: Path):
    node.fail = sqlite3.OperationalError("database is locked")
    write(path, line(1))
    async with node.following():
        assert node.states[-1].detail == "OperationalError: database is locked; trying again"
        await node.turn()
        for _ in range(8):
            await node.turn()
        assert node.pauses_s[:3] == [3.0, 6.0, 12.0]
        assert max(node.pauses_s) == 60.0
        node.fail = None
        await node.turn()
        assert node.states[-1] == SourceState("higress", str(path), 1, "ok")
        assert node.pauses_s[-1] == 1.5


async def test_what_could_not_be_published_is_published_next_time(node: Node, path: Path):
    def refuse(_: list[LedgerRow]) -> None:
        if not node.published:
            node.published.append(None)  # type: ignore[arg-type] # only counted
            raise RuntimeError("feed is not open yet")
        node.published.extend(_)

    write(path, line(1))
    async with node.following(refuse):
        assert "feed is not open yet" in node.states[-1].detail
        await node.turn()
        assert dict(node.published[1:]) == dict(ledger.slots(node.connection))


async def test_a_session_key_counts_that_session_only(path: Path):
    node = Node(SourceConfig("higress", str(path), session_key="s2"))
    write(path, line(1, "s1"), line(2, "s2"), line(3, "s3"))
    async with node.following():
        assert node.states[-1].records == 1
    [session] = [key.session for key, _ in ledger.slots(node.connection) if hasattr(key, "session")]
    assert session == "s2"
    node.connection.close()


async def test_a_log_larger_than_one_reading_is_taken_in_pieces(
    node: Node, path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("meshnode.ingest.follow.READ_BYTES_MAX", 500)
    write(path, *(line(number) for number in range(50)))
    async with node.following():
        assert node.records == 50
        assert node.commits > 5
        assert len(node.pauses_s) == 1


async def test_a_source_that_nobody_can_read_is_a_usage_error(path: Path):
    node = Node(SourceConfig("higres", str(path)))
    with pytest.raises(UsageError, match="cannot read 'higres' logs"):
        await follow(node.source, node.commit, print, node.load, node.states.append, node.wait)
    node.connection.close()
