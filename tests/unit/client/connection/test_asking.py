"""What is asked of a node: what comes back is in the order that was asked for."""

from itertools import permutations

import pytest

from meshnode.client.connection.asking import Asking
from meshnode.v1 import local_service_pb2 as pb
from meshnode.v1.usage_pb2 import CostGroup

NAMES = ("model", "node", "session", "day")


class Answering(Asking):
    """A node that answers one thing, whatever it is asked."""

    def __init__(self, answer) -> None:
        self.call = lambda *_: answer
        self.node = type("Node", (), {"GetCost": None})


@pytest.mark.parametrize("by", list(permutations(NAMES)), ids="-".join)
def test_the_key_of_a_group_is_in_the_order_of_the_groupings(by):
    group = CostGroup(key={name: f"a {name}" for name in NAMES})
    mesh = Answering(pb.GetCostResponse(groups=[group, CostGroup()]))
    first, other = mesh.cost([*by, by[0]])["groups"]
    assert list(first["key"].items()) == [(name, f"a {name}") for name in by]
    assert other["key"] == {}
