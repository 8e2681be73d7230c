"""A direction is a free word; the owner's configuration says what its agents are told for it."""

import pytest
from viewing import NAMES, Viewer

from meshnode.app.sessions.directions import Direction, Directions
from meshnode.core.commands.steers import AFTER, NOW, Instruction
from meshnode.core.errors import RefusedError


@pytest.fixture
def viewer():
    viewer = Viewer()
    viewer.session(0, "s0")
    viewer.session(1, "s1")
    viewer.session(3, "s3")
    return viewer


def said(viewer, word, **known):
    (record,) = (r for _, r in viewer.mesh.tables.sessions() if r.session_id == "s0")
    return Directions(known, viewer.queries).meant(record, Instruction(word)).message


def test_a_word_that_is_not_configured_stays_as_it_is(viewer):
    assert said(viewer, "up", north=Direction("n")) == ""


def test_a_template_names_the_direction_and_the_agent(viewer):
    north = Direction("go {direction}, {agent_id}; {other} {0}")
    assert said(viewer, "north", north=north) == "go north, agent-s0; {other} {0}"


def test_a_direction_may_lead_to_a_neighbour(viewer):
    expected = f"hand your work over to agent-s1 on {NAMES[1]} (session s1)"
    assert said(viewer, "west", west=Direction(handoff="agent-s1")) == expected
    assert said(viewer, "west", west=Direction(handoff=f"{NAMES[1]}/agent-s1")) == expected
    own = Direction("ask {neighbour}", "agent-s1")
    assert said(viewer, "west", west=own).startswith("ask agent-s1 on ")


@pytest.mark.parametrize(
    "gone", ["agent-s3", "nobody", "nowhere/agent-s1", "/", f"{NAMES[3]}/agent-s3"]
)
def test_a_neighbour_that_is_not_alive_is_refused(viewer, gone):
    with pytest.raises(RefusedError, match="not alive"):
        said(viewer, "west", west=Direction(handoff=gone))


@pytest.mark.parametrize(("said_by_caller", "meant"), [("", NOW), (AFTER, AFTER)])
def test_a_direction_has_a_mode_unless_the_caller_names_one(viewer, said_by_caller, meant):
    (record,) = (r for _, r in viewer.mesh.tables.sessions() if r.session_id == "s0")
    directions = Directions({"stop": Direction("halt", mode=NOW)}, viewer.queries)
    for message, told in (("", "halt"), ("my words", "my words")):
        steer = Instruction("stop", message, said_by_caller)
        assert directions.meant(record, steer) == Instruction("stop", told, meant)
