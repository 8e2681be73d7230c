"""Links between two nodes over real TLS: one a pair, whatever happens to its streams."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from hashlib import sha256
from typing import Any

import grpc.aio
import pytest
from integration.rpc.fleet import WAIT_S, Founded, Member, serving

from meshnode.app import outbox
from meshnode.core.feed import Flush
from meshnode.core.headers import NOTHING, Header, sign_header
from meshnode.core.ids import NodeId
from meshnode.core.messages import Farewell, Members, Message, Pulse
from meshnode.rpc import links as links_module
from meshnode.rpc.errors import error_from
from meshnode.rpc.links import Links, LinkServicer
from meshnode.rpc.servers import members_server
from meshnode.v1 import command_service_pb2_grpc as commands_grpc
from meshnode.v1 import link_service_pb2 as pb
from meshnode.v1 import link_service_pb2_grpc as pb_grpc
from meshnode.wire.links import Introduction, introduction_to_wire

LINK = "/meshnode.v1.LinkService/Link"


class Recorder:
    """Notes what links tell, and answers a farewell as a mesh does."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.links: Links | None = None
        self.held = NOTHING
        self._changed = asyncio.Event()

    def linked(self, peer: NodeId, *, dialled: bool) -> None:
        self._note("linked", peer, dialled)

    def unlinked(self, peer: NodeId, reason: str) -> None:
        self._note("unlinked", peer, reason)

    def holds(self, header: Header) -> bool:
        return header.head <= self.held

    def dial_failed(self, peer: NodeId, reason: str, *, stalled: bool) -> None:
        self._note("dial_failed", peer, reason)
        self.stalled = stalled

    def learned(self, peer: NodeId, addresses: tuple[str, ...]) -> None:
        self._note("learned", peer, addresses)

    def received(self, peer: NodeId, message: Message) -> None:
        self._note("received", peer, message)
        if isinstance(message, Farewell) and self.links is not None:
            self.links.hang_up(peer, message.reason)

    def refused(self, peer: NodeId, reason: str) -> None:
        self._note("refused", peer, reason)

    def caught_up(self, peer: NodeId) -> None:
        self._note("caught_up", peer)

    def _note(self, *event: Any) -> None:
        self.events.append(event)
        self._changed.set()

    def all(self, kind: str) -> list[Any]:
        """Return the last part of every event of a kind."""
        return [event[-1] for event in self.events if event[0] == kind]

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait for events until something holds."""
        async with asyncio.timeout(WAIT_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    async def heard(self, kind: str, count: int = 1) -> Any:
        """Wait for so many events of a kind; returns the last part of the last one."""
        await self.until(lambda: len(self.all(kind)) >= count)
        return self.all(kind)[count - 1]


class Station:
    """One node's links, and its tasks: any exception that escapes one is kept."""

    def __init__(self, member: Member, mesh: Founded, boot: int = 1) -> None:
        self.member = member
        self.node_id = member.node_id
        self.heard = Recorder()
        self.address = ""
        self.server: grpc.aio.Server | None = None
        self.escaped: list[BaseException] = []
        self.tasks: set[asyncio.Task[None]] = set()
        introduction = Introduction(boot, ("192.0.2.1:1",))
        self.links = Links(self.node_id, mesh.mesh_id, introduction, self.heard, self.spawn)
        self.heard.links = self.links

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.escaped.append(error)

    def dial(self, other: "Station", *addresses: str) -> None:
        where = addresses or (other.address,)
        self.links.dial(other.node_id, where, self.member.identity)

    def send(self, other: "Station", *counts: int) -> None:
        """Send messages that are neither coalesced nor urgent, and tell their number."""
        for count in counts:
            self.links.send(other.node_id, Members({other.node_id: (str(count),)}))

    def numbers(self) -> list[int]:
        """Return what `send` has told us."""
        told = [message for message in self.heard.all("received") if isinstance(message, Members)]
        return [int(address) for one in told for (address,) in one.addresses.values()]

    async def told(self, *counts: int) -> None:
        await self.heard.until(lambda: set(counts) <= set(self.numbers()))

    async def quiet(self) -> None:
        """Wait until no task of ours is left."""
        async with asyncio.timeout(WAIT_S):
            while self.tasks:
                await asyncio.wait(self.tasks)

    async def writing(self) -> None:
        """Wait until nothing waits in an outbox: what was sent is in gRPC's hands."""
        async with asyncio.timeout(WAIT_S):
            while any(link.outbox._bytes for link in self.links._links.values()):  # noqa: ASYNC110 - an outbox has no event
                await asyncio.sleep(0)  # an outbox has no event for its being empty

    @property
    def balance(self) -> int:
        """How many links there are, by what was told."""
        return len(self.heard.all("linked")) - len(self.heard.all("unlinked"))

    async def close(self) -> None:
        self.links.close()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@asynccontextmanager
async def station(mesh: Founded, member: Member, boot: int = 1) -> AsyncIterator[Station]:
    """Run a node's links on a port of its own; no exception may have escaped at the end."""
    made = Station(member, mesh, boot)
    server = await members_server(LinkServicer(made.links), commands_grpc.CommandServiceServicer())
    async with serving(server, member.identity.for_members()) as made.address:
        made.server = server
        try:
            yield made
        finally:
            await made.close()
    assert made.escaped == []


@pytest.fixture
async def stations(mesh):
    """Yield a function that starts stations, the lower node id first."""
    async with AsyncExitStack() as stack:

        async def start(count: int) -> list[Station]:
            members = sorted((mesh.node() for _ in range(count)), key=lambda one: one.node_id)
            return [await stack.enter_async_context(station(mesh, one)) for one in members]

        yield start


@pytest.fixture
async def pair(stations):
    """Two nodes without a link: anna has the lower node id."""
    return await stations(2)


async def link(one: Station, other: Station) -> None:
    one.dial(other)
    await one.heard.heard("linked")
    await other.heard.heard("linked")


async def flows(one: Station, other: Station, number: int) -> None:
    """Messages reach both."""
    one.send(other, number)
    other.send(one, number + 1)
    await other.told(number)
    await one.told(number + 1)


@pytest.mark.parametrize("dialler", [0, 1])
async def test_a_link_carries_messages_both_ways(pair, dialler):
    one, other = pair[dialler], pair[1 - dialler]
    await link(one, other)
    await flows(one, other, 1)
    assert one.heard.events[:2] == [
        ("learned", other.node_id, ("192.0.2.1:1",)),
        ("linked", other.node_id, True),
    ]
    assert other.heard.events[1] == ("linked", one.node_id, False)


async def test_messages_keep_their_order(pair):
    anna, bert = pair
    await link(anna, bert)
    anna.send(bert, *range(500))
    await bert.told(499)
    assert bert.numbers() == list(range(500))


async def test_both_dial_at_once_and_one_link_remains_at_both_ends(stations):
    for _ in range(5):
        anna, bert = await stations(2)
        anna.dial(bert)
        bert.dial(anna)
        await anna.heard.until(lambda one=anna: True in one.heard.all("linked"))
        await bert.heard.until(lambda one=bert: False in one.heard.all("linked"))
        await flows(anna, bert, 1)
        await bert.heard.until(lambda one=bert: one.balance == 1)
        await anna.heard.until(lambda one=anna: one.balance == 1)
        # The stream that stayed is the one that the lower node id dialled, at both ends alike.
        assert anna.heard.all("linked")[-1] is True
        assert bert.heard.all("linked")[-1] is False
        assert anna.heard.all("dial_failed") == bert.heard.all("dial_failed") == []


@pytest.mark.parametrize("restarted", [0, 1])
@pytest.mark.parametrize("dialler", [0, 1])
async def test_a_restarted_peer_replaces_its_old_stream_at_once(mesh, pair, restarted, dialler):
    """The old process is still there, as after a power cut that no packet told of."""
    await link(pair[dialler], pair[1 - dialler])
    old, other = pair[restarted], pair[1 - restarted]
    async with station(mesh, old.member, boot=2) as new:
        new.dial(other)
        await new.heard.heard("linked")
        await other.heard.heard("linked", 2)
        await flows(new, other, 10)
        assert other.heard.all("unlinked") == ["replaced"]
        assert (other.balance, new.balance) == (1, 1)
        await old.heard.heard("unlinked")
        assert old.balance == 0


@pytest.mark.parametrize("who", [0, 1])
async def test_hanging_up_says_why_and_each_side_is_told_once(pair, who):
    await link(*pair)
    one, other = pair[who], pair[1 - who]
    one.links.hang_up(other.node_id, "links enough")
    assert await one.heard.heard("unlinked") == "links enough"
    assert await other.heard.heard("unlinked") == "links enough"
    await one.quiet()
    await other.quiet()
    assert Farewell("links enough") in other.heard.all("received")
    assert len(one.heard.all("unlinked")) == len(other.heard.all("unlinked")) == 1
    assert one.heard.all("refused") == other.heard.all("refused") == []


async def test_what_was_queued_after_hanging_up_is_not_sent(pair):
    anna, bert = pair
    await link(anna, bert)
    anna.links.hang_up(bert.node_id, "enough")
    anna.send(bert, 7)
    await bert.heard.heard("unlinked")
    await bert.quiet()
    assert bert.numbers() == []


async def test_a_pair_may_link_again_after_hanging_up(pair):
    anna, bert = pair
    await link(anna, bert)
    bert.links.hang_up(anna.node_id, "enough")
    await anna.heard.heard("unlinked")
    bert.dial(anna)
    await anna.heard.heard("linked", 2)
    await bert.heard.heard("linked", 2)
    await flows(anna, bert, 1)


async def test_closing_takes_leave_of_every_peer(stations):
    anna, bert, carl = await stations(3)
    await link(anna, bert)
    carl.dial(anna)
    await carl.heard.heard("linked")
    await anna.heard.heard("linked", 2)
    anna.links.close()
    for peer in (bert, carl):
        assert await peer.heard.heard("unlinked") == "going down"
    assert anna.heard.all("unlinked") == ["closed", "closed"]


async def test_a_killed_server_is_told_as_unlinked(pair):
    anna, bert = pair
    await link(anna, bert)
    await bert.server.stop(0)
    assert await anna.heard.heard("unlinked") == "reset"
    await anna.quiet()
    await bert.quiet()
    assert len(anna.heard.all("unlinked")) == len(bert.heard.all("unlinked")) == 1


async def test_a_killed_dialler_is_told_as_unlinked(pair):
    anna, bert = pair
    await link(anna, bert)
    for task in list(anna.tasks):
        task.cancel()
    assert await bert.heard.heard("unlinked") == "reset"
    await bert.quiet()


async def test_a_dial_to_a_dead_port_says_so_in_words(pair):
    anna, bert = pair
    await bert.server.stop(0)
    anna.dial(bert)
    reason = await anna.heard.heard("dial_failed")
    assert reason.startswith(f"{bert.address}: ")
    assert "Connection refused" in reason
    assert anna.heard.all("linked") == []


async def test_every_address_is_tried_and_named(pair):
    anna, bert = pair
    dead = bert.address
    await bert.server.stop(0)
    anna.dial(bert, dead, f"localhost:{dead.partition(':')[2]}")
    reason = await anna.heard.heard("dial_failed")
    assert dead in reason
    assert "localhost" in reason


async def test_a_later_address_that_answers_is_enough(pair, stations):
    anna, bert = pair
    (gone,) = await stations(1)
    await gone.server.stop(0)
    anna.dial(bert, gone.address, bert.address)
    await anna.heard.heard("linked")
    assert anna.heard.all("dial_failed") == []


async def test_a_dial_without_addresses_fails_with_a_reason(pair):
    anna, bert = pair
    anna.links.dial(bert.node_id, (), anna.member.identity)
    assert await anna.heard.heard("dial_failed") == "no address is known"


async def test_a_dial_that_finds_another_node_fails(stations):
    anna, bert, carl = await stations(3)
    anna.dial(bert, carl.address)
    assert (await anna.heard.heard("dial_failed")).startswith(carl.address)
    assert carl.heard.events == []


# A peer that is genuine and speaks as it likes.


@asynccontextmanager
async def raw_link(mesh: Founded, callee: Station) -> AsyncIterator[Any]:
    """Open a stream by hand, as bytes; the caller is a member."""
    caller = mesh.node()
    async with (
        caller.identity.channel(callee.node_id, callee.address) as channel,
        asyncio.timeout(WAIT_S),
    ):
        call = channel.stream_stream(LINK)()
        call.caller_id = caller.node_id
        yield call


def packed(frame: pb.Frame) -> bytes:
    return pb.LinkRequest(frame=frame).SerializeToString()


INTRODUCED = packed(introduction_to_wire(Introduction(1, ())))


def pulse(count: int) -> bytes:
    return packed(pb.Frame(pulse=pb.Pulse(count=count)))


def wrong_frames() -> dict[str, bytes]:
    signed = pb.Flush().header.__class__(type="flush", payload=b"\x80", signature=bytes(64))
    return {
        "a second introduction": INTRODUCED,
        "a flush without a header": packed(pb.Frame(flush=pb.Flush(delta=b"x"))),
        "a flush with a header of nothing": packed(pb.Frame(flush=pb.Flush(header=signed))),
        "a position of nobody": packed(
            pb.Frame(vector=pb.Vector(positions=[pb.Position(origin="ß", epoch=1, seq=1)]))
        ),
        "a member of no name": packed(
            pb.Frame(members=pb.Members(members=[pb.MemberAddress(node_id="x" * 52)]))
        ),
        "a control entry without a signature": packed(pb.Frame(control=pb.Frame().control)),
    }


@pytest.mark.parametrize("name", wrong_frames())
async def test_a_wrong_frame_is_refused_and_the_link_kept(mesh, pair, name):
    anna, _ = pair
    async with raw_link(mesh, anna) as call:
        await call.write(INTRODUCED)
        await call.read()
        await call.write(wrong_frames()[name])
        await call.write(pulse(3))
        await anna.heard.heard("received")
    assert len(anna.heard.all("refused")) == 1
    assert anna.heard.all("received") == [Pulse(3)]


async def test_a_flush_of_another_mesh_is_refused(mesh, foreign, pair):
    anna, _ = pair
    stranger = foreign.node()
    flush = flush_of(stranger, foreign.mesh_id, 1, b"\x90")
    async with raw_link(mesh, anna) as call:
        await call.write(INTRODUCED)
        await call.read()
        await call.write(packed(links_module.message_to_wire(flush)))
        assert "another mesh" in await anna.heard.heard("refused")


@pytest.mark.parametrize("frame", [pb.Frame(), b"\x9a\x06\x02hi"], ids=["empty", "of a newer kind"])
async def test_a_frame_of_an_unknown_kind_is_passed_over(mesh, pair, frame):
    anna, _ = pair
    body = frame if isinstance(frame, bytes) else frame.SerializeToString()
    async with raw_link(mesh, anna) as call:
        await call.write(INTRODUCED)
        await call.read()
        await call.write(b"\x0a" + bytes([len(body)]) + body)
        await call.write(pulse(3))
        await anna.heard.heard("received")
    assert anna.heard.all("refused") == []


async def test_bytes_that_are_no_frame_end_the_link(mesh, pair):
    anna, _ = pair
    async with raw_link(mesh, anna) as call:
        await call.write(INTRODUCED)
        await call.read()
        await anna.heard.heard("linked")
        await call.write(b"\xff\xff\xff")
        await anna.heard.heard("unlinked")
        await call.code()
    assert len(anna.heard.all("refused")) == 1
    await anna.quiet()


@pytest.mark.parametrize(
    ("first", "says"),
    [
        (packed(pb.Frame(introduction=pb.Introduction(boot=1, protocol=99))), "protocol 99"),
        (pulse(1), "does not begin with an introduction"),
        (packed(pb.Frame()), "does not begin with an introduction"),
        (b"\xff\xff\xff", "no request of this service"),
    ],
    ids=["another protocol", "a pulse", "nothing", "no frame"],
)
async def test_a_stream_that_begins_wrongly_becomes_no_link(mesh, pair, first, says):
    anna, _ = pair
    async with raw_link(mesh, anna) as call:
        await call.write(first)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await call.read()
    assert says in error_from(failure.value, "it").message
    assert anna.heard.all("linked") == []


async def test_a_caller_who_says_nothing_is_let_go(mesh, pair, monkeypatch, caplog):
    monkeypatch.setattr(links_module, "INTRODUCTION_TIMEOUT_S", 0.1)
    anna, _ = pair
    async with raw_link(mesh, anna) as call:
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "no introduction" in await call.details()
    assert "internal error" not in caplog.text


async def test_a_caller_who_leaves_before_speaking_leaves_nothing_behind(mesh, pair):
    anna, _ = pair
    async with raw_link(mesh, anna) as call:
        await call.done_writing()
        await call.code()
    assert anna.heard.events == []


class Answering(pb_grpc.LinkServiceServicer):
    """Answers a caller with bytes by hand, then waits for it to go."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = answers
        self.gone = asyncio.Event()

    async def answer(self, _requests, _context):
        try:
            for one in self.answers:
                yield one
            await asyncio.Event().wait()
        finally:
            self.gone.set()


@asynccontextmanager
async def answering(member: Member, servicer: Answering) -> AsyncIterator[str]:
    server = grpc.aio.server()  # without the guard: bytes as they are
    handler = grpc.stream_stream_rpc_method_handler(servicer.answer)
    service, _, method = LINK.removeprefix("/").partition("/")
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    async with serving(server, member.identity.for_members()) as address:
        yield address


@pytest.mark.parametrize(
    ("first", "says"),
    [
        (packed(pb.Frame(introduction=pb.Introduction(boot=1, protocol=99))), "protocol 99"),
        (pulse(1), "does not begin with an introduction"),
        (b"\xff\xff\xff", "no frame"),
    ],
    ids=["another protocol", "a pulse", "no frame"],
)
async def test_a_dial_that_is_answered_wrongly_fails_with_the_reason(mesh, pair, first, says):
    anna, _ = pair
    member, servicer = mesh.node(), Answering(first)
    async with answering(member, servicer) as address:
        anna.links.dial(member.node_id, (address,), anna.member.identity)
        reason = await anna.heard.heard("dial_failed")
        await anna.quiet()
    assert says in reason


async def test_a_dial_that_is_not_answered_fails_in_time(mesh, pair, monkeypatch):
    monkeypatch.setattr(links_module, "DIAL_TIMEOUT_S", 0.2)
    anna, _ = pair
    member = mesh.node()
    async with answering(member, Answering()) as address:
        anna.links.dial(member.node_id, (address,), anna.member.identity)
        assert "no answer in 0.2 s" in await anna.heard.heard("dial_failed")


async def test_garbage_from_a_dialled_peer_ends_the_link_and_nothing_escapes(mesh, pair):
    anna, _ = pair
    member, servicer = mesh.node(), Answering(INTRODUCED, pulse(1), b"\xff\xff\xff")
    async with answering(member, servicer) as address:
        anna.links.dial(member.node_id, (address,), anna.member.identity)
        await anna.heard.heard("unlinked")
        await anna.quiet()
    assert anna.heard.all("received") == [Pulse(1)]
    assert len(anna.heard.all("refused")) == 1
    assert anna.heard.all("dial_failed") == []  # it was a link, and has ended


async def test_a_dial_that_meets_an_error_tells_what_the_peer_said(mesh, pair):
    anna, bert = pair
    member = mesh.node()

    class Refusing(LinkServicer):
        def Link(self, request_iterator, context):
            raise links_module.PeerError("not today")

    server = await members_server(Refusing(bert.links), commands_grpc.CommandServiceServicer())
    async with serving(server, member.identity.for_members()) as address:
        anna.links.dial(member.node_id, (address,), anna.member.identity)
        assert "not today" in await anna.heard.heard("dial_failed")


# Peers that do not read.


def flush_of(member: Member, mesh_id: str, seq: int, delta: bytes) -> Flush:
    digest = sha256(delta).digest()
    header = Header(mesh_id, member.node_id, 1, 1, seq, seq, digest, digest, 0.0)
    return Flush(sign_header(member.key, header), delta)


@pytest.fixture
def large(mesh):
    """A message of 200 kB, more than streams hold on their way."""
    return flush_of(mesh.node(), mesh.mesh_id, 1, bytes(200_000))


@pytest.fixture
def huge(mesh):
    """A message that no stream takes whole while nobody reads."""
    return flush_of(mesh.node(), mesh.mesh_id, 1, bytes(3_900_000))


async def until_stuck(one: Station, peer: NodeId, huge: Message) -> None:
    """Send until gRPC takes no more into its own buffers, which are larger than one message."""
    with suppress(TimeoutError):
        while True:
            one.links.send(peer, huge)
            async with asyncio.timeout(1.0):
                await one.writing()


async def fill(one: Station, peer: NodeId, large: Message) -> None:
    """Queue more than an outbox holds."""
    for _ in range(2 * outbox.OUTBOX_BYTES_MAX // 200_000):
        one.links.send(peer, large)


async def test_an_outbox_that_overflowed_is_told_as_caught_up(mesh, pair, large):
    anna, _ = pair
    async with raw_link(mesh, anna) as call:
        await call.write(INTRODUCED)
        await call.read()
        await anna.heard.heard("linked")
        await fill(anna, call.caller_id, large)
        assert anna.heard.all("caught_up") == []
        while not anna.heard.all("caught_up"):
            await call.read()
    assert len(anna.heard.all("caught_up")) == 1


async def test_a_dialler_whose_outbox_overflowed_catches_up_too(pair, large):
    anna, bert = pair
    await link(anna, bert)
    await fill(anna, bert.node_id, large)
    await anna.heard.heard("caught_up")
    assert anna.heard.all("unlinked") == []


async def test_a_peer_that_does_not_read_blocks_no_other_link(mesh, pair, large):
    anna, bert = pair
    await link(anna, bert)
    async with raw_link(mesh, anna) as call:
        await call.write(INTRODUCED)
        await call.read()
        await anna.heard.heard("linked", 2)
        await fill(anna, call.caller_id, large)
        await flows(anna, bert, 1)
        await call.write(pulse(5))  # and it may still speak itself
        await anna.heard.until(lambda: Pulse(5) in anna.heard.all("received"))
        assert anna.heard.all("unlinked") == []


async def test_a_caller_that_does_not_read_is_let_go_and_told_when_it_reads_again(mesh, pair, huge):
    anna, bert = pair
    async with raw_link(mesh, anna) as call:
        await call.write(INTRODUCED)
        await call.read()
        await anna.heard.heard("linked")
        await until_stuck(anna, call.caller_id, huge)
        anna.links.hang_up(call.caller_id, "silent")
        assert anna.heard.all("unlinked") == ["silent"]
        anna.dial(bert)  # meanwhile life goes on
        await bert.heard.heard("linked")
        last = b""
        while answer := await call.read():
            last = answer
        assert pb.LinkResponse.FromString(last).frame.farewell.reason == "silent"
        assert await call.code() is grpc.StatusCode.OK


async def test_a_dialled_peer_that_does_not_read_is_cut_off_once_it_is_let_go(
    mesh, pair, huge, monkeypatch
):
    monkeypatch.setattr(links_module, "LAST_WORDS_S", 0.1)
    anna, _ = pair
    member, servicer = mesh.node(), Answering(INTRODUCED)
    async with answering(member, servicer) as address:
        anna.links.dial(member.node_id, (address,), anna.member.identity)
        await anna.heard.heard("linked")
        await until_stuck(anna, member.node_id, huge)
        anna.links.hang_up(member.node_id, "silent")
        await anna.quiet()
        async with asyncio.timeout(WAIT_S):
            await servicer.gone.wait()
    assert anna.heard.all("unlinked") == ["silent"]
