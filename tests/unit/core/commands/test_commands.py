"""Each step of the verification order refuses what it must, and before the steps after it."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pytest
from msgspec.structs import replace

from meshnode.core.commands.commands import (
    COMMAND,
    COMMAND_BYTES_MAX,
    KILL_LIFE_S,
    STEER_LIFE_S,
    Command,
    Court,
    Receipt,
    command_from_signed,
    receipt_from_signed,
    sign_command,
    sign_receipt,
)
from meshnode.core.control.control import ControlSet
from meshnode.core.control.entries import Revoke, role_entry, sign_entry
from meshnode.core.control.grants import Grant, KeyTimeError, SessionKey, grant
from meshnode.core.control.roles import Role
from meshnode.core.errors import (
    ExpiredError,
    MeshError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
    PeerError,
    RefusedError,
    StaleError,
)
from meshnode.core.floor import SKEW_S
from meshnode.core.ids import SessionId, node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.membership.genesis import Genesis
from meshnode.core.packing import unpack_map
from meshnode.core.sessions.sessions import SessionRecord, State
from meshnode.core.vocabulary import ACTIONS

chance = Random(6).randbytes
ROOT, OPERATOR, OBSERVER, NODE, STRANGER = (Key.new(chance) for _ in range(5))
GENESIS = Genesis((ROOT.public,), 1, "test", bytes(16))
NODE_ID = node_id_of(NODE.public)
NOW_S = 1_790_000_000
GENERATION = 77
SESSION = SessionRecord(
    SessionId("s" * 26), 4242, "agent", State.RUNNING, 1.0, 1.0, specializations=("docs",)
)
EMPTY = ControlSet(GENESIS)


@pytest.fixture(scope="module")
def court() -> Court:
    control = ControlSet(GENESIS)
    for key, name in ((OPERATOR, "operator"), (OBSERVER, "observer")):
        role = Role(key.public, name, "", ROOT.public, NOW_S, None)
        control.add(role_entry(ROOT, GENESIS.mesh_id, role, chance), 0.0)
    return Court(GENESIS.mesh_id, NODE_ID, control, GENERATION)


def granted(issuer: Key = OPERATOR, **limits: object) -> SessionKey:
    key = Key.new(chance)
    values: dict = {
        "mesh": GENESIS.mesh_id,
        "issuer": issuer.public,
        "subject": key.public,
        "actions": tuple(sorted(ACTIONS - {"keys"})),
        "not_before_s": NOW_S - 10,
        "expires_s": NOW_S + 3600,
        "grant_id": bytes(16),
    }
    return SessionKey(key, (grant(issuer, Grant(**{**values, **limits})),))


STEER = Command(
    mesh=GENESIS.mesh_id,
    command_id=bytes(16),
    node=NODE_ID,
    session=SESSION.session_id,
    epoch=SESSION.session_epoch,
    action="steer",
    issued_s=NOW_S,
    expires_s=NOW_S + 60,
    args={"message": "hello"},
)
KILL = replace(STEER, action="kill", expires_s=NOW_S + KILL_LIFE_S)
REGISTER = replace(
    STEER,
    action="register",
    session="",
    epoch=GENERATION,
    args={"agent_id": "agent", "specialization": "docs"},
)


def test_a_good_command_is_returned_as_it_was_signed(court: Court):
    key = granted()
    for command in (STEER, KILL):
        judged = court.judge(sign_command(key, command), SESSION, "", NOW_S)
        assert judged == replace(command, signer=key.key.public, chain=key.chain)
    judged = court.judge(sign_command(key, REGISTER), None, "", NOW_S)
    assert judged.args == REGISTER.args


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a command, and what it is refused with."""

    step: int
    refused: type[MeshError]
    command: Callable[[Command], Command] = lambda command: command
    issuer: Key = OPERATOR
    limits: tuple[tuple[str, object], ...] = ()
    session: SessionRecord | None = SESSION


FAULTS = {
    "another mesh": Fault(3, NotAuthenticatedError, lambda c: replace(c, mesh="another")),
    "another node": Fault(3, PeerError, lambda c: replace(c, node=node_id_of(ROOT.public))),
    "an unknown action": Fault(3, RefusedError, lambda c: replace(c, action="dance")),
    "no session": Fault(3, PeerError, lambda c: replace(c, session="")),
    "too long-lived": Fault(
        4, RefusedError, lambda c: replace(c, expires_s=c.issued_s + STEER_LIFE_S + 1)
    ),
    "expired": Fault(
        4,
        ExpiredError,
        lambda c: replace(c, issued_s=NOW_S - SKEW_S - 61, expires_s=NOW_S - SKEW_S - 1),
    ),
    "from the future": Fault(
        4,
        RefusedError,
        lambda c: replace(c, issued_s=NOW_S + SKEW_S + 1, expires_s=NOW_S + SKEW_S + 9),
    ),
    "a grant that has expired": Fault(5, KeyTimeError, limits=(("expires_s", NOW_S - SKEW_S - 1),)),
    "a grant that is not valid yet": Fault(
        5, KeyTimeError, limits=(("not_before_s", NOW_S + SKEW_S + 1),)
    ),
    "a grant of another mesh": Fault(5, NotAuthenticatedError, limits=(("mesh", "another"),)),
    "a grant at depth 1": Fault(5, NotAuthenticatedError, limits=(("depth", 1),)),
    "a grant for another key": Fault(
        6, NotAuthenticatedError, limits=(("subject", STRANGER.public),)
    ),
    "an issuer without a role": Fault(6, NotAuthenticatedError, issuer=STRANGER),
    "an unknown session": Fault(7, NotFoundError, session=None),
    "an observer": Fault(8, NotPermittedError, issuer=OBSERVER),
    "a grant without actions": Fault(8, NotPermittedError, limits=(("actions", ()),)),
    "a grant for other nodes": Fault(8, NotPermittedError, limits=(("nodes", ("x",)),)),
    "a grant for other agents": Fault(8, NotPermittedError, limits=(("agents", ("x",)),)),
    "a grant for other sessions": Fault(8, NotPermittedError, limits=(("sessions", ()),)),
    "a grant for other specializations": Fault(
        8, NotPermittedError, limits=(("specializations", ("code",)),)
    ),
    "a grant by way of a gateway": Fault(8, NotPermittedError, limits=(("via", NODE_ID),)),
    "another start of the session": Fault(9, StaleError, lambda c: replace(c, epoch=c.epoch + 1)),
}


def judged(court: Court, *faults: Fault) -> Command:
    command, issuer, limits, session = STEER, OPERATOR, {}, SESSION
    for fault in faults:
        command = fault.command(command)
        issuer = issuer if fault.issuer is OPERATOR else fault.issuer
        limits |= dict(fault.limits)
        session = fault.session if fault.session is None else session
    return court.judge(sign_command(granted(issuer, **limits), command), session, "", NOW_S)


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_refused_with_its_own_class(court: Court, name: str):
    with pytest.raises(MeshError) as caught:
        judged(court, FAULTS[name])
    assert type(caught.value) is FAULTS[name].refused


@pytest.mark.parametrize("name", FAULTS)
def test_of_two_faults_the_earlier_step_answers(court: Court, name: str):
    later = [fault for fault in FAULTS.values() if fault.step > FAULTS[name].step]
    for fault in later:
        with pytest.raises(MeshError) as caught:
            judged(court, fault, FAULTS[name])
        assert type(caught.value) is FAULTS[name].refused


def test_whoever_proves_nothing_does_not_learn_which_sessions_exist(court: Court):
    stranger, unknown, observer = (
        FAULTS[name] for name in ("an issuer without a role", "an unknown session", "an observer")
    )
    with pytest.raises(NotAuthenticatedError):
        judged(court, stranger, unknown)
    with pytest.raises(NotFoundError):
        judged(court, unknown, observer)
    with pytest.raises(NotPermittedError):
        judged(court, observer)


@pytest.mark.parametrize("late_s", [0, SKEW_S])
def test_a_clock_may_be_wrong_by_the_skew_on_both_sides(court: Court, late_s: int):
    old = replace(STEER, issued_s=NOW_S - 60 - late_s, expires_s=NOW_S - late_s)
    assert court.judge(sign_command(granted(), old), SESSION, "", NOW_S)
    young = replace(STEER, issued_s=NOW_S + late_s, expires_s=NOW_S + late_s + 60)
    assert court.judge(sign_command(granted(), young), SESSION, "", NOW_S)


def test_a_kill_ignores_when_it_was_issued_but_not_when_it_expires(court: Court):
    early = replace(KILL, issued_s=NOW_S + 9999, expires_s=NOW_S + KILL_LIFE_S)
    assert court.judge(sign_command(granted(), early), SESSION, "", NOW_S)
    late = replace(KILL, issued_s=NOW_S - KILL_LIFE_S, expires_s=NOW_S - SKEW_S - 1)
    with pytest.raises(ExpiredError):
        court.judge(sign_command(granted(), late), SESSION, "", NOW_S)
    long = replace(KILL, expires_s=KILL.issued_s + KILL_LIFE_S + 1)
    far = replace(KILL, issued_s=NOW_S + 9999, expires_s=NOW_S + 9999 + KILL_LIFE_S)
    backwards = replace(KILL, issued_s=NOW_S + 60, expires_s=NOW_S + 59)
    nameless = replace(KILL, command_id=b"")
    for command in (long, far, backwards, nameless):
        with pytest.raises(RefusedError):
            court.judge(sign_command(granted(), command), SESSION, "", NOW_S)


def test_a_command_to_the_node_names_the_journal_it_was_signed_for(court: Court):
    with pytest.raises(StaleError):
        court.judge(
            sign_command(granted(), replace(REGISTER, epoch=GENERATION + 1)), None, "", NOW_S
        )


def test_a_grant_by_way_of_a_gateway_is_good_from_there_only(court: Court):
    signed = sign_command(granted(via=NODE_ID), STEER)
    assert court.judge(signed, SESSION, NODE_ID, NOW_S)
    with pytest.raises(NotPermittedError):
        court.judge(signed, SESSION, node_id_of(STRANGER.public), NOW_S)


def test_what_the_command_claims_about_its_target_counts_for_nothing(court: Court):
    claim = replace(STEER, args={"specializations": ["code"], "specialization": "code"})
    with pytest.raises(NotPermittedError):
        court.judge(sign_command(granted(specializations=("code",)), claim), SESSION, "", NOW_S)


def test_a_registration_needs_a_grant_for_that_agent_and_specialization(court: Court):
    fits = granted(agents=("agent",), specializations=("docs",))
    assert court.judge(sign_command(fits, REGISTER), None, "", NOW_S)
    for args in ({"agent_id": "x", "specialization": "docs"}, {"agent_id": "agent"}, {}):
        with pytest.raises(NotPermittedError):
            court.judge(sign_command(fits, replace(REGISTER, args=args)), None, "", NOW_S)


def test_a_signature_by_another_key_than_the_granted_one_is_refused(court: Court):
    mine = granted()
    signed = sign_command(mine, STEER)
    stolen_chain = SessionKey(STRANGER, mine.chain)
    for forged in (
        Signed(COMMAND, signed.payload, bytes(64)),
        sign_command(stolen_chain, STEER),
        STRANGER.sign(COMMAND, unpack_map(signed.payload)),
    ):
        with pytest.raises(NotAuthenticatedError):
            court.judge(forged, SESSION, "", NOW_S)


def test_a_role_that_has_gone_is_noticed_at_the_moment_of_execution(court: Court):
    command = court.judge(sign_command(granted(), STEER), SESSION, "", NOW_S)
    court.recheck(command, SESSION, NOW_S)
    with pytest.raises(ExpiredError):
        court.recheck(command, SESSION, STEER.expires_s + SKEW_S + 1)
    with pytest.raises(NotAuthenticatedError):
        replace(court, control=EMPTY).recheck(command, SESSION, NOW_S)


def test_a_role_that_has_become_weaker_is_noticed_at_the_moment_of_execution():
    """An operator by an admin, and an observer by the root: the admin is revoked meanwhile."""
    admin, control = Key.new(chance), ControlSet(GENESIS)
    for issuer, key, name in (
        (ROOT, admin, "admin"),
        (admin, OPERATOR, "operator"),
        (ROOT, OPERATOR, "observer"),
    ):
        role = Role(key.public, name, "", issuer.public, NOW_S, None)
        control.add(role_entry(issuer, GENESIS.mesh_id, role, chance), NOW_S)
    court = Court(GENESIS.mesh_id, NODE_ID, control, GENERATION)
    command = court.judge(sign_command(granted(), STEER), SESSION, "", NOW_S)
    revoke = Revoke("key", admin.public)
    control.add(sign_entry(ROOT, GENESIS.mesh_id, revoke, chance, issued_s=NOW_S), NOW_S)
    assert control.role_of(OPERATOR.public) == "observer"
    with pytest.raises(NotPermittedError, match="observer"):
        court.recheck(command, SESSION, NOW_S)
    with pytest.raises(NotPermittedError, match="observer"):
        court.check_revocations(command)


def fields(**changed: object) -> Signed:
    value = unpack_map(sign_command(granted(), STEER).payload)
    for name, replacement in changed.items():
        if replacement is ...:
            del value[name]
        else:
            value[name] = replacement
    return STRANGER.sign(COMMAND, value)


@pytest.mark.parametrize(
    "signed",
    [
        fields(unknown="field"),
        fields(action=...),
        fields(id="text"),
        fields(epoch=True),
        fields(epoch=-1),
        fields(issued=1.5),
        fields(expires=1 << 62),
        fields(issued=-1),
        fields(args=[]),
        fields(chain=[[b"one"]]),
        fields(chain=[1]),
        fields(chain=[[1 << 40, 1 << 40]]),
        fields(args={"blob": bytes(COMMAND_BYTES_MAX)}),
        Signed(COMMAND, b"\xc0", bytes(64)),
        Signed(COMMAND, b"\xc1", bytes(64)),
    ],
)
def test_a_malformed_command_is_refused_before_anything_else(court: Court, signed: Signed):
    with pytest.raises(PeerError):
        command_from_signed(signed)
    with pytest.raises(PeerError):
        court.judge(signed, None, "", NOW_S)


def test_a_command_without_a_chain_or_with_too_long_a_one_proves_nothing(court: Court):
    link = granted().chain[0]
    for chain in ((), (link,) * 5):
        with pytest.raises(NotAuthenticatedError):
            court.judge(sign_command(SessionKey(STRANGER, chain), STEER), SESSION, "", NOW_S)


RECEIPT = Receipt(
    GENESIS.mesh_id, bytes(16), bytes(32), NODE_ID, "s", "applied", 5.5, "gone", {"found": 1}
)


def test_a_receipt_comes_back_if_the_node_signed_it():
    signed = sign_receipt(NODE, RECEIPT)
    assert receipt_from_signed(signed, NODE.public) == RECEIPT
    with pytest.raises(PeerError):
        receipt_from_signed(signed, STRANGER.public)


@pytest.mark.parametrize("changed", [{"command_id": 1 << 40}, {"at": None}, {"outcome": 1}])
def test_a_receipt_of_wrong_types_is_refused(changed: dict):
    value = {**unpack_map(sign_receipt(NODE, RECEIPT).payload), **changed}
    with pytest.raises(PeerError):
        receipt_from_signed(NODE.sign("receipt", value), NODE.public)
