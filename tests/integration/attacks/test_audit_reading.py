"""Attacks by members on the service that reads audit logs: records need a signed request."""

import asyncio
from contextlib import asynccontextmanager

import grpc.aio
import pytest
from auditing import Desk, Log, granted
from integration.rpc.fleet import WAIT_S, Founded, serving

from meshnode.app.audit.witnessing import Seen
from meshnode.core.commands.audit import head_from_signed
from meshnode.core.commands.envelopes import PIECE_BYTES_MAX
from meshnode.core.errors import MeshError, NotAuthenticatedError, NotPermittedError, PeerError
from meshnode.core.feeds.heads import Head
from meshnode.core.keys import Key
from meshnode.rpc.audit import (
    AuditCourier,
    AuditServicer,
    pieces_of,
    sought_from_wire,
    sought_in,
)
from meshnode.rpc.errors import error_from
from meshnode.rpc.servers import members_server
from meshnode.v1 import audit_service_pb2 as pb
from meshnode.v1 import audit_service_pb2_grpc as pb_grpc
from meshnode.v1 import command_service_pb2_grpc as commands_grpc
from meshnode.v1 import link_service_pb2_grpc as links_grpc
from meshnode.wire.signed import signed_to_wire


class Book:
    """A node's log, its desk's court before it, and a count of how often it was read."""

    def __init__(self, log: Log, node_id: str) -> None:
        self.log, self.desk, self.self_id = log, Desk(), node_id
        self.read = self.forgotten = 0
        self.revoked = False

    def judge(self, signed, via):
        return self.desk.court.judge(signed, None, via, self.desk.clock.now_s)

    def check_revocations(self, command):
        if self.revoked:
            raise NotAuthenticatedError("the key was revoked")

    async def pages(self, sought):
        self.read += 1
        for one in self.log.kept():
            yield self.log.rider.tail.log, [one]

    async def heads(self, node_id):
        signed = self.log.head()
        return [Seen(head_from_signed(signed), signed, 1.0, Head(1, 1))]

    async def accept(self, node):
        self.forgotten += 1
        return 0

    def neighbours(self):
        return ()


@pytest.fixture
async def town(tmp_path):
    """A node that serves its log to members, and a member that asks."""
    founded = Founded(5)
    owner, asker = founded.node(), founded.node()
    log = Log(tmp_path / "state.db")
    log.note("thing", "other")
    book = Book(log, owner.node_id)
    server = await members_server(
        links_grpc.LinkServiceServicer(),
        commands_grpc.CommandServiceServicer(),
        more=[AuditServicer(book)],
    )
    async with serving(server, owner.identity.for_members) as address, asyncio.timeout(WAIT_S):
        yield book, owner, asker, address
    log.close()


@asynccontextmanager
async def asking(town):
    _, owner, asker, address = town
    channel = asker.identity.channel(owner.node_id, address)
    try:
        yield pb_grpc.AuditServiceStub(channel)
    except grpc.aio.AioRpcError as failure:
        raise error_from(failure, "the owner") from failure
    finally:
        await channel.close()


async def read(town, request: pb.ReadAuditRequest) -> list[pb.ReadAuditResponse]:
    async with asking(town) as stub:
        return [part async for part in stub.ReadAudit(request)]


async def test_a_member_without_a_signed_request_reads_nothing(town):
    for request in (pb.ReadAuditRequest(), pb.ReadAuditRequest(node_id=town[1].node_id)):
        with pytest.raises(PeerError):
            await read(town, request)
    assert town[0].read == 0


@pytest.mark.parametrize(
    ("request_of", "kind"),
    [
        (lambda desk: desk.order("read_audit", key=granted(agents=("a",))), NotPermittedError),
        (lambda desk: desk.order("read_audit", key=granted(actions=("kill",))), NotPermittedError),
        (lambda desk: desk.order("read_audit", key=granted(Key(b"x" * 32))), NotAuthenticatedError),
        (lambda desk: desk.order("read_audit", mesh="m" * 52), NotAuthenticatedError),
        (lambda desk: desk.order("read_audit", issued_s=1, expires_s=60), MeshError),
    ],
)
async def test_a_request_that_does_not_permit_it_reads_nothing(town, request_of, kind):
    command = signed_to_wire(request_of(town[0].desk))
    with pytest.raises(kind):
        await read(town, pb.ReadAuditRequest(command=command))
    assert town[0].read == 0


async def test_a_signed_request_reads_the_log(town):
    command = signed_to_wire(town[0].desk.order("read_audit"))
    parts = await read(town, pb.ReadAuditRequest(command=command))
    assert [entry.seq for part in parts for entry in part.records] == [1, 2]


async def test_a_reader_whose_key_is_revoked_reads_no_further(town):
    command = signed_to_wire(town[0].desk.order("read_audit"))
    town[0].revoked = True
    with pytest.raises(NotAuthenticatedError):
        await read(town, pb.ReadAuditRequest(command=command))


async def test_a_member_cannot_make_another_node_forget_what_it_has_seen(town):
    with pytest.raises(NotPermittedError):
        async with asking(town) as stub:
            await stub.AcceptLog(pb.AcceptLogRequest(node_id=town[2].node_id))
    assert town[0].forgotten == 0


async def test_heads_are_for_every_member_and_their_witness_is_who_tls_says(town):
    _, owner, asker, address = town
    courier = AuditCourier(asker.identity, lambda _: (address,), lambda _: "the owner", None)
    (seen,) = await courier.list_heads(owner.node_id, owner.node_id)
    assert seen.seen_by == owner.node_id
    nowhere = AuditCourier(asker.identity, lambda _: ("127.0.0.1:1",), lambda _: "nobody", None)
    assert await nowhere.list_heads(owner.node_id, owner.node_id) is None


class Links:
    """The way over links, and what comes over it."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces, self.brought = pieces, []

    def has_path(self, owner):
        return True

    async def read(self, owner, command, timeout_s):
        self.brought.append((owner, command))
        for piece in self.pieces:
            yield piece


def over(links: Links, town) -> AuditCourier:
    return AuditCourier(town[2].identity, lambda _: ("127.0.0.1:1",), lambda _: "the owner", links)


async def test_a_log_comes_over_links_whole_where_nobody_can_be_dialled(town):
    book, owner = town[:2]
    for number in range(40):
        book.log.note("thing", detail="\U0001f40b" * 512, session=f"{number}")
    pages = [(book.log.rider.tail.log, book.log.kept()), (book.log.rider.tail.log, [])]
    pieces = list(pieces_of(owner.node_id, pages))
    assert len(pieces) > 2
    assert all(0 < len(piece) <= PIECE_BYTES_MAX for piece in pieces)
    links, signed = Links(*pieces), book.desk.order("read_audit")
    request = pb.ReadAuditRequest(command=signed_to_wire(signed))
    parts = [part async for part in over(links, town).read_audit(owner.node_id, request)]
    seqs = [entry.seq for part in parts for entry in part.records]
    assert seqs == [one.seq for one in book.log.kept()]
    assert {(part.node_id, part.log) for part in parts} == {(owner.node_id, pages[0][0])}
    assert links.brought == [(owner.node_id, signed)]


async def test_what_is_no_part_of_a_log_is_the_owners_fault(town):
    request = pb.ReadAuditRequest(command=signed_to_wire(town[0].desk.order("read_audit")))
    reading = over(Links(b"\xff"), town).read_audit(town[1].node_id, request)
    with pytest.raises(PeerError, match="no part"):
        await anext(reading)


@pytest.mark.parametrize(
    "args",
    [
        *({"limit": limit} for limit in (10_001, "all", -1)),
        *({"kinds": kinds} for kinds in (["k"] * 65, 5)),
        *({"since": since} for since in ("now and then", 5)),
        *({"session": session} for session in (["s"], "\ud800")),
    ],
    ids=str,
)
def test_a_command_over_links_that_asks_for_nonsense_is_refused(args):
    with pytest.raises(MeshError):
        sought_in(args)


def test_a_command_over_links_selects_as_a_call_does():
    args = {"limit": 7, "kinds": ["k"], "session": "s", "since": "2026-11-20T10:00:00Z"}
    assert sought_in(args) == sought_from_wire(pb.ReadAuditRequest(**args))
    assert sought_in({"message": "else"}) == sought_from_wire(pb.ReadAuditRequest())


async def test_words_that_are_too_many_are_refused(town):
    command = signed_to_wire(town[0].desk.order("read_audit"))
    for fields in ({"limit": 10_001}, {"kinds": ["k"] * 65}, {"since": "now and then"}):
        with pytest.raises(MeshError):
            await read(town, pb.ReadAuditRequest(command=command, **fields))
    assert town[0].read == 0
