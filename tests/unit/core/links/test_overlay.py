"""Who links to whom, and when a member is dialled."""

from itertools import pairwise
from random import Random

import pytest

from meshnode.core.effects import Dial, HangUp
from meshnode.core.ids import NodeId
from meshnode.core.links.overlay import (
    EXTRA_S,
    FULL_MESH_MAX,
    HEARD_MAX,
    LINKS_KEPT,
    LINKS_MAX,
    LINKS_MIN,
    LINKS_REFUSED,
    LONELY_DIALS_MAX,
    NEW_S,
    OLD_S,
    OLDEST_KEPT,
    PART_S,
    REDIAL_S,
    RETRY_MAX_S,
    RETRY_S,
    SECOND_DIALLER_S,
    TRIM_S,
    Overlay,
    ring_neighbours,
)


def members(count: int) -> list[NodeId]:
    return [NodeId(f"node{number:04}") for number in range(count)]


SELF, *OTHERS = members(40)


class View:
    """One node's overlay, and whom it sees alive."""

    def __init__(self, self_id: NodeId = SELF) -> None:
        self.alive: dict[NodeId, None] = {self_id: None}
        self.overlay = Overlay(self_id, Random(1), self.alive.keys())

    def see(self, *peers: NodeId) -> None:
        self.alive.update(dict.fromkeys(peers))
        self.overlay.seen(set(peers))

    def lose(self, *peers: NodeId) -> None:
        for peer in peers:
            del self.alive[peer]
        self.overlay.seen(set(peers))


@pytest.fixture
def view() -> View:
    return View()


@pytest.fixture
def overlay(view: View) -> Overlay:
    return view.overlay


def dialled(overlay: Overlay, now_s: float) -> set[NodeId]:
    return {effect.peer for effect in overlay.dials(now_s) if isinstance(effect, Dial)}


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
    one, other = View(SELF).overlay, View(OTHERS[0]).overlay
    one.learn(OTHERS[0], ("a:1",), 0.0)
    other.learn(SELF, ("b:1",), 0.0)
    assert dialled(one, 0.0) == {OTHERS[0]}
    assert dialled(other, 0.0) == set()
    assert dialled(other, SECOND_DIALLER_S) == {SELF}


def test_a_member_is_dialled_once_at_a_time(overlay: Overlay):
    overlay.learn(OTHERS[0], ("a:1",), 0.0)
    assert overlay.dials(0.0) == [Dial(OTHERS[0], ("a:1",))]
    overlay.learn(OTHERS[0], ("b:1",), 1.0)
    assert overlay.dials(100.0) == []
    overlay.unlinked(OTHERS[0], 100.0)
    assert overlay.dials(102.0) == [Dial(OTHERS[0], ("b:1", "a:1"))]


def test_nobody_dials_itself(overlay: Overlay):
    overlay.learn(SELF, ("a:1",), 0.0)
    assert overlay.dials(99.0) == []


def test_a_node_with_few_links_tries_again_within_two_seconds_for_ever(overlay: Overlay):
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
    assert waits[0] < waits[1] < waits[2]
    assert all(wait <= RETRY_MAX_S * 1.3 + 0.1 for wait in waits)
    assert len({round(wait, 2) for wait in waits[8:]}) > 10  # nobody dials in step


def test_a_lost_member_that_nobody_needs_is_tried_ever_more_rarely_then_in_turn(view: View):
    overlay = view.overlay
    for peer in OTHERS:
        overlay.learn(peer, ("a:1",), 0.0, said=True)
    view.see(*OTHERS)
    for peer in overlay.wanted():
        overlay.linked(peer, 0.0)
    overlay.dials(1.0)  # every hint is used up: all are alive
    lost = next(peer for peer in OTHERS if peer not in overlay.wanted())
    overlay.linked(lost, 0.0)
    view.lose(lost)
    overlay.unlinked(lost, 10.0)
    dials, now_s = [], 10.0
    while now_s < 2000:
        if lost in dialled(overlay, now_s):
            dials.append(now_s)
            overlay.unlinked(lost, now_s)
        now_s += 0.25
    waits = [later - earlier for earlier, later in pairwise(dials)]
    assert waits[0] < 2
    pace_s = REDIAL_S * len(view.alive) / 8
    assert sum(waits[-10:]) / 10 <= max(pace_s, REDIAL_S) * 1.3
    assert min(waits[-10:]) > RETRY_MAX_S


def test_all_nodes_together_dial_a_lost_one_every_few_seconds_at_any_size(view: View):
    """One lost member in turn, every REDIAL_S * alive / 8: 0.4 dials a second in the whole mesh."""
    overlay = view.overlay
    for peer in OTHERS:
        overlay.learn(peer, ("a:1",), 0.0, said=True)
    view.see(*OTHERS[:31])
    for peer in overlay.wanted():
        overlay.linked(peer, 0.0)
    lost, count, now_s = set(OTHERS[31:]), 0, 1000.0
    for peer in lost:
        overlay._attempts.pop(peer, None)
    while now_s < 9000:
        for peer in dialled(overlay, now_s) & lost:
            count += 1
            overlay.unlinked(peer, now_s)
            overlay._attempts.pop(peer, None)
        now_s += 1.0
    assert 8000 / count == pytest.approx(REDIAL_S * 32 / 8, rel=0.2)


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


def test_a_member_that_left_is_not_dialled_until_it_links_again(overlay: Overlay):
    overlay.learn(OTHERS[0], ("a:1",), 0.0)
    overlay.retire(OTHERS[0])
    assert dialled(overlay, 1000.0) == set()
    overlay.linked(OTHERS[0], 0.0)
    overlay.unlinked(OTHERS[0], 1000.0)
    assert dialled(overlay, 1002.0) == {OTHERS[0]}


def test_hints_about_a_member_that_is_not_dialled_hold_up_no_others(view: View):
    overlay = view.overlay
    view.see(*OTHERS[3:7])
    for peer in OTHERS[3:7]:
        overlay.learn(peer, ("a:1",), 0.0, said=True)
        overlay.linked(peer, 0.0)
    overlay.retire(OTHERS[0])
    found: set[NodeId] = set()
    for second in range(100):  # the one that was put out shouts each second, the other did once
        overlay.learn(OTHERS[0], (f"a:{second + 1}",), second)
        if second == 0:
            overlay.learn(OTHERS[1], ("b:1",), second)
        found |= dialled(overlay, second + 0.5)
    assert found == {OTHERS[1]}


def test_a_ring_neighbour_without_an_address_is_not_dialled(view: View):
    view.see(OTHERS[0])
    view.overlay.learn(OTHERS[0], (), 0.0, said=True)
    assert view.overlay.wanted() == {OTHERS[0]}
    assert view.overlay.dials(0.0) == []


def test_a_node_with_links_dials_its_ring_neighbours_and_hints_about_the_lost(view: View):
    overlay = view.overlay
    for peer in OTHERS:
        overlay.learn(peer, ("a:1",), 0.0)
    lost = OTHERS[0]
    view.see(*OTHERS[1:])
    linked = sorted(overlay.wanted())[:3]
    for peer in linked:
        overlay.linked(peer, 0.0)
    assert overlay.wanted() == ring_neighbours(SELF, OTHERS[1:])
    assert dialled(overlay, 1.0) == (overlay.wanted() | {lost}) - overlay.links


def test_the_rings_follow_who_is_seen_alive(view: View):
    rng = Random(5)
    seen: set[NodeId] = set()
    for _ in range(400):
        peer = rng.choice(OTHERS)
        if peer in seen:
            seen.remove(peer)
            view.lose(peer)
        else:
            seen.add(peer)
            view.see(peer)
        assert view.overlay.wanted() == ring_neighbours(SELF, seen)


def test_after_a_restart_the_rings_over_all_members_once_known_are_dialled(view: View):
    overlay = view.overlay
    for peer in OTHERS:
        overlay.remember(peer, ("a:1",))
    overlay._redial_at_s = 999.0
    first = dialled(overlay, 0.0)
    assert first == ring_neighbours(SELF, OTHERS)
    assert dialled(overlay, 0.0) == set(), "so many at once, and no more"
    for peer in first:
        overlay.unlinked(peer, 0.0)
    second = dialled(overlay, 0.1)
    assert 0 < len(second) <= LONELY_DIALS_MAX
    assert not second & first, "those next to the ones that do not answer"
    for peer in sorted(second)[:LINKS_MIN]:
        overlay.linked(peer, 0.0)
    assert dialled(overlay, 0.2) == set(), "links enough to learn the rest from"


def test_a_node_with_few_links_tries_a_few_hints_at_a_time_others_one_a_second(view: View):
    overlay = view.overlay
    for peer in OTHERS:
        overlay.learn(peer, ("a:1",), 0.0)
    overlay._redial_at_s = 999.0
    first = dialled(overlay, 0.3)
    assert len(first) == LONELY_DIALS_MAX
    for peer in first:
        overlay.linked(peer, 0.0)
    dials = [len(dialled(overlay, 1.0 + step * 0.25)) for step in range(40)]
    assert max(dials) == 1
    assert 10 / (EXTRA_S * 1.4) - 1 <= sum(dials) <= 10 / (EXTRA_S * 0.6) + 1


def test_callers_are_taken_beyond_sixteen_and_refused_beyond_sixty_four(view: View):
    overlay, callers = view.overlay, members(200)[100:]
    view.see(*OTHERS, *callers)
    unwanted = [peer for peer in callers if peer not in overlay.wanted()]
    for peer in unwanted[:LINKS_REFUSED]:
        overlay.linked(peer, 0.0)
        assert not overlay.refuses(peer)
    overlay.linked(unwanted[LINKS_REFUSED], 0.0)
    assert overlay.refuses(unwanted[LINKS_REFUSED])
    neighbour = min(overlay.wanted())
    overlay.linked(neighbour, 0.0)
    assert not overlay.refuses(neighbour)


def test_beyond_sixteen_links_one_that_no_ring_asks_for_is_asked_to_part(view: View):
    overlay = view.overlay
    view.see(*OTHERS)
    for peer in overlay.wanted():
        overlay.linked(peer, 0.0)
    assert overlay.surplus(0.0) == []
    for peer in OTHERS:
        overlay.linked(peer, 0.0)
    asked: list[tuple[float, int]] = []
    for step in range(4000):
        if told := overlay.surplus(step * 0.25):
            assert overlay.wanted().isdisjoint(told)
            asked.append((step * 0.25, len(overlay.links)))
            for peer in told:
                overlay.unlinked(peer, step * 0.25)
    assert overlay.links == overlay.wanted()
    waits = [(later - earlier, links) for (earlier, links), (later, _) in pairwise(asked)]
    assert all(PART_S * 0.7 <= wait <= PART_S * 1.3 + 0.25 for wait, n in waits if n > LINKS_MAX)
    assert all(wait >= TRIM_S * 0.7 for wait, links in waits if links <= LINKS_MAX)


def test_who_is_asked_to_part_does_so_once_it_can_spare_the_link(view: View):
    overlay = view.overlay
    view.see(*OTHERS)
    asking = next(peer for peer in OTHERS if peer not in overlay.wanted())
    overlay.asked_to_part(asking)
    assert overlay.partings(OLD_S) == []  # no such link
    wanted = sorted(overlay.wanted())
    for peer in wanted[:OLDEST_KEPT]:
        overlay.linked(peer, 0.0)
    overlay.linked(asking, 0.0)
    overlay.asked_to_part(asking)
    for peer in wanted[OLDEST_KEPT : LINKS_KEPT - 1]:
        overlay.linked(peer, 0.0)
        assert overlay.partings(OLD_S) == []
    overlay.linked(wanted[LINKS_KEPT], 0.0)
    assert overlay.partings(OLD_S) == [HangUp(asking, "links enough", parting=True)]
    overlay.asked_to_part(wanted[0])
    parting = HangUp(asking, "links enough", parting=True)  # and a ring asks for the other
    assert overlay.partings(OLD_S) == [parting]


def test_no_link_is_let_go_while_others_may_see_a_node_by_no_other(view: View):
    overlay = view.overlay
    view.see(*OTHERS)
    *wanted, last = sorted(overlay.wanted())
    asking = next(peer for peer in OTHERS if peer not in overlay.wanted())
    overlay.linked(asking, 0.0)
    overlay.asked_to_part(asking)
    for peer in wanted:
        overlay.linked(peer, 0.0)
    overlay.linked(last, 1.0)
    assert overlay.surplus(NEW_S) == overlay.partings(NEW_S - 0.1) == []
    assert overlay.partings(NEW_S) == [HangUp(asking, "links enough", parting=True)]
    assert overlay.surplus(NEW_S + 1.0) == [asking]


def test_the_oldest_links_are_kept_whoever_asks(view: View):
    overlay = view.overlay
    oldest = [peer for peer in OTHERS if peer not in ring_neighbours(SELF, OTHERS)][:OLDEST_KEPT]
    for peer in [*oldest, *(peer for peer in OTHERS if peer not in oldest)]:
        overlay.linked(peer, 0.0)
    view.see(*OTHERS)
    for peer in OTHERS:
        overlay.asked_to_part(peer)
    parted = {effect.peer for effect in overlay.partings(OLD_S) if isinstance(effect, HangUp)}
    assert parted == set(OTHERS) - overlay.wanted() - set(oldest)
    young = {effect.peer for effect in overlay.partings(OLD_S / 2) if isinstance(effect, HangUp)}
    assert young == set(OTHERS) - overlay.wanted()
    overlay.unlinked(oldest[0], 1.0)
    overlay.linked(oldest[0], 0.0)
    assert next(iter(overlay.links)) == oldest[1]
