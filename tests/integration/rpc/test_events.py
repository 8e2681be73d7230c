"""Events over a real Unix socket: streamed, resumed after a break, nobody waits for the slow."""

import asyncio
from contextlib import asynccontextmanager, suppress
from urllib.parse import quote

import grpc
import grpc.aio
import pytest
from unit.app.seen import IDS, OnePrice, Seen

from meshnode.app.events import events
from meshnode.app.events.changes import Changes
from meshnode.app.events.events import EventLog
from meshnode.app.events.watching import WATCHERS_MAX, WatchDesk
from meshnode.client.errors import MeshError, NoNodeError, UsageError
from meshnode.client.home import Home, make_private
from meshnode.client.mesh import MeshClient
from meshnode.client.targets.targets import Wanted
from meshnode.core.sessions.sessions import State
from meshnode.rpc.events import EventServicer, packed_event
from meshnode.rpc.servers import local_server
from meshnode.v1 import event_service_pb2 as pb
from meshnode.v1.event_service_pb2_grpc import EventServiceStub
from meshnode.v1.local_service_pb2_grpc import LocalServiceServicer

WAIT_S = 20.0


class Serving(Seen):
    """A node that serves its events; `restart` gives it another desk over the same log."""

    def __init__(self, home: Home) -> None:
        self.desk = None
        super().__init__()
        self.home = home
        self.desk = WatchDesk(self.changes, EventLog("abcdefgh", 1, "wwwwwwww"), self.clock)
        self.server = None

    def take(self, changes) -> None:
        if self.desk is not None:
            self.desk._give_out(changes)

    async def up(self, *, resumed: bool = False) -> None:
        await self.desk.begin(self.mesh.tables.origins(), resumed=resumed)
        servicer = EventServicer(self.desk)
        self.server = await local_server(LocalServiceServicer(), servicer, self.home.socket)
        await self.server.start()

    async def down(self) -> None:
        self.desk.close()
        await self.server.stop(0.3)

    def restart(self) -> None:
        log = self.desk.log
        held, _ = log.after(0, 10_000)
        again = EventLog("abcdefgh", 1, "wwwwwwww", held)
        again.begin_run(log.last, log.starts())
        states = self.changes.states()
        self.changes = Changes(self.mesh, OnePrice(), self.clock)
        self.desk = WatchDesk(self.changes, again, self.clock)
        self.desk.remember(states)


@pytest.fixture
async def node(tmp_path):
    home = Home(tmp_path)
    make_private(home.run)
    node = Serving(home)
    await node.up()
    async with asyncio.timeout(WAIT_S):
        yield node
    await node.down()


@asynccontextmanager
async def stub_of(node: Serving):
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.insecure_channel(
        f"unix:{quote(str(node.home.socket))}", options
    ) as channel:
        yield EventServiceStub(channel)


def ops(told) -> list[str]:
    return [f"{event['kind']} {event['op']}" for event in told]


async def until(events_of, op: str) -> list[dict]:
    """Read a client's stream, which blocks, in a thread, up to the first event of an op."""

    def read() -> list[dict]:
        told = []
        for event in events_of:
            told.append(event)
            if event["op"] == op:
                return told
        return told

    return await asyncio.to_thread(read)


async def test_a_client_is_told_how_it_is_and_then_what_changes(node):
    with MeshClient(node.home) as mesh:
        stream = mesh.watch(Wanted(("session", "node")))
        first = await until(stream, "complete")
        assert ops(first) == [*["node snapshot"] * 4, "watch complete"]
        assert [one["position"] is None for one in first] == [True] * 4 + [False]
        node.session(1, "alpha")
        node.session(1, "alpha", State.CLOSED)
        told = await until(stream, "changed")
        assert ops(told) == ["session added", "session changed"]
        assert told[0]["object"]["state"] == "running"
        assert told[1]["changes"] == [{"field": "state", "before": "running", "after": "closed"}]
        listed = await asyncio.to_thread(mesh.events, Wanted(("session",)))
        assert ops(listed["events"]) == ["session added", "session changed"]
        assert listed["position"] == told[1]["position"]
        await asyncio.to_thread(stream.close)


async def test_only_who_asks_for_pulses_is_sent_them(node, monkeypatch):
    monkeypatch.setattr("meshnode.rpc.pulses.PULSE_S", 0.01)
    async with stub_of(node) as stub:
        asked = stub.Watch(pb.WatchRequest(kinds=["session"], pulses=True))
        assert not (await asked.read()).HasField("event"), "one at once"
        assert (await asked.read()).event.op == "complete"
        assert not (await asked.read()).HasField("event"), "and while there is nothing else"
        unasked = stub.Watch(pb.WatchRequest(kinds=["session"]))
        assert (await unasked.read()).event.op == "complete"
        node.session(1, "alpha")
        assert (await unasked.read()).event.op == "added"
        while not (told := await asked.read()).HasField("event"):
            pass
        assert told.event.op == "added"
        for call in (asked, unasked):
            call.cancel()
    while node.desk._wakes:  # noqa: ASYNC110 - a set has no event
        await asyncio.sleep(0.01)


async def test_a_client_goes_on_through_a_restart_and_hears_everything_once(node):
    with MeshClient(node.home) as mesh:
        stream = mesh.watch(Wanted(("session",)))
        await until(stream, "complete")
        node.session(1, "alpha")
        assert ops(await until(stream, "added")) == ["session added"]
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(until(stream, "changed"))
            await node.down()
            node.restart()
            node.session(1, "alpha", State.IDLE)
            await node.up(resumed=True)
        assert ops(waiting.result()) == ["session changed"]
        await asyncio.to_thread(stream.close)


async def test_a_client_begins_anew_and_says_so_when_the_node_remembers_nothing(node):
    node.session(1, "alpha")
    with MeshClient(node.home) as mesh:
        stream = mesh.watch(Wanted(("session",)))
        await until(stream, "complete")
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(until(stream, "complete"))
            await node.down()
            node.desk = WatchDesk(node.changes, EventLog("abcdefgh", 2, "wwwwwwww"), node.clock)
            await node.up()
        assert ops(waiting.result()) == ["watch reset", "session snapshot", "watch complete"]
        await asyncio.to_thread(stream.close)


async def test_a_watch_is_resumed_after_the_restart_of_a_node_that_remembers(node):
    node.session(1, "alpha")
    with MeshClient(node.home) as mesh:
        stream = mesh.watch(Wanted(("session",)))
        position = (await until(stream, "complete"))[-1]["position"]
        await asyncio.to_thread(stream.close)
    await node.down()
    node.restart()
    node.session(1, "alpha", State.IDLE)
    await node.up(resumed=True)
    with MeshClient(node.home) as mesh:
        stream = mesh.watch(Wanted(("session",)), position)
        assert ops(await until(stream, "changed")) == ["watch resumed", "session changed"]
        await asyncio.to_thread(stream.close)


async def test_one_that_does_not_read_is_told_that_it_lagged_and_others_do_not_notice(
    node, monkeypatch
):
    monkeypatch.setattr(events, "EVENTS_MAX", 500)
    async with stub_of(node) as stub:
        slow, quick = stub.Watch(pb.WatchRequest(kinds=["session"])), None
        assert (await slow.read()).event.op == "complete"
        quick = stub.Watch(pb.WatchRequest(kinds=["session"]))
        assert (await quick.read()).event.op == "complete"
        heard = 0
        for number in range(6000):
            node.session(1, "alpha", title=f"{number} " + "x" * 500)
            if number % 100 == 99:
                for _ in range(100):
                    heard += (await quick.read()).event.op in {"added", "changed"}
        assert heard == 6000
        seen = [(await slow.read()).event.op]
        while seen[-1] != "complete":
            seen.append((await slow.read()).event.op)
        assert seen[-3:] == ["lagged", "snapshot", "complete"]
        assert len(seen) < 6000
        assert len(node.desk._wakes) == 2


async def test_one_too_many_is_refused_with_a_sentence_and_may_come_when_another_left(node):
    async with stub_of(node) as stub:
        calls = [stub.Watch(pb.WatchRequest()) for _ in range(WATCHERS_MAX)]
        for call in calls:
            await call.read()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Watch(pb.WatchRequest()).read()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "watch this node already" in refused.value.details()
        calls[0].cancel()
        again = None
        while again is None:
            with suppress(grpc.aio.AioRpcError):  # as long as the node has not noticed
                again = await stub.Watch(pb.WatchRequest()).read()
        assert again.event.op == "snapshot"


async def test_streams_end_well_when_the_node_does(node):
    async with stub_of(node) as stub:
        call = stub.Watch(pb.WatchRequest(kinds=["agent"]))
        assert (await call.read()).event.op == "complete"
        node.desk.close()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize(
    "request_of",
    [
        pb.WatchRequest(kinds=["nonsense"]),
        pb.WatchRequest(about="x" * 1000),
        pb.WatchRequest(position="x" * 1000),
    ],
)
async def test_what_makes_no_sense_is_refused(node, request_of):
    async with stub_of(node) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Watch(request_of).read()
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_client_says_what_is_wrong_before_it_asks(node, tmp_path):
    with MeshClient(node.home) as mesh:
        with pytest.raises(UsageError, match="no events of kind"):
            mesh.watch(Wanted(("nonsense",)))
        with pytest.raises(UsageError, match="characters"):
            await asyncio.to_thread(lambda: next(mesh.watch(position="x" * 1000)))
        with pytest.raises(MeshError):
            await asyncio.to_thread(mesh.events, None, "not a time")
        stream = mesh.watch()
        await node.down()
        with pytest.raises(NoNodeError):
            await asyncio.to_thread(lambda: next(stream))
    await node.up()


def test_what_is_packed_for_the_disk_is_what_is_streamed():
    seen = Seen()
    log = EventLog("abcdefgh", 1, "wwwwwwww")
    seen.session(1, "alpha")
    names = (IDS[1],)
    event = log.append(seen.given[-1], names, 5.0)
    message = pb.Event.FromString(packed_event(event, log.position(event.seq)))
    assert (message.op, message.position) == ("added", log.position(1))
    assert message.session.session_id == "alpha"
