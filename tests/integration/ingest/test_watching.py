"""Transcripts are followed by being told of changes, on a real kernel; else by looking."""

import asyncio
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from meshnode.core.ledger.ledger import Batch, DiagnosticsKey, LedgerRow, StoredReader
from meshnode.ingest import watching
from meshnode.ingest.follow import follow
from meshnode.ingest.reading import SourceConfig, SourceState
from meshnode.ingest.watching import LOOK_S, Watch, on_another_machine

pytestmark = pytest.mark.integration

LINE = (Path(__file__).parents[2] / "golden" / "claude" / "plain.jsonl").read_bytes()
PATIENCE_S = 20


class Pauses:
    """A clock for waits: short ones end when told to, long ones never do."""

    def __init__(self) -> None:
        self.asked_s: asyncio.Queue[float] = asyncio.Queue()

    async def wait(self, pause_s: float) -> None:
        self.asked_s.put_nowait(pause_s)
        if pause_s >= LOOK_S:
            await asyncio.Event().wait()

    async def until(self, pause_s: float) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await self.asked_s.get() != pause_s:
                pass


async def wait_for(event: asyncio.Event) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await event.wait()


@asynccontextmanager
async def watching_at(watch: Watch):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(watch.run())
        yield
        task.cancel()


async def test_a_change_is_told_without_looking(tmp_path: Path):
    kept: list[Batch] = []
    told = asyncio.Event()

    async def commit(batch: Batch) -> list[LedgerRow]:
        kept.append(batch)
        if batch.records:
            told.set()
        return []

    async def load(_: DiagnosticsKey) -> StoredReader | None:
        return None

    states: list[SourceState] = []
    pauses = Pauses()
    source = SourceConfig("claude", str(tmp_path), refresh_interval_s=1.0)
    async with asyncio.TaskGroup() as group:
        following = follow(source, commit, lambda _: None, load, states.append, pauses.wait)
        task = group.create_task(following)
        for number in range(2):
            await pauses.until(LOOK_S)  # it is told now: only a change ends this wait
            folder = tmp_path / f"project-{number}"
            folder.mkdir()
            (folder / "s1.jsonl").write_bytes(LINE)
            await wait_for(told)
            told.clear()
        task.cancel()
    assert [one.session for batch in kept for one in batch.records] == ["s1", "s1"]


async def test_without_a_watch_it_is_looked_at_every_interval(tmp_path: Path):
    pauses = Pauses()
    watch = Watch(str(tmp_path), is_remote=lambda _: True)
    async with watching_at(watch):
        for _ in range(3):
            await watch.pause(1.0, pauses.wait)
    assert [pauses.asked_s.get_nowait() for _ in range(3)] == [1.0] * 3


async def test_what_took_the_place_of_the_path_is_watched_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watching, "WAKE_MS", 100)
    tree = tmp_path / "tree"
    tree.mkdir()
    pauses = Pauses()
    watch = Watch(str(tree))
    async with watching_at(watch), asyncio.timeout(PATIENCE_S):
        while not watch.is_on:  # noqa: ASYNC110 - nobody but tests waits for that
            await asyncio.sleep(0)
        (tmp_path / "new").mkdir()
        tree.rename(tmp_path / "old")
        (tmp_path / "new").rename(tree)
        for _ in range(2):  # that it was replaced; that it is watched
            await watch.pause(1.0, pauses.wait)
            watch.look()
        (tree / "a").touch()
        await watch.pause(1.0, pauses.wait)


def test_files_of_other_machines_are_known_by_where_they_are_mounted(tmp_path: Path):
    assert not on_another_machine(tmp_path)
    assert not on_another_machine(Path("/proc/self"))


def test_a_node_that_follows_no_transcripts_does_not_load_the_watcher():
    code = "import meshnode.node.node, sys; print('watchfiles' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ, capture_output=True, check=True, text=True
    )
    assert done.stdout.strip() == "False"
