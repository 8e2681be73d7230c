"""Nodes of other meshes in the same network: counted, told in one line, never in the way."""

from types import SimpleNamespace

import pytest

from meshnode.core.ids import NodeId
from meshnode.discovery.hints import Hint
from meshnode.node.presence.finding import MDNS, OTHERS_MAX, Finding

OURS = "ours"


class World:
    """A node's world that only remembers what it is told."""

    def __init__(self) -> None:
        self.mesh = SimpleNamespace(genesis=SimpleNamespace(mesh_id=OURS), self_id="me")
        self.troubles = {}
        self.hints = []

    def trouble(self, peer, reason) -> None:
        self.troubles[peer] = reason

    def hint(self, node_id, addresses) -> None:
        self.hints.append(node_id)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def finding(world) -> Finding:
    return Finding(world, lambda work: work.close())


def heard(finding: Finding, number: int, mesh: str = "theirs") -> None:
    finding._on_mdns(Hint(NodeId(f"n{number}"), mesh, (f"192.0.2.{number}:7707",), f"{number}"))


def test_many_nodes_of_other_meshes_are_one_line_with_the_latest_three(finding, world):
    for number in range(20):
        heard(finding, number, mesh=f"mesh{number % 2}")
    assert list(world.troubles) == [MDNS]
    assert world.troubles[MDNS] == (
        "heard of 20 nodes of 2 other meshes: 192.0.2.17:7707, 192.0.2.18:7707, 192.0.2.19:7707"
        " and 17 more"
    )
    assert world.hints == []
    assert finding.heard_by_mdns == 20


def test_who_is_heard_again_counts_once_and_who_joins_us_no_more(finding, world):
    for _ in range(5):
        heard(finding, 1)
    assert "heard of 1 nodes" not in world.troubles[MDNS]
    assert "192.0.2.1:7707" in world.troubles[MDNS]
    heard(finding, 1, mesh=OURS)
    assert world.troubles == {}
    assert world.hints == ["n1"]


def test_a_flood_of_made_up_nodes_is_bounded(finding, world):
    for number in range(OTHERS_MAX * 3):
        heard(finding, number, mesh=f"mesh{number}")
    assert len(finding._others) == OTHERS_MAX
    assert len(world.troubles) == 1


def test_who_takes_its_announcement_back_is_told_of_no_more(finding, world):
    heard(finding, 1)
    heard(finding, 2)
    finding._on_gone("1")
    finding._on_gone("never heard of")
    assert world.troubles == {MDNS: "heard of a node of another mesh: 192.0.2.2:7707"}
    finding._on_gone("2")
    assert world.troubles == {}
