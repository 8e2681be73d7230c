"""Standing kills: whatever comes in whatever order, each is carried out once, where it may be."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from meshnode.core.commands.standing import due, fits, objection, standing_kills
from meshnode.core.control.control import ControlSet
from meshnode.core.control.entries import (
    Cancel,
    Revoke,
    StandingKill,
    entry_id_of,
    role_entry,
    sign_entry,
)
from meshnode.core.control.roles import Role
from meshnode.core.ids import SessionId, node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.membership.genesis import Genesis
from meshnode.core.sessions.sessions import SessionRecord, State

NOW_S = 1_790_000_000
chance = Random(9).randbytes
ROOT, ANNA, BERT, ADMIN = (Key.new(chance) for _ in range(4))
GENESIS = Genesis((ROOT.public,), 1, "test", bytes(16))
HERE, THERE = (node_id_of(Key.new(chance).public) for _ in range(2))
SIGNERS = (ANNA, BERT, ADMIN)
ROLES = [
    role_entry(ROOT, GENESIS.mesh_id, Role(key.public, role, "", ROOT.public, 1, None), chance)
    for key, role in ((ANNA, "operator"), (BERT, "operator"), (ADMIN, "admin"))
]
SESSIONS = [
    SessionRecord(
        SessionId(name * 26),
        7,
        agent,
        state,
        NOW_S + started_s,
        NOW_S,
        specializations=specs,
    )
    for name, agent, state, started_s, specs in (
        ("a", "x", State.RUNNING, -50.0, ("s",)),
        ("b", "x", State.SUSPENDED, -5.0, ("s", "t")),
        ("c", "y", State.RUNNING, 5.0, ()),
        ("d", "y", State.CLOSED, -50.0, ("s",)),
    )
]
kills = st.one_of(
    st.builds(
        StandingKill,
        session=st.sampled_from([one.session_id for one in SESSIONS]),
        epoch=st.sampled_from([7, 8]),
    ),
    st.builds(
        StandingKill,
        agent=st.sampled_from(["x", "y"]),
        node=st.sampled_from(["", HERE, THERE]),
    ),
    st.builds(
        StandingKill,
        specialization=st.sampled_from(["s", "t"]),
        node=st.sampled_from(["", HERE]),
    ),
)
orders = st.tuples(st.sampled_from(SIGNERS), kills, st.integers(-60, 200), st.integers(1, 300))
worlds = st.tuples(
    st.lists(orders, max_size=6),
    st.lists(st.tuples(st.sampled_from(SIGNERS), st.integers(0, 5)), max_size=4),
    st.sets(st.sampled_from(SIGNERS), max_size=1),
    st.randoms(use_true_random=False),
)


def entries_of(world) -> list[Signed]:
    said, taken_back, _, rng = world
    entries = [
        sign_entry(
            signer,
            GENESIS.mesh_id,
            kill,
            rng.randbytes,
            issued_s=NOW_S + at_s,
            expires_s=NOW_S + at_s + for_s,
        )
        for signer, kill, at_s, for_s in said
    ]
    ids = [entry_id_of(one) for one in entries]
    entries += [
        sign_entry(
            signer,
            GENESIS.mesh_id,
            Cancel(ids[number]),
            rng.randbytes,
            issued_s=NOW_S,
            expires_s=NOW_S + 1000,
        )
        for signer, number in taken_back
        if number < len(ids)
    ]
    return entries


def control_with(entries: list[Signed], revoked) -> ControlSet:
    control = ControlSet(GENESIS)
    gone = [Revoke("key", key.public) for key in revoked]
    said = [sign_entry(ROOT, GENESIS.mesh_id, one, chance, issued_s=NOW_S) for one in gone]
    control.add_all([*ROLES, *entries, *said], NOW_S)
    return control


@given(worlds)
def test_what_is_due_is_the_same_in_whatever_order_it_came(world):
    entries = entries_of(world)
    first = due(control_with(entries, world[2]), HERE, SESSIONS, frozenset(), NOW_S)
    world[3].shuffle(entries)
    assert due(control_with(entries, world[2]), HERE, SESSIONS, frozenset(), NOW_S) == first


@given(worlds)
def test_only_what_stands_and_fits_is_carried_out_and_nothing_of_it_is_left_out(world):
    control = control_with(entries_of(world), world[2])
    found = due(control, HERE, SESSIONS, frozenset(), NOW_S)
    for one in found:
        assert fits(one.standing, one.session, HERE)
        assert not one.session.ended
        assert objection(control, one.standing, NOW_S) == ""
    ended = {one.session.session_id for one in found}
    for session in SESSIONS:
        wanted = any(
            fits(one, session, HERE)
            and not objection(control, one, NOW_S)
            and (one.kill.session or one.issued_s <= NOW_S + 120)
            for one in standing_kills(control)
        )
        assert (session.session_id in ended) == (wanted and not session.ended)


@given(worlds, st.lists(st.booleans(), max_size=12))
def test_each_order_meets_each_session_once_whatever_fails_and_restarts(world, failing):
    control, done, met = control_with(entries_of(world), world[2]), set(), []
    alive = {one.session_id: one for one in SESSIONS}
    for fails in [*failing, False, False, False, False, False, False]:
        for one in due(control, HERE, alive.values(), done, NOW_S):
            assert one.key not in done
            done.add(one.key)
            met.append(one.key)
            if not fails:
                alive.pop(one.session.session_id, None)
    assert len(met) == len(set(met))
    assert due(control, HERE, alive.values(), done, NOW_S) == []
