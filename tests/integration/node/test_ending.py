"""One end of a node: a signal that comes meanwhile changes nothing of what somebody is told."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
from integration.client.service import short_home
from integration.rpc.fleet import WAIT_S

from meshnode.app.queries.views import Stopped
from meshnode.app.sessions.sessions import OwnSessions
from meshnode.client.home import Home, make_private
from meshnode.client.mesh import MeshClient
from meshnode.core.errors import ConflictError, MeshError, StorageError, UsageError
from meshnode.core.ids import node_id_of
from meshnode.core.membership.members import NODE, ONLY_ROW, node_from_row
from meshnode.node.configuration.told import NodeOptions
from meshnode.node.ending import CLOSE_SESSIONS_S, Ending
from meshnode.node.homes.founding import device_key, found
from meshnode.node.node import Node
from meshnode.store import feeds
from meshnode.store.database import Database

LEFT = Stopped(1, 2, 3, 4)


@pytest.fixture
def home() -> Iterator[Home]:
    with short_home() as home:
        found(home, None, "anna", None)
        make_private(home.sessions)
        yield home


@asynccontextmanager
async def running(home: Home, on_exit: str = "keep", **more: Any) -> AsyncIterator[Node]:
    """Run a node until it has ended by itself. `more`: other options."""
    said = {"listen": "127.0.0.1:0", "mdns": False, "on_exit": on_exit, **more}
    options = NodeOptions(**said)
    with closing(Database(home.database)) as database:
        async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
            node = Node(home, options, database, tasks)
            await node.start()
            ended = tasks.create_task(node.run())
            yield node
            await ended


@pytest.fixture
def closed(monkeypatch) -> list[str]:
    """Who had all agents closed; there are none."""
    closed = []

    async def close_all(_sessions: OwnSessions, by: str) -> int:
        closed.append(by)
        return 0

    monkeypatch.setattr(OwnSessions, "close_all", close_all)
    return closed


def asked(home: Home, *, leave: bool = False, sessions: str = ""):
    """Ask as `leave` and `down` do; returns a future of the answer."""

    def ask():
        with MeshClient(home) as mesh:
            return mesh.stop(leave=leave, sessions=sessions)

    return asyncio.get_running_loop().run_in_executor(None, ask)


def standing_in(home: Home) -> str:
    own = node_id_of(device_key(home).public)
    with closing(Database(home.database)) as database:
        rows = database.run_now(feeds.load_own, own)
    return node_from_row(rows.get(NODE, ONLY_ROW).value).standing


async def test_a_node_that_has_left_does_not_say_that_it_is_down_because_of_a_signal(
    home, monkeypatch
):
    async with running(home) as node:
        withdraw = node._own.withdraw

        async def withdrawn():
            await withdraw()
            node.ask_to_stop()  # before the last of it is on the disk

        monkeypatch.setattr(node._own, "withdraw", withdrawn)
        await asked(home, leave=True)
    assert standing_in(home) == "left"


async def test_agents_that_were_to_be_kept_are_kept_though_a_signal_would_close_them(
    home, closed, monkeypatch
):
    async with running(home, "close") as node:
        publish_last = node._own.publish_last

        async def publishing(standing: str):
            node.ask_to_stop()
            await publish_last(standing)

        monkeypatch.setattr(node._own, "publish_last", publishing)
        await asked(home, sessions="keep")
    assert closed == []
    assert standing_in(home) == "down"


async def test_a_signal_alone_closes_the_agents_that_it_shall(home, closed):
    async with running(home, "close") as node:
        node.ask_to_stop()
    assert closed == ["node"]
    assert standing_in(home) == "down"


class Ends:
    """A node whose ends take as long as a test wants, and fail as it says."""

    def __init__(self, tasks: asyncio.TaskGroup, on_exit: str = "keep") -> None:
        self.begun: list[tuple[bool, str, float | None]] = []
        self.began, self.go = asyncio.Event(), asyncio.Event()
        self.errors: list[Exception] = []
        self.ending = Ending(lambda work: tasks.create_task(self._passing(work)), self.end, on_exit)

    async def _passing(self, work) -> None:
        try:
            await work
        except MeshError:
            raise AssertionError("it is told to who asked") from None
        except ValueError:
            pass  # an alarm, in a node

    async def end(self, leave: bool, sessions: str, close_s: float | None) -> Stopped:
        self.begun.append((leave, sessions, close_s))
        self.began.set()
        await self.go.wait()
        if self.errors:
            raise self.errors.pop(0)
        return LEFT


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        yield Ends(tasks)


async def test_a_signal_stops_as_configured_and_once(ends):
    for _ in range(2):
        ends.ending.obey()
    ends.go.set()
    await ends.ending.over.wait()
    assert ends.begun == [(False, "keep", CLOSE_SESSIONS_S)]


async def test_who_asks_for_what_a_signal_has_begun_is_told_how_it_ends(ends):
    ends.ending.obey()
    ends.go.set()
    assert await ends.ending.ask(False, "") == LEFT
    assert len(ends.begun) == 1


async def test_who_wants_another_end_than_the_signal_is_refused(ends):
    ends.ending.obey()
    with pytest.raises(ConflictError, match="ending already"):
        await ends.ending.ask(True, "")
    ends.go.set()
    await ends.ending.over.wait()


async def test_a_signal_stops_a_node_that_could_not_leave(ends):
    ends.errors.append(StorageError("the disk takes nothing"))
    async with asyncio.TaskGroup() as tasks:
        leaving = tasks.create_task(failing(ends.ending.ask(True, "")))
        await ends.began.wait()
        ends.ending.obey()
        ends.go.set()
        assert isinstance(await leaving, StorageError)
    await ends.ending.over.wait()
    assert ends.begun == [(True, "keep", None), (False, "keep", CLOSE_SESSIONS_S)]


async def test_a_node_that_could_not_leave_stays_and_is_asked_again(ends):
    ends.errors.append(StorageError("the disk takes nothing"))
    ends.go.set()
    assert isinstance(await failing(ends.ending.ask(True, "")), StorageError)
    assert not ends.ending.over.is_set()
    assert await ends.ending.ask(True, "") == LEFT
    assert ends.ending.over.is_set()


async def test_a_signal_stops_a_node_whatever_fails(ends):
    ends.errors.append(ValueError("a fault of ours"))
    ends.ending.obey()
    ends.go.set()
    await ends.ending.over.wait()
    assert len(ends.begun) == 1


async def test_what_is_neither_kept_nor_closed_is_refused(ends):
    with pytest.raises(UsageError, match="kept or closed"):
        await ends.ending.ask(False, "sold")
    assert ends.begun == []


async def failing(work) -> Exception | None:
    try:
        await work
    except MeshError as error:
        return error
    return None
