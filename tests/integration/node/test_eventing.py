"""What a node that is stopped in order leaves: whom it saw, and which positions stay good."""

import asyncio
import shutil
import socket
import sqlite3
from contextlib import AsyncExitStack, closing, contextmanager

import pytest
from integration.client.service import short_home
from integration.node.test_ending import running
from integration.rpc.fleet import WAIT_S

from meshnode.app.cost.cost import CostGroup
from meshnode.app.events.events import SEQ_DIGITS, WORD_CHARS
from meshnode.app.events.things import Change, Kind, Op
from meshnode.client.mesh import MeshClient
from meshnode.core.errors import MeshError
from meshnode.core.ledger.ledger import Buckets
from meshnode.core.links.liveness import MemberState
from meshnode.node.audit.eventing import left_from
from meshnode.node.configuration.http_options import HttpOptions
from meshnode.node.homes import joining
from meshnode.node.homes.founding import found
from meshnode.store import events
from meshnode.store.database import Database


@contextmanager
def two_homes():
    with short_home() as first, short_home() as second:
        found(first, None, "anna", None)
        yield first, second


def admit(host, guest) -> None:
    with MeshClient(host) as mesh:
        made = joining.invite(host, mesh, joining.Inviting(900, role="operator"))
    joining.join(guest, made["invite"], node_name="berta")


async def until(condition) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - of a node in this process
            await asyncio.sleep(0.01)


async def test_who_falls_away_while_a_node_ends_was_there_when_it_goes_on():
    with two_homes() as (first, second):
        async with AsyncExitStack() as nodes:
            anna = await nodes.enter_async_context(running(first))
            await asyncio.to_thread(admit, first, second)
            async with running(second) as berta:
                alive = berta._mesh.liveness.alive
                await until(lambda: len(alive) == 2)
                eventing, agents = berta._eventing, berta._hosting.agents
                await until(lambda: len(eventing._changes.states()) == 2)
                close = agents.close

                async def closing_late():
                    await until(lambda: len(alive) == 1)  # its links are closed by then
                    eventing._take_heard()
                    await close()

                agents.close = closing_late
                berta.ask_to_stop()
            with closing(Database(second.database)) as database:
                left = left_from(database.run_now(events.begin, "a" * 8).stopped)
            anna.ask_to_stop()
    assert set(left.states.values()) == {MemberState.ALIVE}
    assert len(left.states) == 2


def spent(tokens: int) -> Change:
    key = {"node_id": "n" * 52, "node": "anna", "session": "s", "model": "m"}
    view, before = (CostGroup(key, 1, 1, ("m",), Buckets(input=one), None) for one in (tokens, 0))
    return Change(Kind.COST, Op.CHANGED, view, before, quiet=False)


async def lived(home, tokens: range, positions=()) -> tuple[str, list[int | None]]:
    """Run a node in which this is spent; returns its last position, and where others lead to."""
    async with running(home) as node:
        desk = node._eventing._desk
        for one in tokens:
            desk.tell(spent(one))
        position = desk.log.position(desk.log.last)
        found = [desk.log.seq_at(one) for one in positions]
        node.ask_to_stop()
    return position, found


async def test_after_a_restore_no_position_of_what_was_lost_is_known_and_those_before_are():
    with short_home() as home:
        found(home, None, "anna", None)
        before, _ = await lived(home, range(1, 4))
        copy = home.path / "copy.db"
        shutil.copy(home.database, copy)  # there is no -wal after an orderly end
        lost, (went_on,) = await lived(home, range(4, 7), [before])
        assert went_on is not None
        shutil.copy(copy, home.database)
        after, known = await lived(home, range(7, 20), [before, lost])
        assert known == [went_on, None]
        assert sorted([before, lost, after]) == [before, lost, after]
        _, known = await lived(home, range(20, 22), [before, lost, after])
        assert [one is None for one in known] == [False, True, False]


async def test_no_position_before_an_event_that_the_disk_has_spoilt_is_known():
    with short_home() as home:
        found(home, None, "anna", None)
        before, _ = await lived(home, range(1, 4))
        middle, _ = await lived(home, range(4, 7))
        with closing(Database(home.database)) as database:
            database.run_now(spoil, int(middle[:-WORD_CHARS][-SEQ_DIGITS:], 16))
        _, known = await lived(home, range(7, 10), [before, middle])
        assert [one is None for one in known] == [True, False]
        _, known = await lived(home, range(10, 12), [before, middle])
        assert [one is None for one in known] == [True, False]


def spoil(connection: sqlite3.Connection, seq: int) -> None:
    assert connection.execute("UPDATE events SET names = '{' WHERE seq = ?", [seq]).rowcount == 1


async def test_a_start_that_is_refused_takes_no_position_from_anybody():
    with short_home() as home, socket.create_server(("127.0.0.1", 0)) as taken:
        found(home, None, "anna", None)
        before, _ = await lived(home, range(1, 4))
        for way in ({"listen": at(taken)}, {"http": HttpOptions(at(taken))}):
            with pytest.raises(ExceptionGroup) as refused:
                async with running(home, **way):
                    raise AssertionError("it has started")
            assert refused.group_contains(MeshError, match="in use")
        _, (known,) = await lived(home, range(4, 7), [before])
    assert known is not None


def at(listener: socket.socket) -> str:
    host, port = listener.getsockname()
    return f"{host}:{port}"


@pytest.mark.parametrize(
    "spoilt",
    [
        b'{"last": 7, "states": {}, "pending": [], "starts": {"aaaaaaaa": 8}}',
        b'{"last": 7, "states": {}, "pending": [], "starts": {"aaaaaaaa": "7"}}',
        b'{"last": 7, "states": {}, "pending": [], "starts": []}',
    ],
)
def test_what_a_disk_has_spoilt_makes_no_position_known(spoilt):
    assert left_from(spoilt) is None


def test_what_an_older_version_left_is_taken_up_without_its_positions():
    left = left_from(b'{"last": 7, "states": {}, "pending": []}')
    assert (left.last, left.starts) == (7, {})


async def test_a_node_that_stops_while_it_looks_around_tells_what_has_changed():
    with two_homes() as (first, second):
        async with AsyncExitStack() as nodes:
            anna = await nodes.enter_async_context(running(first))
            await asyncio.to_thread(admit, first, second)
            async with running(second) as berta:
                eventing = berta._eventing
                await until(lambda: len(berta._mesh.liveness.alive) == 2)
                await until(lambda: len(eventing._changes.states()) == 2)
                berta.ask_to_stop()
            position = eventing._desk.log.position(eventing._desk.log.last)
            anna.ask_to_stop()
        async with running(second) as berta:
            await asyncio.to_thread(register, second)
            berta.ask_to_stop()
        async with running(second) as berta:
            log = berta._eventing._desk.log
            told, _ = log.after(log.seq_at(position), 100)
            states = set(berta._eventing._changes.states().values())
            berta.ask_to_stop()
    assert "smith" in {name for one in told if one.kind is Kind.AGENT for name in one.names}
    assert not any("anna" in one.names for one in told if one.kind is Kind.NODE), "not seen yet"
    assert states == {MemberState.ALIVE}


def register(home) -> None:
    with MeshClient(home) as mesh:
        mesh.register("smith", "forge")
