"""Agents that are started beside their node, whatever that answers once they run."""

import os

import grpc
import pytest
from integration.attacks.supervised import remove_group
from integration.client.service import CHANCE, NOW_S, served, session, short_home

from meshnode.agents import tree
from meshnode.client.mesh import MeshClient
from meshnode.core.errors import MeshError, UnreachableError
from meshnode.node.sessions.supervision import RunOptions, run

pytestmark = pytest.mark.integration

SILENT = UnreachableError("the agent's supervisor did not report in time", "session-mesh doctor")


@pytest.fixture
def node():
    """A node as its caller sees it, which has opened a session."""
    with short_home() as home, served(home) as service:
        place = home.sessions / f"test-{os.getpid()}"
        place.mkdir(mode=0o700, parents=True)
        service.opened = {
            "session_id": place.name,
            "directory": str(place),
            "socket": str(home.run / "s"),
        }
        yield service
        clock = iter(range(1000)).__next__
        tree.stop_tree(place.name, grace_s=0.0, force=True, clock=clock)
        remove_group(place.name)


def detach(node, *command):
    seen = []
    options = RunOptions(command=command, on_session=seen.append, said=list, detach=True)
    with MeshClient(node.home, environment={}, now=lambda: NOW_S, chance=CHANCE) as mesh:
        return run(node.home, mesh, options), *seen


def test_an_agent_that_runs_though_its_node_does_not_say_so_is_named(node):
    node.errors = [(grpc.StatusCode.UNAVAILABLE, SILENT)]
    with pytest.raises(MeshError) as raised:
        detach(node, "sleep", "600")
    session_id = node.opened["session_id"]
    assert raised.value.message == f"session {session_id} was started, but: {SILENT.message}"
    assert raised.value.hint == f"session-mesh show {session_id}"
    assert raised.value.exit_code == SILENT.exit_code
    assert tree.members(session_id, ())


@pytest.mark.parametrize(
    ("state", "code"), [("running", 0), ("suspended", 0), ("idle", 0), ("killed", 1)]
)
def test_only_what_has_ended_has_a_code(node, state, code):
    node.sessions = [session("a", state=state)]
    ended, seen = detach(node, "sleep", "600")
    assert (ended, seen["state"]) == (code, state)
