"""Who links to whom, and when a member is dialled."""

from random import Random

import pytest

from meshnode.core.effects import Dial, HangUp
from meshnode.core.ids import NodeId
from meshnode.core.overlay import (
    DIALS_MAX,
    FULL_MESH_MAX,
    HEARD_MAX,
    LINKS_MAX,
    REDIAL_S,
    RETRY_S,
    SECOND_DIALLER_S,
    STRANGERS_MAX,
    Overlay,
    ring_neighbours,
)


def members(count: int) -> list[NodeId]:
    return [NodeId(f"node{number:04}") for number in range(count)]


SELF, *OTHERS = members(40)
NOBODY = frozenset()


@pytest.fixture
def overlay() -> Overlay:
    return Overlay(SELF, Random(1))


def dialled(overlay: Overlay, now_s: float, alive: frozenset = NOBODY) -> set[NodeId]:
    return {effect.peer for effect in overlay.dials(now_s, alive) if isinstance(effect, Dial)}


@pytest.mark.parametrize("count", range(1, FULL_MESH_MAX + 1))
def test_up_to_nine_everybody_wants_everybody(count: int):
    nodes = members(count)
    for node in nodes:
        assert ring_neighbours(node, nodes) == set(nodes) - {node}
        assert ring_neighbours(node, set(nodes) - {node}) == set(nodes) - {node}


@pytest.mark.parametrize("count", [FULL_MESH_MAX + 1, 100, 1000])
def test_beyond_that_about_eight_are_wanted_and_want_back(count: int):
    nodes = members(count)
    sample = Random(count).sample(nodes, min(count, 25))
    wanted = {node: ring_neighbours(node, nodes) for node in sample}
    assert all(4 <= len(peers) <= 8 for peers in wanted.values())
    if count >= 100:
        assert sum(map(len, wanted.values())) / len(sample) > 7
    for node, peers in wanted.items():
        for peer in peers:
            assert node in ring_neighbours(peer, nodes)


def test_the_rings_hold_together_in_one_piece():
    nodes = members(100)
    reached, frontier = {nodes[0]}, [nodes[0]]
    while frontier:
        for peer in ring_neighbours(frontier.pop(), nodes) - reached:
            reached.add(peer)
            frontier.append(peer)
    assert reached == set(nodes)


def test_a_newcomer_moves_few_links():
    nodes = members(100)
    newcomer = NodeId("newcomer")
    moved = [
        n for n in nodes if ring_neighbours(n, nodes) != ring_neighbours(n, [*nodes, newcomer])
    ]
    assert 1 <= len(moved) <= 8


def test_of_two_that_discover_each_other_the_lower_id_dials_first():
    one, other = Overlay(SELF, Random(1)), Overlay(OTHERS[0], Random(1))
    one.learn(OTHERS[0], ("a:1",), 0.0)
    other.learn(SELF, ("b:1",), 0.0)
    assert dialled(one, 0.0) == {OTHERS[0]}
    assert dialled(other, 0.0) == set()
    assert dialled(other, SECOND_DIALLER_S) == {SELF}


def test_a_member_is_dialled_once_at_a_time(overlay: Overlay):
    overlay.learn(OTHERS[0], ("a:1",), 0.0)
    assert overlay.dials(0.0, NOBODY) == [Dial(OTHERS[0], ("a:1",))]
    overlay.learn(OTHERS[0], ("b:1",), 1.0)
    assert overlay.dials(100.0, NOBODY) == []
    overlay.unlinked(OTHERS[0], 100.0)
    assert overlay.dials(102.0, NOBODY) == [Dial(OTHERS[0], ("b:1", "a:1"))]


def test_nobody_dials_itself(overlay: Overlay):
    overlay.learn(SELF, ("a:1",), 0.0)
    assert overlay.dials(99.0, NOBODY) == []


def test_dials_that_fail_back_off_to_twenty_seconds_and_never_end(overlay: Overlay):
    overlay.learn(OTHERS[0], ("a:1",), 0.0)
    waits, last_s, now_s = [], 0.0, 0.0
    assert dialled(overlay, 0.0)
    for _ in range(40):
        overlay.unlinked(OTHERS[0], now_s)
        while not dialled(overlay, now_s):
            now_s += 0.05
        waits.append(now_s - last_s)
        last_s = now_s
    assert waits[0] <= RETRY_S * 1.3 + 0.1
    assert waits[0] < waits[2] < waits[5]
    assert all(REDIAL_S * 0.7 - 0.1 <= wait <= REDIAL_S * 1.3 + 0.1 for wait in waits[8:])
    assert len({round(wait, 2) for wait in waits[8:]}) > 10  # nobody dials in step


def test_a_new_address_is_tried_at_once(overlay: Overlay):
    overlay.learn(OTHERS[0], ("a:1",), 0.0)
    for now_s in (0.0, 10.0, 20.0, 30.0, 50.0):
        dialled(overlay, now_s)
        overlay.unlinked(OTHERS[0], now_s)
    assert dialled(overlay, 51.0) == set()
    overlay.learn(OTHERS[0], ("a:1",), 51.0)  # known already
    assert dialled(overlay, 51.0) == set()
    overlay.learn(OTHERS[0], ("b:1",), 51.0)
    assert dialled(overlay, 51.0) == {OTHERS[0]}


def test_hints_never_push_out_what_a_member_said_itself(overlay: Overlay):
    overlay.learn(OTHERS[0], ("own:1", "own:2"), 0.0, said=True)
    for number in range(20):
        overlay.learn(OTHERS[0], (f"a:{number}",), 0.0)
    newest = tuple(f"a:{number}" for number in range(19, 19 - HEARD_MAX, -1))
    assert overlay.addresses_of(OTHERS[0]) == ("own:1", "own:2", *newest)


def test_names_shouted_by_strangers_are_bounded_and_cost_no_member(overlay: Overlay):
    overlay.learn(OTHERS[0], ("own:1",), 0.0, said=True)
    shouted = [NodeId(f"stranger{number:04}") for number in range(STRANGERS_MAX + 50)]
    for stranger in shouted:
        overlay.learn(stranger, ("b:1",), 0.0)
        overlay.unlinked(stranger, 0.0)
    assert len([peer for peer in shouted if overlay.addresses_of(peer)]) == STRANGERS_MAX
    assert OTHERS[0] in dialled(overlay, 100.0)


def test_a_member_that_left_is_not_dialled_until_it_links_again(overlay: Overlay):
    overlay.learn(OTHERS[0], ("a:1",), 0.0)
    overlay.retire(OTHERS[0])
    assert dialled(overlay, 1000.0) == set()
    overlay.linked(OTHERS[0])
    overlay.unlinked(OTHERS[0], 1000.0)
    assert dialled(overlay, 1002.0) == {OTHERS[0]}


def test_a_node_with_links_dials_its_ring_neighbours_and_whoever_is_not_alive(overlay: Overlay):
    for peer in OTHERS:
        overlay.learn(peer, ("a:1",), 0.0)
    wanted = ring_neighbours(SELF, OTHERS)
    for peer in sorted(wanted)[:3]:
        overlay.linked(peer)
    lost = next(peer for peer in OTHERS if peer not in wanted)
    alive = frozenset(OTHERS) - {lost}
    wanted = ring_neighbours(SELF, alive)
    assert dialled(overlay, 1.0, alive) == (wanted | {lost}) - overlay.links


def test_a_node_with_few_links_dials_everybody_it_knows(overlay: Overlay):
    for peer in OTHERS:
        overlay.learn(peer, ("a:1",), 0.0)
    first = dialled(overlay, 1.0, frozenset(OTHERS))
    assert len(first) == DIALS_MAX
    assert dialled(overlay, 1.0, frozenset(OTHERS)) == set(), "so many at once, and no more"
    for peer in first:
        overlay.linked(peer)
        overlay.unlinked(peer, 1.0)
    assert dialled(overlay, 1.1, frozenset(OTHERS)) == set(OTHERS) - first


def test_callers_beyond_sixteen_are_let_go_unless_a_ring_wants_them(overlay: Overlay):
    alive = frozenset(OTHERS)
    wanted = ring_neighbours(SELF, alive)
    unwanted = sorted(alive - wanted)
    for peer in unwanted[:LINKS_MAX]:
        overlay.linked(peer)
        assert overlay.excess(peer, alive) == []
    caller = unwanted[LINKS_MAX]
    overlay.linked(caller)
    assert [type(effect) for effect in overlay.excess(caller, alive)] == [HangUp]
    neighbour = min(wanted)
    overlay.linked(neighbour)
    assert overlay.excess(neighbour, alive) == []


def test_links_beyond_sixteen_go_one_at_a_time_and_never_those_of_a_ring(overlay: Overlay):
    alive = frozenset(OTHERS)
    for peer in OTHERS:
        overlay.linked(peer)
    while effects := overlay.surplus(alive):
        (effect,) = effects
        assert isinstance(effect, HangUp)
        overlay.unlinked(effect.peer, 0.0)
    assert len(overlay.links) == LINKS_MAX
    assert ring_neighbours(SELF, alive) <= overlay.links


def test_a_link_to_a_member_not_yet_seen_alive_is_no_surplus(overlay: Overlay):
    for peer in OTHERS:
        overlay.linked(peer)
    assert overlay.surplus(NOBODY) == []
