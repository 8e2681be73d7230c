"""Which standing kills are due, on which sessions, and from when on."""

from random import Random

import pytest
from msgspec.structs import replace

from meshnode.core.commands.standing import (
    CANCELLED,
    EXPIRED,
    REVOKED,
    SETTLE_S,
    SETTLE_S_MAX,
    SKEW_S,
    Fate,
    Patience,
    cancelled,
    due,
    fate_of,
    objection,
    standing_kills,
    void,
)
from meshnode.core.control.control import ControlSet
from meshnode.core.control.entries import (
    Body,
    Cancel,
    Revoke,
    StandingKill,
    entry_id_of,
    role_entry,
    sign_entry,
)
from meshnode.core.control.roles import Role
from meshnode.core.ids import SessionId, node_id_of
from meshnode.core.keys import Key
from meshnode.core.membership.genesis import Genesis
from meshnode.core.sessions.sessions import SessionRecord, State

NOW_S = 1_790_000_000
chance = Random(5).randbytes
ROOT, ADMIN, ANNA, BERT, NODE, OTHER = (Key.new(chance) for _ in range(6))
GENESIS = Genesis((ROOT.public,), 1, "test", bytes(16))
HERE, THERE = node_id_of(NODE.public), node_id_of(OTHER.public)
SESSION = SessionRecord(
    SessionId("s" * 26),
    42,
    "builder",
    State.RUNNING,
    NOW_S - 100.0,
    NOW_S - 1.0,
    specializations=("docs",),
)


class Mesh:
    """A control set with two operators and an admin."""

    def __init__(self) -> None:
        self.control = ControlSet(GENESIS)
        for key, role in ((ANNA, "operator"), (BERT, "operator"), (ADMIN, "admin")):
            said = Role(key.public, role, "", ROOT.public, NOW_S, None)
            self.control.add(role_entry(ROOT, GENESIS.mesh_id, said, chance), NOW_S)

    def say(self, body: Body, by: Key = ANNA, at_s: int = NOW_S - 50, for_s: int = 3600) -> bytes:
        entry = sign_entry(by, GENESIS.mesh_id, body, chance, issued_s=at_s, expires_s=at_s + for_s)
        self.control.add(entry, NOW_S)
        return entry_id_of(entry)

    def due(
        self,
        *sessions: SessionRecord,
        done=frozenset(),
        now_s: float = NOW_S,
        held_up=frozenset(),
    ):
        return due(self.control, HERE, sessions or (SESSION,), done, now_s, held_up)

    def void(self, *sessions: SessionRecord, told=frozenset()):
        return void(self.control, HERE, sessions or (SESSION,), told, NOW_S)

    def revoke(self, key: Key) -> None:
        """Let the root revoke a key."""
        body = Revoke("key", key.public)
        entry = sign_entry(ROOT, GENESIS.mesh_id, body, chance, issued_s=NOW_S)
        self.control.add(entry, NOW_S)


FITTING = [
    StandingKill(session="s" * 26, epoch=42),
    StandingKill(agent="builder"),
    StandingKill(specialization="docs"),
    StandingKill(node=HERE),
    StandingKill(agent="builder", specialization="docs", node=HERE),
]
OTHERS = [
    StandingKill(session="s" * 26, epoch=43),
    StandingKill(session="t" * 26, epoch=42),
    StandingKill(session="s" * 26, epoch=42, node=THERE),
    StandingKill(session="s" * 26, epoch=42, agent="another"),
    StandingKill(agent="buil"),
    StandingKill(specialization="code"),
    StandingKill(node=THERE),
    StandingKill(agent="builder", node=THERE),
    StandingKill(agent="builder", specialization="code"),
]


@pytest.mark.parametrize("kill", FITTING)
def test_an_order_meets_what_it_names(kill):
    mesh = Mesh()
    order_id = mesh.say(kill)
    (one,) = mesh.due()
    assert one.key == (order_id, SESSION.session_id)


@pytest.mark.parametrize("kill", OTHERS)
def test_an_order_meets_nothing_else(kill):
    mesh = Mesh()
    mesh.say(kill)
    assert mesh.due() == []


def test_what_has_ended_is_not_met():
    mesh = Mesh()
    mesh.say(FITTING[0])
    assert mesh.due(replace(SESSION, state=State.CLOSED)) == []


@pytest.mark.parametrize("kill", FITTING[1:])
@pytest.mark.parametrize(("later_s", "met"), [(-1.0, True), (0.9, True), (1.0, False)])
def test_who_starts_an_agent_after_an_order_means_it_to_run(kill, later_s, met):
    mesh = Mesh()
    mesh.say(kill)
    session = replace(SESSION, created_at_s=NOW_S - 50 + later_s)
    assert bool(mesh.due(session)) is met


def test_an_order_for_one_start_asks_no_clock():
    mesh = Mesh()
    mesh.say(FITTING[0])
    late = replace(SESSION, created_at_s=NOW_S + 1e6)
    assert len(mesh.due(late, now_s=0.0)) == 1


def test_an_order_names_a_start_whatever_epoch_follows_a_lost_journal():
    mesh = Mesh()
    mesh.say(FITTING[0])
    assert len(mesh.due(replace(SESSION, session_epoch=99, start=42))) == 1
    assert mesh.due(replace(SESSION, session_epoch=99, start=7)) == []


def test_an_order_from_the_future_waits_for_it():
    mesh = Mesh()
    mesh.say(StandingKill(agent="builder"), at_s=NOW_S + SKEW_S + 1)
    assert mesh.due() == []
    assert len(mesh.due(now_s=NOW_S + 1)) == 1


def test_an_order_for_a_session_asks_no_clock_how_late_it_is():
    """As the alarm of a clock that is behind promises."""
    mesh = Mesh()
    mesh.say(FITTING[0])
    assert len(mesh.due(now_s=NOW_S - 10 * SKEW_S)) == 1


def test_what_has_expired_is_not_due():
    mesh = Mesh()
    mesh.say(FITTING[0], at_s=NOW_S - 50, for_s=51)
    assert len(mesh.due()) == 1
    assert mesh.due(now_s=NOW_S + 1) == []


def test_what_was_answered_is_not_due_again():
    mesh = Mesh()
    order_id = mesh.say(FITTING[1])
    again = replace(SESSION, session_id=SessionId("t" * 26))
    done = {(order_id, SESSION.session_id)}
    assert [one.session for one in mesh.due(SESSION, again, done=done)] == [again]


def test_of_several_orders_the_first_is_carried_out_and_the_next_when_it_has_failed():
    mesh = Mesh()
    second = mesh.say(FITTING[1], at_s=NOW_S - 40)
    first = mesh.say(FITTING[2], at_s=NOW_S - 50)
    assert [one.key[0] for one in mesh.due()] == [first]
    done = {(first, SESSION.session_id)}
    assert [one.key[0] for one in mesh.due(done=done)] == [second]


def test_a_revoked_signer_is_refused_beside_the_order_that_stands():
    mesh = Mesh()
    lost = mesh.say(FITTING[0], by=BERT)
    good = mesh.say(FITTING[1], by=ANNA)
    mesh.revoke(BERT)
    assert [one.key[0] for one in mesh.due()] == [good]
    assert [one.order_id for one in mesh.void()] == [lost]


def test_a_void_order_is_refused_once_however_many_sessions_it_means():
    mesh = Mesh()
    orders = [mesh.say(FITTING[3], at_s=NOW_S - ago_s) for ago_s in (50, 49)]
    sessions = [replace(SESSION, session_id=SessionId(name * 26)) for name in "abc"]
    mesh.revoke(ANNA)
    assert mesh.due(*sessions) == []
    assert [one.order_id for one in mesh.void(*sessions)] == orders
    assert [one.order_id for one in mesh.void(*sessions, told={orders[0]})] == orders[1:]
    assert mesh.void(replace(SESSION, state=State.CLOSED)) == []


@pytest.mark.parametrize("kill", OTHERS)
def test_a_void_order_that_means_nothing_here_is_not_told(kill):
    mesh = Mesh()
    mesh.say(kill)
    mesh.revoke(ANNA)
    assert mesh.void() == []


def test_what_could_not_be_begun_does_not_hold_up_what_others_ordered():
    mesh = Mesh()
    first, second = (mesh.say(FITTING[1], at_s=NOW_S - ago_s) for ago_s in (50, 40))
    both = {(one, SESSION.session_id) for one in (first, second)}
    for held_up, wanted in (({(first, SESSION.session_id)}, second), (both, first)):
        assert [one.key[0] for one in mesh.due(held_up=held_up)] == [wanted]


@pytest.mark.parametrize(
    ("by", "fate"), [(ANNA, Fate.CANCELLED), (ADMIN, Fate.CANCELLED), (BERT, Fate.STANDS)]
)
def test_an_order_is_taken_back_by_its_signer_or_an_admin(by, fate):
    mesh = Mesh()
    order_id = mesh.say(FITTING[0])
    mesh.say(Cancel(order_id), by=by)
    (standing,) = standing_kills(mesh.control)
    assert fate_of(mesh.control, standing, cancelled(mesh.control)) is fate
    assert bool(mesh.due()) is (fate is Fate.STANDS)
    expected = "" if fate is Fate.STANDS else CANCELLED
    assert objection(mesh.control, standing, NOW_S) == expected


def test_the_cancel_of_a_revoked_admin_does_not_count():
    mesh = Mesh()
    mesh.say(Cancel(mesh.say(FITTING[0])), by=ADMIN)
    mesh.revoke(ADMIN)
    assert len(mesh.due()) == 1


def test_at_the_moment_of_execution_everything_is_asked_again():
    mesh = Mesh()
    mesh.say(FITTING[0])
    (standing,) = standing_kills(mesh.control)
    assert objection(mesh.control, standing, NOW_S) == ""
    assert objection(mesh.control, standing, standing.expires_s) == EXPIRED
    mesh.revoke(ANNA)
    assert objection(mesh.control, standing, NOW_S) == REVOKED
    mesh.control.expire(standing.expires_s)
    assert objection(mesh.control, standing, NOW_S) == EXPIRED, "it was dropped here"


# when

UNHEARD_S = 80.0


def test_nothing_is_carried_out_before_a_neighbours_entries_are_here():
    patience = Patience(100.0, UNHEARD_S)
    assert patience.ready_at_s(abreast=False) == 180.0
    assert patience.ready_at_s(abreast=True) < 100.0


def test_an_entry_waits_a_moment_for_its_cancel():
    patience = Patience(0.0, UNHEARD_S)
    patience.note(200.0)
    assert patience.ready_at_s(abreast=True) == 200.0 + SETTLE_S
    patience.note(200.5)
    assert patience.ready_at_s(abreast=True) == 200.5 + SETTLE_S
    assert patience.ready_at_s(abreast=False) == 200.0 + UNHEARD_S, "from the first on"


def test_entries_that_keep_coming_hold_nothing_up_for_ever():
    patience = Patience(0.0, UNHEARD_S)
    for tenth in range(200):
        patience.note(100.0 + tenth / 10)
    assert patience.ready_at_s(abreast=True) == 100.0 + SETTLE_S_MAX
    patience.looked()
    patience.note(150.0)
    assert patience.ready_at_s(abreast=True) == 150.0 + SETTLE_S
