"""Nobody becomes a member, or an operator, whom the one who made the invite did not mean."""

import asyncio

import pytest
from integration.rpc.enrolling import SECRET, Desk, Device, Impostor, answering
from integration.rpc.fleet import Founded
from msgspec.structs import replace

from meshnode.app.membership.admission import AdmissionDesk, Admitter
from meshnode.core.control.control import ControlSet
from meshnode.core.control.entries import Revoke, sign_entry
from meshnode.core.control.roles import Authorization, authorize
from meshnode.core.control.succession import RootKeys
from meshnode.core.errors import (
    ConflictError,
    MeshError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
    PeerError,
    UnreachableError,
)
from meshnode.core.feeds.headers import Header, sign_header
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key
from meshnode.core.membership.enrolment import (
    JOIN,
    Invite,
    application_from_signed,
    apply_with,
    join_proof,
)
from meshnode.core.packing import pack, unpack_map
from meshnode.node.homes.books import StoredInvites
from meshnode.node.homes.replacing import replaced_from
from meshnode.rpc.enrolment import EnrolmentServicer
from meshnode.v1 import enrolment_service_pb2 as pb

NOWHERE = "192.0.2.1:7708"
SMALL_ORDER = bytes(32)


@pytest.fixture(scope="module")
def mesh() -> Founded:
    return Founded(3)


@pytest.fixture
def desk(mesh, database):
    return Desk(mesh, database)


@pytest.fixture
def device(mesh) -> Device:
    return Device(mesh)


async def left(desk: Desk, invite: Invite) -> int:
    return (await desk.desk._book.get(invite.invite_id)).uses_left


def applied(device: Device, invite: Invite, replaces: str = "") -> tuple:
    """What a device sends for an invite: the application, the invite's id, the proof."""
    operator = device.operator if invite.commands else None
    signed = apply_with(device.key, operator, invite, "pi", bytes(16), replaces)
    proof = join_proof(invite.secret, invite.admitter, signed.payload)
    return signed, invite.invite_id, proof


async def refused(desk: Desk, kind: type[MeshError], invite: Invite, *sent: object) -> str:
    """Send an application; returns why it is refused, having looked that nothing has changed."""
    before = desk.control.entries(), await left(desk, invite)
    with pytest.raises(kind) as failure:
        await desk.desk.join(*sent)
    assert (desk.control.entries(), await left(desk, invite)) == before
    return failure.value.message


async def test_an_expired_invite_admits_nobody(desk, device):
    invite = await desk.invite(NOWHERE, role="operator", ttl_s=60)
    desk.clock.wall += 61
    said = await refused(desk, NotPermittedError, invite, *applied(device, invite))
    assert "expired" in said


async def test_an_expired_invite_admits_nobody_once_the_clock_is_set_back(mesh, desk, device):
    invite = await desk.invite(NOWHERE, role="operator", ttl_s=60)
    desk.desk.floor.raise_to(desk.clock.wall + 3600)  # what the clock has shown since
    said = await refused(desk, NotPermittedError, invite, *applied(device, invite))
    assert "has shown" in said
    fresh = await desk.invite(NOWHERE, role="operator", ttl_s=60)  # made by the clock as it is
    desk.clock.wall += 61
    said = await refused(desk, NotPermittedError, fresh, *applied(device, fresh))
    assert "expired" in said
    desk.clock.wall -= 30
    await desk.desk.join(*applied(device, fresh))


async def test_a_used_invite_admits_no_second_device(mesh, desk, device):
    invite = await desk.invite(NOWHERE, role="operator")
    await desk.desk.join(*applied(device, invite))
    said = await refused(desk, NotPermittedError, invite, *applied(Device(mesh), invite))
    assert "used up" in said


async def test_a_used_invite_gives_the_same_device_no_second_operator(mesh, desk, device):
    invite = await desk.invite(NOWHERE, role="operator")
    await desk.desk.join(*applied(device, invite))
    device.operator = Key.new(mesh.chance)
    await refused(desk, NotPermittedError, invite, *applied(device, invite))


async def test_the_wrong_secret_admits_nobody(desk, device):
    invite = await desk.invite(NOWHERE, role="operator")
    guessed = replace(invite, secret=b"g" * 16)
    await refused(desk, NotAuthenticatedError, invite, *applied(device, guessed))


async def test_of_two_devices_at_once_an_invite_for_one_admits_one(mesh, desk):
    invite = await desk.invite(NOWHERE, role="operator")
    tries = (desk.desk.join(*applied(Device(mesh), invite)) for _ in range(2))
    ends = await asyncio.gather(*tries, return_exceptions=True)
    assert sorted(isinstance(end, NotPermittedError) for end in ends) == [False, True]
    assert (await left(desk, invite), len(desk.control.entries())) == (0, 1)


async def test_an_invite_for_one_device_admits_no_other(mesh, desk, device):
    invite = await desk.invite(NOWHERE, for_key=Key.new(mesh.chance).public)
    await refused(desk, NotPermittedError, invite, *applied(device, invite))


async def test_an_invite_for_a_node_gives_a_device_that_names_an_operator_no_role(desk, device):
    invite = await desk.invite(NOWHERE)
    await desk.desk.join(*applied(device, replace(invite, commands=True)))
    assert desk.control.role_of(device.operator.public) == ""
    assert desk.control.entries() == []


async def test_the_proof_for_one_application_admits_no_other(mesh, desk, device):
    invite = await desk.invite(NOWHERE)
    _, invite_id, overheard = applied(device, invite)
    mine, _, _ = applied(Device(mesh), invite)
    await refused(desk, NotAuthenticatedError, invite, mine, invite_id, overheard)


async def test_a_proof_made_for_one_admitter_is_worth_nothing_at_another(mesh, desk, device):
    invite = await desk.invite(NOWHERE)
    elsewhere = replace(invite, admitter=node_id_of(Key.new(mesh.chance).public))
    await refused(desk, NotAuthenticatedError, invite, *applied(device, elsewhere))


async def test_an_application_for_another_mesh_is_refused(desk, device):
    invite = await desk.invite(NOWHERE)
    elsewhere = replace(invite, mesh_id=Founded(9).mesh_id)
    await refused(desk, NotFoundError, invite, *applied(device, elsewhere))


@pytest.mark.parametrize("whose", ["node", "operator"])
async def test_a_key_of_small_order_is_never_applied_with(desk, device, whose):
    invite = await desk.invite(NOWHERE, role="operator")
    value = unpack_map(applied(device, invite)[0].payload)
    if whose == "node":
        value["node"] = SMALL_ORDER
    else:
        claim = {"mesh": invite.mesh_id, "node": device.key.public, "operator": SMALL_ORDER}
        value["operator"] = [pack(claim), bytes(64)]
    forged = device.key.sign(JOIN, value)
    proof = join_proof(SECRET, invite.admitter, forged.payload)
    await refused(desk, PeerError, invite, forged, invite.invite_id, proof)


async def test_an_operators_claim_for_one_device_gives_another_no_role(mesh, desk, device):
    invite = await desk.invite(NOWHERE, role="operator")
    theirs = unpack_map(applied(device, invite)[0].payload)["operator"]
    thief = Device(mesh)
    value = unpack_map(applied(thief, invite)[0].payload) | {"operator": theirs}
    forged = thief.key.sign(JOIN, value)
    proof = join_proof(SECRET, invite.admitter, forged.payload)
    await refused(desk, PeerError, invite, forged, invite.invite_id, proof)


async def test_an_application_signed_by_another_key_than_it_names_is_refused(mesh, desk, device):
    invite = await desk.invite(NOWHERE)
    value = unpack_map(applied(device, invite)[0].payload)
    forged = Key.new(mesh.chance).sign(JOIN, value)
    proof = join_proof(SECRET, invite.admitter, forged.payload)
    await refused(desk, PeerError, invite, forged, invite.invite_id, proof)
    with pytest.raises(PeerError):
        application_from_signed(forged)


async def test_a_revoked_device_is_not_let_in_again(mesh, desk, device):
    invite = await desk.invite(NOWHERE, role="operator")
    revoke = Revoke("node", device.key.public)
    desk.control.add(sign_entry(mesh.root, mesh.mesh_id, revoke, mesh.chance, issued_s=1), 2)
    said = await refused(desk, NotPermittedError, invite, *applied(device, invite))
    assert "revoked" in said


async def test_a_live_node_is_not_replaced_and_the_invite_stays_good(desk, device):
    def find(word: str, joiner: str) -> bytes:
        raise ConflictError(f"{word} is alive")

    desk.desk.find_replaceable = find
    invite = await desk.invite(NOWHERE, role="operator")
    said = await refused(desk, ConflictError, invite, *applied(device, invite, "anna"))
    assert said == "anna is alive"


@pytest.mark.parametrize("signer", ["a stranger", "an operator"])
async def test_only_an_admins_word_makes_an_invite(mesh, desk, signer):
    invite_id, at_s = mesh.chance(16), int(desk.clock.wall_s())
    life = (at_s, at_s + 60, b"")
    who = Key.new(mesh.chance)
    if signer == "an operator":
        earlier = await desk.invite(NOWHERE, role="operator")
        device = Device(mesh)
        await desk.desk.join(*applied(device, earlier))
        who = device.operator
    word = Authorization(mesh.mesh_id, invite_id, desk.member.node_id, "operator", 1, *life)
    before = desk.control.entries()
    with pytest.raises(NotPermittedError):
        await desk.desk.invite(authorize(who, word), SECRET)
    with pytest.raises(NotFoundError):
        await desk.desk._book.get(invite_id)
    assert desk.control.entries() == before


async def test_a_node_whose_certificate_is_no_present_roots_admits_nobody(mesh, database):
    control, clock = ControlSet(mesh.genesis), Desk(mesh, database).clock
    admitter = Admitter(
        mesh.admitter,
        mesh.genesis,
        control,
        lambda: control.succession.certificate_of(node_id_of(mesh.admitter.public)),
    )
    desk = AdmissionDesk(admitter, StoredInvites(database), clock, mesh.chance)
    at_s = int(clock.wall_s())
    word = Authorization(
        mesh.mesh_id, bytes(16), node_id_of(mesh.admitter.public), "", 1, at_s, at_s + 60, b""
    )
    with pytest.raises(NotPermittedError, match="may not admit"):
        await desk.invite(authorize(mesh.root, word), SECRET)
    with pytest.raises(NotFoundError):
        await StoredInvites(database).get(bytes(16))


@pytest.mark.parametrize("whose", ["another root", "the right mesh and another key"])
async def test_a_man_in_the_middle_never_sees_an_application(mesh, desk, device, whose):
    fake = Founded(8).the_admitter() if whose == "another root" else mesh.node()
    impostor = Impostor(lambda _: pb.JoinResponse())
    async with answering(impostor, fake.identity) as address:
        invite = await desk.invite(address, role="operator")
        with pytest.raises(UnreachableError):
            await device.joins(invite)
    assert impostor.asked == 0
    assert (await left(desk, invite), desk.control.entries()) == (1, [])


@pytest.mark.parametrize("part", ["certificates", "control", "replaced"])
async def test_an_answer_changed_on_its_way_makes_nobody_a_member(mesh, desk, device, part):
    class Changing(EnrolmentServicer):
        async def Join(self, request, context):
            answer = await super().Join(request, context)
            answer.MergeFrom(
                pb.JoinResponse(replaced=b"x")
                if part == "replaced"
                else pb.JoinResponse(**{part: [b"x"]})
            )
            return answer

    async with answering(desk.servicer(Changing), desk.member.identity) as address:
        with pytest.raises(NotAuthenticatedError):
            await device.joins(await desk.invite(address))


def test_an_admitter_cannot_slip_a_joiner_roots_of_its_own(mesh):
    mine = RootKeys(2, (mesh.admitter.public,))
    slipped = sign_entry(mesh.admitter, mesh.mesh_id, mine, mesh.chance, issued_s=1)
    theirs = ControlSet(mesh.genesis)
    assert theirs.add_all([slipped], 2) == [slipped]
    assert theirs.succession.present == (mesh.root.public,)
    assert theirs.entries() == []


def test_an_admitter_cannot_hand_a_joiner_a_head_that_the_old_node_has_not_signed(mesh):
    old = Key.new(mesh.chance)
    zero, top = bytes(32), (1 << 60)
    header = Header(
        mesh.mesh_id, node_id_of(old.public), 1, 1, top, top, zero, zero, 1_790_000_000.0
    )
    signed = sign_header(mesh.admitter, header).signed
    forged = pack({"name": "anna", "labels": {}, "head": signed.to_list()})
    with pytest.raises(PeerError):
        replaced_from(forged, mesh.mesh_id)
    assert replaced_from(
        pack({"name": "a", "labels": {}, "head": sign_header(old, header).signed.to_list()}),
        mesh.mesh_id,
    ).node == node_id_of(old.public)
