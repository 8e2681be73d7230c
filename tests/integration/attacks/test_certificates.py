"""No certificate passes for one that the mesh has made, and none is renewed for another node."""

import asyncio
import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from integration.rpc.fleet import (
    DAY_S,
    WAIT_S,
    Claim,
    FixedIdentity,
    Founded,
    Member,
    handmade_leaf,
    health_of,
    leaf_under_a_leaf,
    now_s,
    serving,
)

from meshnode.app.membership.admission import Admitter
from meshnode.app.membership.renewal import RenewalDesk
from meshnode.core.control.control import ControlSet
from meshnode.core.control.entries import sign_entry
from meshnode.core.control.succession import Admits, RootKeys
from meshnode.core.errors import (
    NotPermittedError,
    RefusedError,
)
from meshnode.core.ids import NodeId, node_id_of
from meshnode.core.keys import Key
from meshnode.core.membership.certificates import (
    dns_name_of,
    issue_admitter,
    issue_node_ca,
    leads_to_root,
)
from meshnode.node.clock import SystemClock
from meshnode.rpc.renewal import RenewalServicer, ask_to_renew
from meshnode.rpc.servers import members_server
from meshnode.rpc.tls import Credentials
from meshnode.v1 import command_service_pb2_grpc as commands_grpc
from meshnode.v1 import link_service_pb2_grpc as links_grpc


@pytest.fixture(scope="module")
def mesh() -> Founded:
    return Founded(4)


@pytest.fixture(scope="module")
def foreign() -> Founded:
    return Founded(5)


@dataclass
class Renewals:
    """An admitter's desk with its port, and what it has issued."""

    mesh: Founded
    member: Member
    control: ControlSet
    members: set[NodeId]
    issued: list[NodeId]

    def servicer(self) -> RenewalServicer:
        admitter = Admitter(self.mesh.admitter, self.mesh.genesis, self.control, self.certificate)
        desk = RenewalDesk(admitter, self.members.__contains__, SystemClock(), self.mesh.chance)
        issue, issued = desk.renew, self.issued

        def noted(peer: NodeId) -> tuple[bytes, ...]:
            chain = issue(peer)
            issued.append(peer)
            return chain

        desk.renew = noted
        return RenewalServicer(desk)

    def certificate(self) -> bytes | None:
        return self.control.succession.certificate_of(self.member.node_id)


@pytest.fixture
def renewals(mesh):
    control = ControlSet(mesh.genesis)
    word = Admits(mesh.admitter.public, mesh.admitter_certificate)
    control.add(sign_entry(mesh.root, mesh.mesh_id, word, mesh.chance, issued_s=1), now_s())
    return Renewals(mesh, mesh.the_admitter(), control, set(), [])


async def served(renewals: Renewals):
    links, commands = links_grpc.LinkServiceServicer(), commands_grpc.CommandServiceServicer()
    return await members_server(links, commands, more=[renewals.servicer()])


async def renewed(renewals: Renewals, caller: Member) -> tuple[bytes, ...]:
    async with serving(await served(renewals), renewals.member.identity.for_members) as address:
        async with asyncio.timeout(WAIT_S):
            return await ask_to_renew(caller.identity, renewals.member.node_id, [address])


async def is_out(mesh: Founded, caller: Member, renewals: Renewals) -> bool:
    """Whether TLS or the guard refuses a caller, and nothing was issued for anybody."""
    renewals.members |= {caller.node_id, renewals.member.node_id}
    async with serving(await served(renewals), renewals.member.identity.for_members) as address:
        try:
            await health_of(caller.identity.channel(renewals.member.node_id, address))
        except grpc.aio.AioRpcError as error:
            refused = error.code() in {
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.UNAUTHENTICATED,
            }
            return refused and not renewals.issued
    return False


@dataclass(frozen=True)
class Authority:
    """What a node's authority made by hand says."""

    issuer: Key
    key: Key
    named: NodeId
    constrained: bool = True
    path_length: int | None = 0


def authority(mesh: Founded, said: Authority) -> bytes:
    """Make a node's authority that no honest admitter makes."""
    at = datetime.fromtimestamp(int(now_s()), UTC)
    issuer = x509.load_der_x509_certificate(mesh.admitter_certificate).subject
    usage = x509.KeyUsage(True, False, False, False, False, True, False, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "node by hand")]))
        .issuer_name(issuer)
        .public_key(Ed25519PrivateKey.from_private_bytes(said.key.seed).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - timedelta(days=1))
        .not_valid_after(at + timedelta(days=1))
        .add_extension(x509.BasicConstraints(True, said.path_length), critical=True)
        .add_extension(usage, critical=True)
    )
    if said.constrained:
        permitted = [x509.DNSName(dns_name_of(said.named))]
        builder = builder.add_extension(x509.NameConstraints(permitted, None), critical=True)
    signer = Ed25519PrivateKey.from_private_bytes(said.issuer.seed)
    return builder.sign(signer, None).public_bytes(Encoding.DER)


def speaking_as(mesh: Founded, key: Key, ca: bytes, named: NodeId) -> Member:
    """A caller whose leaf, under a given authority, names any node it likes."""
    chain = (ca, mesh.admitter_certificate)
    member = Member(key, named, chain, None)
    leaf = handmade_leaf(member, Claim([dns_name_of(named)]))
    shown = FixedIdentity(Credentials(key, mesh.genesis, chain, now_s, mesh.chance), leaf)
    return Member(key, named, chain, shown)


async def test_an_honest_member_is_served_and_renewed(mesh, renewals):
    anna = mesh.node()
    renewals.members.add(anna.node_id)
    chain = await renewed(renewals, anna)
    assert leads_to_root(chain, anna.node_id, [mesh.root.public])
    assert renewals.issued == [anna.node_id]


@pytest.mark.parametrize("constrained", [True, False], ids=["to the victim", "to nothing"])
async def test_a_rogue_admitters_authority_for_anothers_name_speaks_for_nobody(
    mesh, renewals, constrained
):
    thief, victim = Key.new(mesh.chance), mesh.node()
    ca = authority(mesh, Authority(mesh.admitter, thief, victim.node_id, constrained))
    assert await is_out(mesh, speaking_as(mesh, thief, ca, victim.node_id), renewals)
    assert not leads_to_root((ca, mesh.admitter_certificate), victim.node_id, [mesh.root.public])


async def test_an_authority_without_constraints_cannot_name_another_node(mesh, renewals):
    mine, victim = Key.new(mesh.chance), mesh.node()
    own = node_id_of(mine.public)
    ca = authority(mesh, Authority(mesh.admitter, mine, own, constrained=False))
    assert await is_out(mesh, speaking_as(mesh, mine, ca, victim.node_id), renewals)


async def test_a_member_makes_no_members_whatever_path_length_it_was_given(mesh, renewals):
    member, thief = Key.new(mesh.chance), Key.new(mesh.chance)
    own, new = node_id_of(member.public), node_id_of(thief.public)
    wide = Authority(mesh.admitter, member, own, constrained=False, path_length=5)
    ca = authority(mesh, wide)
    below = issue_node_ca(member, new, now_s(), mesh.chance)
    chain = (below, ca, mesh.admitter_certificate)
    leaf = handmade_leaf(Member(thief, new, chain, None), Claim([dns_name_of(new)]))
    identity = FixedIdentity(Credentials(thief, mesh.genesis, chain, now_s, mesh.chance), leaf)
    assert await is_out(mesh, Member(thief, new, chain, identity), renewals)


async def test_a_member_that_signs_for_another_as_if_it_admitted_is_refused(mesh, renewals):
    member, thief = mesh.node(), Key.new(mesh.chance)
    new = node_id_of(thief.public)
    ca = authority(mesh, Authority(member.key, thief, new))
    assert await is_out(mesh, speaking_as(mesh, thief, ca, new), renewals)
    assert not leads_to_root((ca, mesh.admitter_certificate), new, [mesh.root.public])


@pytest.mark.parametrize("trick", ["two names", "another name", "no name", "URI", "common name"])
async def test_tricks_with_names_in_a_leaf_are_refused(mesh, renewals, trick):
    mallory, victim = mesh.node(), mesh.node()
    own, theirs = dns_name_of(mallory.node_id), dns_name_of(victim.node_id)
    claim = {
        "two names": Claim([own, theirs]),
        "another name": Claim([theirs]),
        "no name": Claim([]),
        "URI": Claim([], uris=[f"spiffe://{theirs}"]),
        "common name": Claim([], common_name=victim.node_id),
    }[trick]
    assert await is_out(mesh, mesh.showing(mallory, handmade_leaf(mallory, claim)), renewals)


@pytest.mark.parametrize("as_authority", [True, False])
async def test_a_leaf_makes_no_leaves(mesh, renewals, as_authority):
    mallory = mesh.node()
    claim = Claim([dns_name_of(mallory.node_id)])
    leaf = leaf_under_a_leaf(mallory, claim, as_authority=as_authority)
    assert await is_out(mesh, mesh.showing(mallory, leaf), renewals)


async def test_an_expired_leaf_and_an_expired_authority_are_refused(mesh, renewals):
    member = mesh.node()
    old = handmade_leaf(member, Claim([dns_name_of(member.node_id)], lives=timedelta(minutes=-5)))
    assert await is_out(mesh, mesh.showing(member, old), renewals)
    late = mesh.node(admitted_at_s=now_s() - 800 * DAY_S)
    fresh = handmade_leaf(late, Claim([dns_name_of(late.node_id)]))
    assert await is_out(mesh, mesh.showing(late, fresh), renewals)


async def test_a_foreign_root_vouches_for_nobody_here(mesh, foreign, renewals):
    assert await is_out(mesh, foreign.node(), renewals)
    twin = foreign.node(key=mesh.node().key)
    assert await is_out(mesh, twin, renewals)


async def test_a_root_of_the_same_mesh_id_and_name_with_another_key_is_no_root(mesh, renewals):
    thief, admitter, member = (Key.new(mesh.chance) for _ in range(3))
    word = issue_admitter(thief, mesh.mesh_id, node_id_of(admitter.public), now_s(), mesh.chance)
    own = node_id_of(member.public)
    chain = (issue_node_ca(admitter, own, now_s(), mesh.chance), word)
    leaf = handmade_leaf(Member(member, own, chain, None), Claim([dns_name_of(own)]))
    identity = FixedIdentity(Credentials(member, mesh.genesis, chain, now_s, mesh.chance), leaf)
    assert await is_out(mesh, Member(member, own, chain, identity), renewals)


async def test_a_node_that_is_no_member_is_not_renewed(mesh, renewals):
    with pytest.raises(NotPermittedError, match="no member"):
        await renewed(renewals, mesh.node())
    assert renewals.issued == []


async def test_what_is_renewed_is_for_the_callers_key_and_no_other(mesh, renewals):
    mallory, victim = mesh.node(), mesh.node()
    renewals.members |= {mallory.node_id, victim.node_id}
    chain = await renewed(renewals, mallory)
    assert not leads_to_root(chain, victim.node_id, [mesh.root.public])
    assert renewals.issued == [mallory.node_id]
    assert await is_out(
        mesh,
        speaking_as(mesh, mallory.key, chain[0], victim.node_id),
        dataclasses.replace(renewals, issued=[]),
    )


async def test_a_member_is_not_renewed_again_and_again(mesh, renewals):
    anna = mesh.node()
    renewals.members.add(anna.node_id)
    servicer = renewals.servicer()
    servicer._desk.renew(anna.node_id)
    for _ in range(3):
        with pytest.raises(RefusedError, match="just now"):
            servicer._desk.renew(anna.node_id)
    assert renewals.issued == [anna.node_id]


async def test_a_node_that_no_present_root_lets_admit_renews_nobody(mesh, renewals):
    anna, new = mesh.node(), Key.new(mesh.chance)
    renewals.members.add(anna.node_id)
    for signer, step in (
        (mesh.root, RootKeys(2, (mesh.root.public, new.public))),
        (new, RootKeys(3, (new.public,))),
    ):
        entry = sign_entry(signer, mesh.mesh_id, step, mesh.chance, issued_s=1)
        renewals.control.add(entry, now_s())
    with pytest.raises(RefusedError, match="admits nobody"):
        await renewed(renewals, anna)
    assert renewals.issued == []
