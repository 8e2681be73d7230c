"""Devices that join over the joiners' port: with the secret, without it, and against impostors."""

import asyncio
from contextlib import suppress

import pytest
from integration.rpc.enrolling import Desk, Device, Impostor, answering
from integration.rpc.fleet import DAY_S, serving
from msgspec.structs import replace

from meshnode.app.membership.admission import CONTROL_BYTES_MAX, unpacked_signed
from meshnode.core.control.control import ControlSet
from meshnode.core.control.entries import SURVIVORS_MAX, Revoke, sign_entry
from meshnode.core.errors import (
    ExhaustedError,
    MeshError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
    PeerError,
    RefusedError,
    UnreachableError,
)
from meshnode.core.keys import Signed
from meshnode.core.membership.enrolment import apply_with
from meshnode.core.membership.genesis import genesis_from_bytes
from meshnode.core.packing import unpack
from meshnode.rpc.enrolment import (
    HELLOS,
    JOINS,
    NEWCOMER_CALLS,
    EnrolmentServicer,
    ask_to_join,
)
from meshnode.rpc.servers import members_server
from meshnode.v1 import command_service_pb2_grpc as commands_grpc
from meshnode.v1 import enrolment_service_pb2 as pb
from meshnode.v1 import link_service_pb2_grpc as links_grpc

GRPC_BYTES_MAX = 4 << 20  # what gRPC takes in one message unless told
MANY = 1_300  # entries of more than 3 KiB
DEAD = "127.0.0.1:1"  # nobody listens on this port of the loopback


@pytest.fixture
def desk(mesh, database):
    return Desk(mesh, database)


@pytest.fixture
async def address(desk):
    async with answering(desk.servicer(), desk.member.identity) as address:
        yield address


@pytest.fixture
def device(mesh):
    return Device(mesh)


async def test_a_device_with_the_secret_becomes_a_member_whom_others_serve(
    mesh, desk, device, address
):
    labels = {"zone": "b", "arch": "arm", "room": "größer", "": "empty"}
    answer = await device.joins(await desk.invite(address, labels=labels))
    assert genesis_from_bytes(answer.genesis) == mesh.genesis
    assert dict(answer.labels) == labels
    assert list(answer.addresses) == ["192.0.2.1:7707"]
    member, other = device.member(answer), mesh.node()
    server = await members_server(
        links_grpc.LinkServiceServicer(), commands_grpc.CommandServiceServicer()
    )
    async with serving(server, other.identity.for_members) as where:
        channel = member.identity.channel(other.node_id, where)
        async with channel:
            await channel.channel_ready()


@pytest.mark.parametrize("role", ["operator", "observer"])
async def test_an_invite_with_a_role_gives_it_to_the_operator_key(
    mesh, desk, device, address, role
):
    answer = await device.joins(await desk.invite(address, role=role))
    theirs = ControlSet(mesh.genesis)
    for packed in answer.control:
        theirs.add(Signed(*unpack(packed)), 0.0)
    assert theirs.role_of(device.operator.public) == role
    assert desk.control.role_of(device.operator.public) == role
    assert theirs.role_of(device.key.public) == ""


async def test_an_invite_without_a_role_gives_none(desk, device, address):
    answer = await device.joins(await desk.invite(address))
    assert desk.control.role_of(device.operator.public) == ""
    assert list(answer.control) == []


async def test_the_wrong_secret_is_refused_and_takes_no_use(desk, device, address):
    invite = await desk.invite(address)
    with pytest.raises(NotAuthenticatedError, match="secret is wrong"):
        await device.joins(replace(invite, secret=b"x" * 16))
    await device.joins(invite)


async def test_an_expired_invite_is_refused(desk, device, address):
    invite = await desk.invite(address, ttl_s=60)
    desk.clock.wall += 61
    with pytest.raises(NotPermittedError, match="expired"):
        await device.joins(invite)


async def test_an_unknown_invite_is_refused(desk, device, address):
    invite = await desk.invite(address)
    with pytest.raises(NotFoundError):
        await device.joins(replace(invite, invite_id=bytes(16)))


async def test_a_used_invite_is_refused_to_another_and_answered_to_the_same_device(
    mesh, desk, device, address
):
    invite = await desk.invite(address)
    await device.joins(invite)
    with pytest.raises(NotPermittedError, match="used up"):
        await Device(mesh).joins(invite)
    await device.joins(invite)  # its first answer may have been lost on the way


async def test_an_invite_for_one_device_is_refused_to_others(mesh, desk, device, address):
    invite = await desk.invite(address, for_key=device.key.public)
    with pytest.raises(NotPermittedError, match="another device"):
        await Device(mesh).joins(invite)
    await device.joins(invite)


async def test_a_device_asks_for_the_mesh_of_its_invite_only(foreign, desk, device, address):
    invite = await desk.invite(address)
    application = apply_with(
        device.key, None, replace(invite, mesh_id=foreign.mesh_id), "pi", bytes(16)
    )
    with pytest.raises(NotFoundError):
        await asyncio.to_thread(ask_to_join, invite, application)


async def test_an_application_signed_by_another_key_never_leaves_the_device(desk, device, address):
    invite = await desk.invite(address)
    application = apply_with(device.key, None, invite, "pi", bytes(16))
    with pytest.raises(PeerError):
        await asyncio.to_thread(ask_to_join, invite, replace(application, signature=bytes(64)))


@pytest.mark.parametrize("whose", ["another member", "a stranger"])
async def test_a_fake_admitter_at_the_right_address_is_refused_by_tls(
    mesh, foreign, desk, device, whose
):
    fake = mesh.node() if whose == "another member" else foreign.the_admitter()
    impostor = Impostor(lambda _: pb.JoinResponse())
    async with answering(impostor, fake.identity) as address:
        with pytest.raises(UnreachableError):
            await device.joins(await desk.invite(address))
    assert impostor.asked == 0


@pytest.mark.parametrize(
    "answer",
    [
        pb.JoinResponse(at="2026-11-20T00:00:00.000Z"),
        pb.JoinResponse(at="2026-11-20T00:00:00.000Z", proof=bytes(32)),
        pb.JoinResponse(at="no time at all"),
        pb.JoinResponse(),
    ],
    ids=["no proof", "a wrong proof", "no time", "nothing"],
)
async def test_whoever_has_the_key_of_tls_and_not_the_secret_admits_nobody(desk, device, answer):
    impostor = Impostor(lambda _: answer)
    async with answering(impostor, desk.member.identity) as address:
        with pytest.raises(NotAuthenticatedError):
            await device.joins(await desk.invite(address))
    assert impostor.asked == 1


@pytest.mark.parametrize("part", ["genesis", "labels", "addresses", "at", "control"])
async def test_an_answer_that_was_changed_on_its_way_is_refused(desk, device, part):
    changed = {
        "genesis": {"genesis": b"x"},
        "labels": {"labels": {"zone": "c"}},
        "addresses": {"addresses": ["198.51.100.1:1"]},
        "at": {"at": "2020-01-01T00:00:00.000Z"},
        "control": {"control": [b"x"]},
    }[part]

    class Changing(EnrolmentServicer):
        async def Join(self, request, context):
            answer = await super().Join(request, context)
            answer.ClearField(part)
            answer.MergeFrom(pb.JoinResponse(**changed))
            return answer

    async with answering(desk.servicer(Changing), desk.member.identity) as address:
        with pytest.raises(NotAuthenticatedError):
            await device.joins(await desk.invite(address, labels={"zone": "b"}))


async def test_the_next_address_is_tried_and_dead_ones_are_named(desk, device, address):
    invite = await desk.invite(address)
    await device.joins(replace(invite, addresses=(DEAD, address)))
    with pytest.raises(UnreachableError, match=DEAD):
        await device.joins(replace(invite, addresses=(DEAD,)))


async def test_more_calls_than_an_address_has_room_for_are_told_to_come_back(mesh, desk, address):
    invite = await desk.invite(address, uses=100)
    for _ in range(int(JOINS.of_source)):
        await Device(mesh).joins(invite)
    late = Device(mesh)
    with pytest.raises(ExhaustedError, match="too many calls from this address"):
        await late.joins(invite)
    desk.clock.steady += 1
    await late.joins(invite)


class From:
    """A call from some address."""

    def __init__(self, host: str):
        self.host = host

    def peer(self) -> str:
        return f"ipv4:{self.host}:4711"


async def hellos(servicer: EnrolmentServicer, host: str, count: int) -> int:
    """Count how many of so many calls at once are answered."""
    answered = 0
    for _ in range(count):
        with suppress(RefusedError):
            answered += bool(await servicer.Hello(pb.HelloRequest(), From(host)))
    return answered


async def test_hellos_have_a_pace_of_their_own(desk):
    servicer = desk.servicer()
    assert await hellos(servicer, "192.0.2.1", 100) == HELLOS.of_source
    assert await hellos(servicer, "192.0.2.2", 100) == HELLOS.of_source


async def test_a_flood_from_some_addresses_leaves_room_for_who_comes_anew(desk):
    servicer = desk.servicer()
    flooding = [f"192.0.2.{number}" for number in range(20)]
    answered = 0
    for number in range(60):
        desk.clock.steady += 0.5
        for host in flooding:
            answered += await hellos(servicer, host, 20)
        assert await hellos(servicer, f"198.51.100.{number}", 1) == 1
    assert answered <= 20 * NEWCOMER_CALLS * 1.5 + 31 * HELLOS.of_others


async def test_of_twenty_devices_at_once_an_invite_for_one_admits_one(mesh, desk, address):
    desk.clock.stride_s = 1.0  # the pace is another test's matter
    invite = await desk.invite(address)

    async def tries(device: Device) -> MeshError | pb.JoinResponse:
        while True:
            try:
                return await device.joins(invite)
            except UnreachableError:
                pass  # a busy machine lets handshakes expire; asking again takes no second use
            except MeshError as error:
                return error

    ends = await asyncio.gather(*(tries(Device(mesh)) for _ in range(20)))
    admitted = [end for end in ends if isinstance(end, pb.JoinResponse)]
    refused = [end for end in ends if isinstance(end, NotPermittedError)]
    assert (len(admitted), len(refused)) == (1, 19)


async def test_a_certificate_lasts_for_two_years_by_the_admitters_clock(desk, device, address):
    answer = await device.joins(await desk.invite(address))
    member = device.member(answer)
    assert member.identity.ca_expires_at_s() == int(desk.clock.wall) + 730 * DAY_S


async def test_a_mesh_with_more_to_say_than_fits_an_answer_admits_all_the_same(
    mesh, desk, device, address
):
    at_s = int(desk.clock.wall_s())
    survivors = tuple(sorted(mesh.chance(32) for _ in range(SURVIVORS_MAX)))
    for _ in range(MANY):
        revoke = Revoke("key", mesh.chance(32), survivors)
        entry = sign_entry(mesh.root, mesh.mesh_id, revoke, mesh.chance, issued_s=at_s)
        desk.control.add(entry, desk.clock.wall_s())
    assert sum(len(one.payload) for one in desk.control.entries()) > GRPC_BYTES_MAX
    answer = await device.joins(await desk.invite(address, role="operator"))
    control = ControlSet(mesh.genesis)
    refused = control.add_all(map(unpacked_signed, answer.control), at_s)
    assert refused == []
    assert control.role_of(device.operator.public) == "operator"
    assert CONTROL_BYTES_MAX * 9 // 10 < sum(map(len, answer.control)) <= CONTROL_BYTES_MAX
