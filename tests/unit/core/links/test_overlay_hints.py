"""Names that anybody may shout, and members that went: bounded, and holding up nobody else."""

from collections.abc import Callable, Iterator
from itertools import islice

import pytest
from unit.core.links.test_overlay import OTHERS, View, dialled, members

from meshnode.core.ids import NodeId
from meshnode.core.links.overlay import (
    DIALS_MAX,
    LINKS_MIN,
    LONELY_DIALS_MAX,
    RETRY_MAX_S,
    STRANGERS_MAX,
    Overlay,
)

PATIENCE_S = 4.0  # for an address that says nothing
STEP_S = 0.25
SHOUTED = [NodeId(f"stranger{number:04}") for number in range(STRANGERS_MAX + 50)]


@pytest.fixture
def view() -> View:
    return View()


@pytest.fixture
def overlay(view: View) -> Overlay:
    return view.overlay


def dials_of(
    overlay: Overlay, answers: Callable[[NodeId, float], bool]
) -> Iterator[tuple[float, NodeId]]:
    """Yield every dial with its time; those that nobody answers fail after PATIENCE_S."""
    now_s, failing = 0.0, list[tuple[float, NodeId]]()
    while True:
        for _, peer in [one for one in failing if one[0] <= now_s]:
            overlay.unlinked(peer, now_s)
        failing = [one for one in failing if one[0] > now_s]
        for peer in sorted(dialled(overlay, now_s)):
            yield now_s, peer
            if answers(peer, now_s):
                overlay.linked(peer, now_s)
            else:
                failing.append((now_s + PATIENCE_S, peer))
        now_s += STEP_S


def test_names_shouted_by_strangers_are_bounded_and_cost_no_member(overlay: Overlay):
    overlay.learn(OTHERS[0], ("own:1",), 0.0, said=True)
    shouted = [NodeId(f"stranger{number:04}") for number in range(STRANGERS_MAX + 50)]
    for stranger in shouted:
        overlay.learn(stranger, ("b:1",), 0.0)
    assert len([peer for peer in shouted if overlay.addresses_of(peer)]) == STRANGERS_MAX
    found, now_s = set(), 0.0
    while OTHERS[0] not in found and now_s < 1000:
        for peer in dialled(overlay, now_s):
            found.add(peer)
            overlay.unlinked(peer, now_s)
        now_s += 0.25
    assert now_s < 60


@pytest.mark.parametrize("count", [40, 100, STRANGERS_MAX - 1])
def test_a_live_one_behind_dead_names_is_dialled_before_any_is_tried_again(
    overlay: Overlay, count: int
):
    """A fresh node would stay alone for as long as somebody shouts."""
    overlay._redial_at_s = 9999.0  # that is by chance
    live = NodeId("live")
    for peer in [*SHOUTED[:count], live]:
        overlay.learn(peer, ("b:1",), 0.0)
    dials = dials_of(overlay, lambda peer, _: peer == live)
    first = [peer for _, peer in islice(dials, count + LONELY_DIALS_MAX)]
    assert live in first
    assert len(first[: first.index(live)]) == len(set(first[: first.index(live)]))


def test_a_node_that_comes_back_before_its_members_dials_them_as_if_nobody_shouted(
    overlay: Overlay,
):
    known, back_s = members(40)[28:], 60.0
    for peer in known:
        overlay.remember(peer, ("a:1",))
    for peer in SHOUTED[:250]:
        overlay.learn(peer, ("b:1",), 0.0)
    dials = dials_of(overlay, lambda peer, now_s: peer in known and now_s >= back_s)
    found_s = next(now_s for now_s, peer in dials if peer in known and now_s >= back_s)
    assert found_s - back_s <= RETRY_MAX_S * 1.3 + PATIENCE_S + STEP_S


def test_names_only_heard_of_are_tried_though_members_are_down(overlay: Overlay):
    for peer in OTHERS:
        overlay.remember(peer, ("a:1",))
    live = NodeId("live")
    overlay.learn(live, ("b:1",), 0.0)
    dials = dials_of(overlay, lambda peer, _: peer == live)
    assert live in {peer for _, peer in islice(dials, 200)}


def test_names_pushed_out_while_they_are_dialled_are_not_tried_again(view: View):
    """Each would be dialled nowhere for as long as the node runs."""
    overlay, now_s = view.overlay, 0.0
    overlay._redial_at_s = 9999.0  # that is by chance
    for peer in OTHERS[:LINKS_MIN]:
        view.see(peer)
        overlay.linked(peer, now_s)
    dialling: set[NodeId] = set()
    for peer in SHOUTED:  # one each second, and as often one of them is dialled
        overlay.learn(peer, ("b:1",), now_s)
        dialling |= dialled(overlay, now_s)
        now_s += 1.0
    assert len(dialling) > DIALS_MAX / 2
    for number in range(STRANGERS_MAX):
        overlay.learn(NodeId(f"later{number:04}"), ("b:1",), now_s)
    assert not any(overlay.addresses_of(peer) for peer in dialling)
    for peer in dialling:
        overlay.unlinked(peer, now_s)
    again = {effect.peer for effect in overlay.dials(now_s + 9999.0)}
    assert again
    assert not again & dialling
    assert overlay._attempts.keys().isdisjoint(dialling), "or they would be kept for ever"


@pytest.mark.parametrize("address", ["a:1", None], ids=["that left", "without an address"])
def test_a_neighbour_that_nobody_will_dial_any_more_holds_up_no_others(
    view: View, address: str | None
):
    overlay, (gone, new, *kept) = view.overlay, OTHERS[:6]
    view.see(gone, *kept)
    for peer in (gone, *kept):
        overlay.learn(peer, ("a:1",) if peer is not gone or address else (), 0.0, said=True)
        overlay.linked(peer, 0.0)
    if address:
        overlay.retire(gone)
    view.lose(gone)
    overlay.unlinked(gone, 10.0)
    overlay._redial_at_s = 9999.0  # that is by chance
    overlay.learn(new, ("b:1",), 20.0)
    found: set[NodeId] = set()
    for second in range(20, 60):
        found |= dialled(overlay, second)
    assert found == {new}


def test_a_member_that_takes_its_address_back_holds_up_no_others(view: View):
    overlay, (gone, new, *kept) = view.overlay, OTHERS[:6]
    view.see(*kept)
    for peer in kept:
        overlay.linked(peer, 0.0)
    overlay.learn(gone, ("a:1",), 0.0, said=True)
    overlay.unlinked(gone, 0.0)  # it did not answer
    overlay.learn(gone, (), 1.0, said=True)
    overlay._redial_at_s = 9999.0  # that is by chance
    overlay.learn(new, ("b:1",), 20.0)
    assert {peer for second in range(20, 60) for peer in dialled(overlay, second)} == {new}
