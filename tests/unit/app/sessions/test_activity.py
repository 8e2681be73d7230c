"""An agent that writes or reports is at work: the mesh is told, all at once and not often."""

import asyncio
import os
from random import Random

import pytest
from doubles import ManualClock, Published, ScriptedAgents, nowhere

from meshnode.agents.output import written_at_s
from meshnode.app.sessions import activity
from meshnode.app.sessions.activity import Activity
from meshnode.app.sessions.endings import Ended
from meshnode.app.sessions.opening import Opening
from meshnode.app.sessions.sessions import OwnSessions
from meshnode.core.errors import StorageError

WAIT_S = 20.0


class Node:
    """Sessions whose logs lie in a directory each."""

    def __init__(self, directory) -> None:
        self.directory = directory
        self.clock = ManualClock()
        self.published = Published()
        chance = Random(4).randbytes
        self.sessions = OwnSessions(
            self.published, ScriptedAgents(), self.clock, chance, nowhere, lambda work: work.close()
        )
        self.activity = Activity(
            self.sessions, lambda one: written_at_s(directory / one), self.clock
        )

    async def open(self) -> str:
        return (await self.sessions.open(Opening())).session_id

    def write(self, session_id: str, at_s: float, text: str = "words") -> None:
        log = self.directory / session_id / "output.log"
        log.parent.mkdir(exist_ok=True)
        log.write_text(text)
        os.utime(log, (at_s, at_s))

    def active_s(self, session_id: str) -> float:
        record = self.sessions.get(session_id)
        assert record is not None
        return record.last_activity_s


@pytest.fixture
def node(tmp_path) -> Node:
    return Node(tmp_path)


async def test_output_is_activity(node: Node):
    writes, waits = await node.open(), await node.open()
    opened_s = node.clock.wall_s()
    node.clock.now_s += 100.0
    node.write(writes, opened_s + 70.0)
    node.write(waits, opened_s + 90.0, text="")
    await node.activity.look()
    assert node.active_s(writes) == opened_s + 70.0
    assert node.active_s(waits) == opened_s


async def test_a_report_is_activity_and_told_with_the_next_look(node: Node):
    session = await node.open()
    node.clock.now_s += 100.0
    node.activity.note(session)
    reported_s = node.clock.wall_s()
    node.clock.now_s += 5.0
    assert node.active_s(session) < reported_s
    await node.activity.look()
    assert node.active_s(session) == reported_s


async def test_what_is_idle_is_published_no_more(node: Node):
    session = await node.open()
    node.clock.now_s += 100.0
    node.write(session, node.clock.wall_s())
    await node.activity.look()
    node.published.rows.clear()
    await node.activity.look()
    assert not node.published.rows


async def test_what_could_not_be_told_is_told_later(node: Node, monkeypatch: pytest.MonkeyPatch):
    """A disk that was full for a moment does not end it."""
    failing, told = iter([StorageError("full"), OSError("no such file")]), asyncio.Event()

    async def looking() -> bool:
        for error in failing:
            raise error
        told.set()
        return True

    monkeypatch.setattr(activity, "TELL_S", 0.0)
    monkeypatch.setattr(node.activity, "look", looking)
    watching = asyncio.create_task(node.activity.watch())
    async with asyncio.timeout(WAIT_S):
        await told.wait()
    watching.cancel()


async def test_a_log_from_the_future_was_written_now(node: Node):
    session = await node.open()
    node.clock.now_s += 10.0
    node.write(session, node.clock.wall_s() + 1e6)
    await node.activity.look()
    assert node.active_s(session) == node.clock.wall_s()


async def test_a_session_that_has_ended_stays_as_it_ended(node: Node):
    session = await node.open()
    ended_s = node.clock.wall_s()
    await node.sessions.ended(session, Ended(0, None, None, killed=False, at_s=ended_s))
    node.clock.now_s += 10.0
    node.activity.note(session)
    await node.activity.look()
    await node.sessions.active(session, node.clock.wall_s())
    assert node.active_s(session) == ended_s
