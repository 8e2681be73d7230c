"""Who is admitted, with which role, and what a refusal costs: nothing."""

import asyncio
from random import Random

import pytest
from cryptography import x509
from doubles import ManualClock, MemoryInvites

from meshnode.app.membership.admission import (
    INVITE_LIFE_S_MAX,
    USES_MAX,
    AdmissionDesk,
    Admitted,
    Admitter,
)
from meshnode.app.settling import SETTLED_S
from meshnode.core.control import shares
from meshnode.core.control.control import ControlSet
from meshnode.core.control.entries import role_entry
from meshnode.core.control.roles import Authorization, Role, authorize
from meshnode.core.errors import (
    ConflictError,
    MeshError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
    PeerError,
    RefusedError,
    UsageError,
)
from meshnode.core.floor import SKEW_S
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.membership.certificates import issue_admitter
from meshnode.core.membership.enrolment import Invite, admit_proof, apply_with, join_proof
from meshnode.core.membership.genesis import Genesis, genesis_from_bytes
from meshnode.core.membership.members import LABELS_BYTES_MAX
from meshnode.core.packing import unpack

chance = Random(14).randbytes
ROOT, ADMIN, ADMITTER, STRANGER = (Key.new(chance) for _ in range(4))
GENESIS = Genesis((ROOT.public,), 1, "test", bytes(16))
ADMITTER_ID = node_id_of(ADMITTER.public)
CERTIFICATE = issue_admitter(ROOT, GENESIS.mesh_id, ADMITTER_ID, 1_790_000_000.0, chance)
SECRET, INVITE_ID = b"s" * 16, b"i" * 16


class Mesh:
    """An admitter with its desk, and devices that apply."""

    def __init__(self, certificate: bytes | None = CERTIFICATE) -> None:
        self.clock = ManualClock()
        self.book = MemoryInvites()
        self.control = ControlSet(GENESIS)
        role = Role(ADMIN.public, "admin", "", ROOT.public, 1, None)
        self.control.add(role_entry(ROOT, GENESIS.mesh_id, role, chance), 0.0)
        admitter = Admitter(ADMITTER, GENESIS, self.control, lambda: certificate)
        self.desk = AdmissionDesk(admitter, self.book, self.clock, chance)
        self.desk.addresses = lambda: ("a:1",)

    def word(self, signer: Key = ADMIN, **fields: object) -> Signed:
        now_s = int(self.clock.now_s)
        values: dict = {
            "mesh": GENESIS.mesh_id,
            "invite_id": INVITE_ID,
            "admitter": ADMITTER_ID,
            "role": "operator",
            "uses": 1,
            "issued_s": now_s,
            "expires_s": now_s + 3600,
            "signer": b"",
        }
        return authorize(signer, Authorization(**{**values, **fields}))

    async def invite(self, **fields: object) -> None:
        await self.desk.invite(self.word(**fields), SECRET)

    async def join(self, application: Signed, secret: bytes = SECRET) -> Admitted:
        proof = join_proof(secret, ADMITTER_ID, application.payload)
        return await self.desk.join(application, INVITE_ID, proof)

    async def uses_left(self) -> int:
        return (await self.book.get(INVITE_ID)).uses_left


def application(node: Key, operator: Key | None = None, mesh: Genesis = GENESIS) -> Signed:
    invite = Invite(ROOT.public, mesh.mesh_id, ADMITTER_ID, INVITE_ID, SECRET, 0, (), commands=True)
    return apply_with(node, operator, invite, "laptop", bytes(8))


async def test_a_device_that_knows_the_secret_receives_all_it_needs_with_a_proof():
    mesh, node = Mesh(), Key.new(chance)
    await mesh.invite()
    signed = application(node)
    admitted = await mesh.join(signed)
    assert genesis_from_bytes(admitted.genesis) == GENESIS
    assert admitted.addresses == ("a:1",)
    assert admitted.certificates[1] == CERTIFICATE
    certificate = x509.load_der_x509_certificate(admitted.certificates[0])
    certificate.verify_directly_issued_by(x509.load_der_x509_certificate(CERTIFICATE))
    assert certificate.public_key().public_bytes_raw() == node.public  # type: ignore[union-attr] # by name, or of a known kind
    response = [
        admitted.genesis,
        list(admitted.certificates),
        list(admitted.control),
        list(admitted.addresses),
        admitted.at_s,
        admitted.labels,
    ]
    assert admitted.proof == admit_proof(SECRET, signed.payload, response)
    assert await mesh.uses_left() == 0


async def test_the_invites_role_is_given_to_the_operator_who_came_along():
    mesh, node, operator = Mesh(), Key.new(chance), Key.new(chance)
    await mesh.invite(role="observer")
    before = len(mesh.control.entries())
    admitted = await mesh.join(application(node, operator))
    assert mesh.control.role_of(operator.public) == "observer"
    assert mesh.control.role_of(node.public) == ""
    assert len(admitted.control) == before + 1
    theirs = ControlSet(GENESIS)
    for entry in admitted.control:
        theirs.add(Signed(*unpack(entry)), 0.0)
    assert theirs.role_of(operator.public) == "observer"
    (role,) = theirs.roles.of(operator.public)
    assert role.name == f"laptop/{node_id_of(node.public)[:8]}", "its user is told by its device"


async def test_labels_of_the_invite_go_to_the_device_that_it_names_and_to_no_other():
    mesh, node = Mesh(), Key.new(chance)
    await mesh.desk.invite(mesh.word(), SECRET, {"room": "lab"}, node.public)
    with pytest.raises(NotPermittedError):
        await mesh.join(application(Key.new(chance)))
    assert await mesh.uses_left() == 1
    assert (await mesh.join(application(node))).labels == {"room": "lab"}


async def test_an_invite_gives_no_more_labels_than_a_node_can_have():
    mesh = Mesh()
    for many in ({f"k{one}": "v" for one in range(65)}, {"k": "v" * LABELS_BYTES_MAX}):
        with pytest.raises(UsageError, match="at most 64 labels, of 8192 bytes"):
            await mesh.desk.invite(mesh.word(), SECRET, many)
    with pytest.raises(NotFoundError):
        await mesh.book.get(INVITE_ID)


async def test_an_invite_for_a_node_only_gives_no_role():
    mesh, operator = Mesh(), Key.new(chance)
    await mesh.invite(role="")
    await mesh.join(application(Key.new(chance), operator))
    assert mesh.control.role_of(operator.public) == ""


async def test_a_device_without_an_operator_gets_no_role():
    mesh = Mesh()
    await mesh.invite()
    before = len(mesh.control.entries())
    await mesh.join(application(Key.new(chance)))
    assert len(mesh.control.entries()) == before


async def test_parallel_joins_with_one_use_admit_exactly_one():
    mesh = Mesh()
    await mesh.invite()
    nodes = [Key.new(chance) for _ in range(50)]
    operators = [Key.new(chance) for _ in range(50)]

    async def admitted(node: Key, operator: Key) -> bool:
        try:
            await mesh.join(application(node, operator))
        except NotPermittedError:
            return False
        return True

    found = await asyncio.gather(*map(admitted, nodes, operators))
    assert sum(found) == 1
    roles = [mesh.control.role_of(operator.public) for operator in operators]
    assert roles.count("operator") == 1
    assert [bool(role) for role in roles] == found


async def test_a_device_whose_answer_was_lost_may_ask_again():
    mesh, node = Mesh(), Key.new(chance)
    await mesh.invite()
    first = await mesh.join(application(node))
    again = await mesh.join(application(node))
    assert again.genesis == first.genesis
    with pytest.raises(NotPermittedError):
        await mesh.join(application(Key.new(chance)))


async def test_a_device_that_asks_again_is_given_the_role_that_it_has_and_no_other():
    mesh, signed = Mesh(), application(Key.new(chance), Key.new(chance))
    events: list[str] = []
    mesh.desk.on_event = lambda what, _key, _words: events.append(what)
    await mesh.invite()
    before = len(mesh.control.entries())
    answers = [await mesh.join(signed) for _ in range(5)]
    mesh.clock.now_s += 60
    answers += await asyncio.gather(*(mesh.join(signed) for _ in range(5)))
    assert len(mesh.control.entries()) == before + 1
    assert {answer.control[-1] for answer in answers} == {answers[0].control[-1]}
    assert events == ["invite_made", "member_admitted"]


async def test_devices_that_ask_many_times_at_once_are_given_one_role_each():
    mesh, signed = Mesh(), application(Key.new(chance), Key.new(chance))
    await mesh.invite()
    before = len(mesh.control.entries())
    await asyncio.gather(*(mesh.join(signed) for _ in range(10)))
    assert len(mesh.control.entries()) == before + 1


async def test_an_admitter_that_can_give_no_more_roles_spends_no_use(monkeypatch):
    mesh, first = Mesh(), application(Key.new(chance), Key.new(chance))
    await mesh.invite(uses=3)
    await mesh.join(first)
    monkeypatch.setattr(shares, "ROLES_MAX", 1)
    with pytest.raises(RefusedError, match="no more roles") as refused:
        await mesh.join(application(Key.new(chance), Key.new(chance)))
    assert refused.type is RefusedError, "not what who joins comes back for"
    assert await mesh.uses_left() == 2
    await mesh.join(first)
    await mesh.join(application(Key.new(chance)))
    assert await mesh.uses_left() == 1, "who wants no role needs no room"


REFUSALS = {
    "a wrong secret": (NotAuthenticatedError, {"secret": b"x" * 16}, 0.0),
    "an expired invite": (NotPermittedError, {}, 3601.0),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refusal_spends_nothing_and_signs_nothing(name: str):
    refused, arguments, later_s = REFUSALS[name]
    mesh, operator = Mesh(), Key.new(chance)
    await mesh.invite()
    entries = mesh.control.entries()
    mesh.clock.now_s += later_s
    with pytest.raises(refused):
        await mesh.join(application(Key.new(chance), operator), **arguments)  # type: ignore[arg-type] # by name, or of a known kind
    assert await mesh.uses_left() == 1
    assert mesh.control.entries() == entries


async def test_an_application_to_another_mesh_is_not_found_and_spends_nothing():
    mesh = Mesh()
    await mesh.invite()
    other = Genesis((ROOT.public,), 1, "other", bytes(16))
    with pytest.raises(NotFoundError):
        await mesh.join(application(Key.new(chance), mesh=other))
    assert await mesh.uses_left() == 1


async def test_an_application_under_a_stolen_key_is_refused_and_spends_nothing():
    mesh, node = Mesh(), Key.new(chance)
    await mesh.invite()
    genuine = application(node, Key.new(chance))
    stolen = Signed("join", genuine.payload, application(STRANGER).signature)
    with pytest.raises(PeerError):
        await mesh.join(stolen)
    assert await mesh.uses_left() == 1


async def test_a_proof_for_one_application_admits_no_other():
    mesh = Mesh()
    await mesh.invite()
    seen, mine = application(Key.new(chance)), application(STRANGER)
    proof = join_proof(SECRET, ADMITTER_ID, seen.payload)
    with pytest.raises(NotAuthenticatedError):
        await mesh.desk.join(mine, INVITE_ID, proof)
    assert await mesh.uses_left() == 1


async def test_a_used_invite_admits_nobody_else():
    mesh, operator = Mesh(), Key.new(chance)
    await mesh.invite()
    await mesh.join(application(Key.new(chance)))
    with pytest.raises(NotPermittedError):
        await mesh.join(application(Key.new(chance), operator))
    assert mesh.control.role_of(operator.public) == ""


async def test_an_unknown_invite_is_not_found():
    with pytest.raises(NotFoundError):
        await Mesh().join(application(Key.new(chance)))


async def test_a_node_without_an_admitters_certificate_admits_nobody():
    mesh = Mesh(certificate=None)
    with pytest.raises(NotPermittedError):
        await mesh.invite()
    with pytest.raises(NotFoundError):
        await mesh.join(application(Key.new(chance)))


async def test_an_invite_that_ends_on_its_way_to_the_node_is_kept_and_has_expired():
    mesh = Mesh()
    now_s = int(mesh.clock.now_s)
    await mesh.invite(issued_s=now_s - 2, expires_s=now_s - 1)
    with pytest.raises(NotPermittedError, match="has expired"):
        await mesh.join(application(Key.new(chance)))


@pytest.mark.parametrize(
    ("refused", "fields"),
    [
        (NotPermittedError, {"signer": STRANGER}),
        (UsageError, {"mesh": "another"}),
        (UsageError, {"admitter": node_id_of(STRANGER.public)}),
        (UsageError, {"role": "admin"}),
        (UsageError, {"role": "emperor"}),
        (UsageError, {"uses": 0}),
        (UsageError, {"uses": USES_MAX + 1}),
        (UsageError, {"expires_s": 1}),
        (UsageError, {"expires_s": 1_790_000_000 + INVITE_LIFE_S_MAX + 2}),
        (UsageError, {"invite_id": b"short"}),
    ],
)
async def test_an_invite_that_is_not_in_order_is_not_kept(refused: type[MeshError], fields: dict):
    mesh = Mesh()
    with pytest.raises(refused):
        await mesh.invite(**fields)
    with pytest.raises(NotFoundError):
        await mesh.book.get(INVITE_ID)


async def test_a_forged_word_or_a_short_secret_makes_no_invite():
    mesh = Mesh()
    genuine = mesh.word()
    with pytest.raises(NotAuthenticatedError):
        await mesh.desk.invite(Signed("invite", genuine.payload, bytes(64)), SECRET)
    with pytest.raises(UsageError):
        await mesh.desk.invite(genuine, SECRET[:15])
    with pytest.raises(NotFoundError):
        await mesh.book.get(INVITE_ID)


async def test_the_book_keeps_no_more_than_its_limit():
    mesh = Mesh()
    mesh.book.invites_max = 1
    await mesh.invite()
    with pytest.raises(ConflictError):
        await mesh.invite(invite_id=b"j" * 16)


async def test_invites_that_are_good_outlast_a_moment_in_which_the_clock_is_weeks_ahead():
    mesh = Mesh()
    mesh.clock.now_s += SETTLED_S
    await mesh.invite()
    mesh.clock.ahead_s = 15 * 86400.0
    await mesh.invite(invite_id=b"j" * 16)
    mesh.clock.ahead_s = 0.0
    await mesh.join(application(Key.new(chance)))


async def test_what_expired_a_week_ago_is_let_go_by_a_clock_that_has_settled():
    mesh = Mesh()
    await mesh.invite()
    mesh.clock.now_s += 7 * 86400 + 3601
    await mesh.invite(invite_id=b"j" * 16)
    with pytest.raises(NotFoundError):
        await mesh.book.get(INVITE_ID)


async def test_the_time_that_the_clock_has_shown_ends_earlier_invites_and_no_later_ones():
    mesh = Mesh()
    await mesh.invite()
    mesh.desk.floor.raise_to(mesh.clock.wall_s() + 3600 + SKEW_S)
    with pytest.raises(NotPermittedError, match="has shown"):
        await mesh.join(application(Key.new(chance)))
    await mesh.invite(expires_s=int(mesh.clock.now_s) + 60)
    mesh.clock.now_s += 60
    await mesh.join(application(Key.new(chance)))
    mesh.clock.now_s += 1
    with pytest.raises(NotPermittedError, match="expired"):
        await mesh.join(application(Key.new(chance)))
