"""A revoked node, and whomever a stolen admitter lets in, is served nothing and is no neighbour."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import grpc.aio
import pytest
from integration.rpc.fleet import WAIT_S, Founded, Member, health_of, now_s, serving
from integration.rpc.stations import Station, flows, link, station
from msgspec.structs import replace

from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.core.control.entries import Revoke, role_entry, sign_entry
from meshnode.core.control.roles import Role
from meshnode.core.errors import NotPermittedError
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key
from meshnode.core.membership.certificates import issue_admitter, issue_node_ca, to_pem
from meshnode.core.membership.members import NODE, ONLY_ROW, NodeRecord, node_to_row
from meshnode.rpc.errors import error_from
from meshnode.rpc.links import LinkServicer
from meshnode.rpc.servers import members_server
from meshnode.rpc.tls import Identity
from meshnode.v1 import command_service_pb2 as pb
from meshnode.v1 import command_service_pb2_grpc as pb_grpc

SERVED = 1


class TwoAnswers(pb_grpc.CommandServiceServicer):
    """A log that goes on once it is told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def ReadLog(self, request, context):
        yield pb.ReadLogResponse(output=b"one")
        await self.go_on.wait()
        yield pb.ReadLogResponse(output=b"two")


class Gate:
    """A node that has heard who is revoked, and its members' port."""

    def __init__(self, founded: Founded, address: str = "") -> None:
        self.founded = founded
        self.member = founded.node()
        self.admin = Key.new(founded.chance)
        self.mesh = Mesh(
            founded.genesis, Self(self.member.key, 1, Random(1), wall=lambda _: now_s())
        )
        role = Role(self.admin.public, "admin", "", founded.root.public, int(now_s()), None)
        self._add(role_entry(founded.root, founded.mesh_id, role, founded.chance))
        self.log = TwoAnswers()
        self.address = address

    def revoke(self, node: Key, *survivors: Member, by: Key | None = None) -> None:
        said = Revoke("node", node.public, tuple(one.key.public for one in survivors))
        at_s = int(now_s())
        signer = by or self.founded.root
        self._add(
            sign_entry(signer, self.founded.mesh_id, said, self.founded.chance, issued_s=at_s)
        )

    def _add(self, entry) -> None:
        self.mesh.add_control(entry, 0.0)

    def knows(self, member: Member) -> None:
        """Hear a node's member record."""
        genesis = self.founded.genesis
        feed = OwnFeed(member.key, genesis.mesh_id, genesis.limits, 1)
        record = NodeRecord("known", certificates=member.chain)
        feed.write(NODE, ONLY_ROW, node_to_row(record))
        feed.flush(now_s())
        self.mesh.replication.replicas[member.node_id] = feed

    def channel_of(self, caller: Member) -> grpc.aio.Channel:
        return caller.identity.channel(self.member.node_id, self.address)

    async def serves(self, caller: Member) -> bool:
        """Whether a caller is served; a refusal must be the right one."""
        try:
            return await health_of(self.channel_of(caller)) == SERVED
        except grpc.aio.AioRpcError as failure:
            error = error_from(failure, "it")
            assert type(error) is NotPermittedError, error
            assert "revoked" in error.message
            return False


@pytest.fixture
def founded() -> Founded:
    return Founded(7)


@asynccontextmanager
async def opened(gate: Gate) -> AsyncIterator[Gate]:
    server = await members_server(LinkServicer(None), gate.log, gate.mesh.revoked)
    credentials = gate.member.identity.for_members
    async with serving(server, credentials) as gate.address, asyncio.timeout(WAIT_S):
        yield gate


@pytest.fixture
async def gate(founded) -> AsyncIterator[Gate]:
    async with opened(Gate(founded)) as gate:
        yield gate


def admitted_by(founded: Founded, admitter: Key, key: Key | None = None) -> Member:
    """Let another admitter admit a node; the root has made it one."""
    chance, mesh_id = founded.chance, founded.mesh_id
    key = key or Key.new(chance)
    node_id, admitter_id = node_id_of(key.public), node_id_of(admitter.public)
    above = issue_admitter(founded.root, mesh_id, admitter_id, now_s(), chance)
    chain = (issue_node_ca(admitter, node_id, now_s(), chance), above)
    identity = Identity(founded._credentials(key, chain, now_s))
    return Member(key, node_id, chain, identity)


async def test_a_node_that_an_admin_has_revoked_is_refused_on_the_connection_it_has(gate):
    thief, other = gate.founded.node(), gate.founded.node()
    assert await gate.serves(thief)
    stub = pb_grpc.CommandServiceStub(gate.channel_of(thief))
    log = stub.ReadLog(pb.ReadLogRequest())
    assert (await log.read()).output == b"one"
    gate.revoke(thief.key, by=gate.admin)
    gate.log.go_on.set()
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await log.read()
    assert type(error_from(failure.value, "it")) is NotPermittedError
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stub.Submit(pb.SubmitRequest())
    assert type(error_from(failure.value, "it")) is NotPermittedError
    assert not await gate.serves(thief)
    assert await gate.serves(other)


async def test_with_a_revoked_admitter_everybody_falls_whom_it_let_in(gate):
    before = [gate.founded.node() for _ in range(3)]
    elsewhere = admitted_by(gate.founded, Key.new(gate.founded.chance))
    gate.revoke(gate.founded.admitter)
    assert [await gate.serves(one) for one in before] == [False] * 3
    assert not await gate.serves(gate.founded.the_admitter())
    assert await gate.serves(elsewhere)


async def test_survivors_stay_and_whom_the_thief_admits_afterwards_never_comes_in(gate):
    kept, lost = gate.founded.node(), gate.founded.node()
    gate.revoke(gate.founded.admitter, kept)
    later = gate.founded.node()
    backdated = gate.founded.node(admitted_at_s=now_s() - 400 * 86400)
    assert [await gate.serves(one) for one in (kept, lost, later, backdated)] == [
        True,
        False,
        False,
        False,
    ]
    assert not await gate.serves(gate.founded.the_admitter()), "though it could list itself"
    gate.revoke(gate.founded.admitter, gate.founded.the_admitter(), lost)
    assert [await gate.serves(one) for one in (kept, lost, later)] == [True, True, False]
    assert not await gate.serves(gate.founded.the_admitter())


async def test_a_thief_does_not_hide_who_admitted_it_behind_other_certificates(gate):
    thief = gate.founded.node()
    elsewhere = admitted_by(gate.founded, Key.new(gate.founded.chance))
    gate.revoke(gate.founded.admitter)
    for chain in ((*thief.chain, elsewhere.chain[1]), (elsewhere.chain[1], *thief.chain)):
        leaf = gate.founded.leaf_of(thief, now_s())
        shown = gate.founded.showing(thief, replace(leaf, chain=leaf.chain + to_pem(chain)))
        assert not await gate.serves(shown)


async def test_whom_another_admitter_lets_in_anew_is_served_at_once(gate):
    member = gate.founded.node()
    gate.knows(member)
    gate.revoke(gate.founded.admitter)
    assert not await gate.serves(member)
    assert await gate.serves(admitted_by(gate.founded, Key.new(gate.founded.chance), member.key))


async def test_an_admin_does_not_revoke_an_admitter_and_who_is_none_cannot_pass_for_one(gate):
    admitter, thief = gate.founded.the_admitter(), gate.founded.node()
    for member in (admitter, thief):
        gate.knows(member)
        gate.revoke(member.key, by=gate.admin)
    assert await gate.serves(admitter)
    own = issue_admitter(
        thief.key, gate.founded.mesh_id, thief.node_id, now_s(), gate.founded.chance
    )
    gate.knows(dataclasses.replace(thief, chain=(thief.chain[0], thief.chain[1], own)))
    assert not await gate.serves(thief)


async def test_a_revocation_by_somebody_not_entitled_changes_nothing(gate):
    thief, victim = Key.new(gate.founded.chance), gate.founded.node()
    before = gate.mesh.control.root()
    for by in (thief, gate.founded.admitter, victim.key):
        with pytest.raises(Exception, match="role does not allow"):
            gate.revoke(gate.member.key, by=by)
    assert gate.mesh.control.root() == before
    assert await gate.serves(victim)


async def test_a_refused_node_is_told_whether_its_key_may_come_back(gate):
    thief, admitter = gate.founded.node(), Key.new(gate.founded.chance)
    fallen = admitted_by(gate.founded, admitter)
    gate.revoke(thief.key)
    gate.revoke(admitter)
    hints = []
    for one in (thief, fallen):
        with pytest.raises(NotPermittedError, match="was revoked") as refused:
            gate.mesh.revoked.check_caller(one.node_id, to_pem(one.chain))
        hints.append(refused.value.hint)
    assert "in a new home" in hints[0]
    assert hints[1].endswith("session-mesh join -"), "with the key it has"


@asynccontextmanager
async def two_stations(founded: Founded, called: Member) -> AsyncIterator[tuple[Station, Station]]:
    async with station(founded, founded.node()) as one, station(founded, called) as other:
        intro = other.links.introduction
        other.links.introduction = replace(intro, certificates=called.chain)
        yield one, other


async def test_whom_a_thief_admits_is_no_neighbour_when_it_is_dialled_either(founded):
    gate = Gate(founded)
    kept = founded.node()
    gate.revoke(founded.admitter, kept)
    async with two_stations(founded, founded.node()) as (one, other):
        one.links.refusal = gate.mesh.revoked.refusal_of_called
        for chain in (other.member.chain, (), kept.chain):  # its own, none, another's
            other.links.introduction = replace(other.links.introduction, certificates=chain)
            one.dial(other)
            await one.heard.heard("dial_failed", len(one.heard.all("dial_failed")) + 1)
        assert one.heard.all("linked") == []
        told = one.heard.all("dial_failed")
    assert "was revoked" in told[0]
    assert "does not show who admitted it" in told[1]
    assert "does not show who admitted it" in told[2]
    async with two_stations(founded, kept) as (one, other):
        one.links.refusal = gate.mesh.revoked.refusal_of_called
        await link(one, other)
        await flows(one, other, 5)
