"""Whom an order may mean: the same as if all were listed, however many a member tells of."""

from functools import partial
from random import Random

import pytest
from msgspec.structs import replace
from viewing import IDS, Viewer

from meshnode.app.commands.bearers import Bearer
from meshnode.app.pieces import LOOKS, finished
from meshnode.client.errors import MeshError
from meshnode.client.messages import to_plain
from meshnode.client.targets.targets import CANDIDATES_COUNTED_MAX, AmbiguousError, Target, resolve
from meshnode.core.ids import session_id_of
from meshnode.core.sessions.sessions import SESSIONS, SessionRecord, State, session_to_row
from meshnode.gateway import candidates as module
from meshnode.gateway.candidates import candidates
from meshnode.rpc.views import session_to_wire

HERE, NEAR, BEYOND, AWAY = range(4)
STATES = (State.RUNNING, State.SUSPENDED, State.CLOSED, State.KILLED)


@pytest.fixture
def viewer():
    return Viewer()


def told(viewer: Viewer, number: int, *records: SessionRecord) -> None:
    """Let a node tell of sessions."""
    for record in records:
        key = f"{record.session_id}{record.agent_id}".encode()
        viewer.feeds[IDS[number]].write(SESSIONS, key, session_to_row(record))
    viewer.feeds[IDS[number]].flush(viewer.clock.wall_s() - 60)


def of(number: int, start: int, state: State = State.RUNNING, agent: str = "builder"):
    """Make a session of a node, which has begun, or ended, at a second of its own."""
    ended_at_s = float(start) if state in {State.CLOSED, State.KILLED} else None
    session_id = session_id_of(IDS[number], start)
    return SessionRecord(session_id, start, agent, state, start, start, ended_at_s=ended_at_s)


def found(viewer: Viewer, target: Target, bearer: Bearer | None = None) -> list[dict]:
    is_theirs = partial((bearer or viewer.bearer("kill")).may, "kill")
    return finished(candidates(viewer.queries, target, is_theirs))


def meant(viewer: Viewer, target: Target, bearer: Bearer | None = None) -> dict:
    listed = found(viewer, target, bearer)
    return resolve(target, lambda _: listed)


def test_of_a_flood_of_namesakes_a_hundred_are_listed_and_more_is_said(viewer, monkeypatch):
    told(viewer, HERE, of(HERE, 1))
    told(viewer, NEAR, *(of(NEAR, start) for start in range(1, 401)))
    listed = []
    monkeypatch.setattr(module, "to_plain", lambda one: listed.append(one) or to_plain(one))
    with pytest.raises(AmbiguousError, match="fits more than 100 sessions: ") as refused:
        meant(viewer, Target(agent_id="builder"))
    assert len(listed) == CANDIDATES_COUNTED_MAX + 1
    assert IDS[HERE] in {one["node_id"] for one in refused.value.candidates}


def test_a_node_goes_on_while_it_looks_for_a_session(viewer):
    told(viewer, NEAR, *(of(NEAR, start) for start in range(1, 401)))
    is_theirs = viewer.bearer("kill").may_see
    pauses = sum(1 for _ in candidates(viewer.queries, Target(agent_id="builder"), is_theirs))
    assert pauses >= 3 * 400 // LOOKS


def test_a_flood_of_copies_hides_no_session(viewer):
    own = of(BEYOND, 7)
    told(viewer, BEYOND, own)
    told(viewer, NEAR, *(replace(own, agent_id=f"builder{n}", title=str(n)) for n in range(300)))
    told(viewer, NEAR, replace(own, state=State.IDLE))
    assert meant(viewer, Target(session_id=own.session_id))["node_id"] == IDS[BEYOND]
    assert meant(viewer, Target(agent_id="builder"))["node_id"] == IDS[BEYOND]


def test_a_flood_of_what_has_ended_hides_not_who_lives_and_the_last_that_ended_is_meant(viewer):
    told(viewer, NEAR, *(of(NEAR, start, State.CLOSED) for start in range(1, 301)))
    assert meant(viewer, Target(agent_id="builder"))["session_epoch"] == 300
    told(viewer, AWAY, of(AWAY, 5))
    assert meant(viewer, Target(agent_id="builder"))["node_id"] == IDS[AWAY]
    told(viewer, HERE, of(HERE, 5))
    assert meant(viewer, Target(agent_id="builder"))["node_id"] == IDS[HERE]
    told(viewer, HERE, of(HERE, 6))
    with pytest.raises(AmbiguousError, match="fits 2 sessions"):
        meant(viewer, Target(agent_id="builder"))


def test_a_flood_of_namesakes_hides_no_session_that_a_key_is_for(viewer):
    mine = [of(NEAR, 1), of(HERE, 1)]
    told(viewer, NEAR, mine[0], *(of(NEAR, start) for start in range(2, 301)))
    told(viewer, HERE, mine[1], *(of(HERE, start) for start in range(2, 301)))
    bearer = viewer.bearer("kill", sessions=tuple(one.session_id for one in mine))
    kept = [one["session_id"] for one in found(viewer, Target(agent_id="builder"), bearer)]
    assert len(set(kept)) == CANDIDATES_COUNTED_MAX + 1
    assert {one.session_id for one in mine} <= set(kept)


def test_of_a_flood_that_has_ended_the_last_is_meant_whoever_asks(viewer):
    told(viewer, NEAR, *(of(NEAR, start, State.CLOSED) for start in range(1, 301)))
    early = tuple(session_id_of(IDS[NEAR], start) for start in range(1, 200))
    bearer = viewer.bearer("kill", sessions=early)
    assert meant(viewer, Target(agent_id="builder"), bearer)["session_epoch"] == 300


def outcome(ask) -> object:
    try:
        return ask()["session_id"]
    except AmbiguousError as error:
        return sorted((one["node_id"], one["session_id"]) for one in error.candidates)
    except MeshError as error:
        return error.code, error.message


@pytest.mark.parametrize("seed", range(40))
def test_what_is_meant_is_what_would_be_if_all_were_listed(viewer, seed):
    chance = Random(seed)
    for _ in range(chance.randrange(8)):
        owner, teller = (chance.randrange(4) for _ in range(2))
        record = of(owner, chance.randrange(1, 4), chance.choice(STATES), chance.choice("ab"))
        told(viewer, chance.choice((owner, owner, teller)), record)
    everything = [
        to_plain(session_to_wire(viewer.queries.session(owner, record)))
        for owner, record in viewer.mesh.tables.sessions()
    ]
    ids = [one["session_id"] for one in everything] or [session_id_of(IDS[HERE], 1)]
    targets = [Target(agent_id="a"), Target(agent_id="b", node="linked")]
    targets += [Target(session_id=one) for one in (ids[0], ids[-1], ids[0][:8], ids[0][:4])]
    targets += [Target(session_id=ids[0], agent_id="b"), Target(session_id=ids[0], node="me")]
    for target in targets:
        node = target.node and viewer.queries.node_named(target.node)
        there = [one for one in everything if node in {"", one["node_id"]}]
        expected = outcome(lambda: resolve(target, lambda _: there))  # noqa: B023 - called at once
        assert outcome(lambda: meant(viewer, target)) == expected  # noqa: B023 - called at once
