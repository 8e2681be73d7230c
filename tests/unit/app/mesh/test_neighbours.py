"""What a node asks for when its neighbours come and go; whole meshes are in tests/sim."""

from random import Random

from meshnode.app.mesh.neighbours import INTRODUCED_MAX, Neighbours
from meshnode.core.effects import HangUp, Send
from meshnode.core.feeds.messages import Members
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key
from meshnode.core.links.liveness import Liveness
from meshnode.core.links.overlay import ENOUGH, LINKS_REFUSED

chance = Random(19).randbytes
SELF, CALLER, *OTHERS = (node_id_of(Key.new(chance).public) for _ in range(LINKS_REFUSED + 2))


def test_a_caller_too_many_is_introduced_to_others_before_it_is_parted_from():
    neighbours = Neighbours(SELF, Random(1), Liveness(SELF))
    for peer in OTHERS:
        assert neighbours.linked(peer, 0.0, dialled=False) == []
    introduction, parting = neighbours.linked(CALLER, 0.0, dialled=False)
    assert isinstance(introduction, Send)
    assert isinstance(introduction.message, Members)
    assert introduction.message.full
    assert len(introduction.message.addresses) == INTRODUCED_MAX
    assert parting == HangUp(CALLER, ENOUGH, parting=True)  # abortive, it would overtake the hints
