"""Standing kills of a node, put together: what comes in while the node starts."""

from types import SimpleNamespace

import pytest
from returned import Returned, entry

from meshnode.core.control.entries import StandingKill
from meshnode.node.sessions.standing import Standing

pytestmark = pytest.mark.integration


def test_an_entry_that_comes_while_the_node_starts_is_heard(database):
    """Its cancel may be right behind it: links are up before everything else has begun."""
    node = Returned(database)
    world = SimpleNamespace(mesh=node.mesh, on_entry=[])
    ground = SimpleNamespace(world=world, database=database, clock=node.clock, spawn=None)
    hosting = SimpleNamespace(agents_found=None, sessions=node.sessions)
    Standing(ground, hosting, None, None)
    node.meet()
    for told in world.on_entry:
        told(entry(StandingKill(agent="builder")))
    assert not node.mesh.replication.abreast, "it is compared once more"
