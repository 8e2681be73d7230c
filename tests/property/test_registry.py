"""The registry on several nodes equals a naive one that keeps every add and every tombstone.

After every step no node shows what the naive model has removed, and a node that misses nothing
shows all that the model shows; at rest all are equal, and every removal is dropped. And no rule is
there in vain: with any of them loosened, a history is found that goes wrong.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from registering import PLACES, World

from meshnode.core.sessions.registry import registry_key
from meshnode.core.tables.roster import Roster

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshnode.core.tables.removals import Dot, Removal

QUIET = ("add",) * 3 + ("remove",) * 3 + ("deliver",) * 10 + ("lose", "repeat", "talk", "talk")
RESTARTS = ("keep", "intact", "stale", "lost")
Step = tuple[str, int, int, int]  # what, two nodes, a place


def steps(kinds: tuple[str, ...]) -> st.SearchStrategy[Step]:
    return st.tuples(
        st.sampled_from(kinds), st.integers(0, 3), st.integers(0, 3), st.integers(0, 2)
    )


def walk(chosen: Random, kinds: tuple[str, ...], count: int) -> list[Step]:
    """Choose steps, most of them about one entry."""
    return [
        (
            chosen.choice(kinds),
            chosen.randrange(4),
            chosen.randrange(4),
            chosen.choice((0, 0, 0, 1)),
        )
        for _ in range(count)
    ]


def act(world: World, step: Step, pick: Random) -> None:
    kind, one, other, place = step
    nodes, wire = list(world.nodes.values()), world.wire
    node = nodes[one % len(nodes)]
    peer = world.others(node)[other % (len(nodes) - 1)]
    number = pick.randrange(len(wire)) if wire else 0
    deeds: dict[str, Callable[[], object]] = {
        "add": lambda: (node.add(PLACES[place]), world.spread(node)),
        "remove": lambda: (node.remove(PLACES[place]), world.spread(node)),
        "talk": lambda: world.talk(node, peer),
        "keep": lambda: world.keep(node),
        "deliver": lambda: wire and world.deliver(number),
        "lose": lambda: wire and wire.pop(number),
        "repeat": lambda: wire and wire.append(wire[number]),
    }
    deeds.get(kind, lambda: world.restart(node, peer, kind))()


def lives_on(world: World, history: list[Step], pick: Random) -> World:
    """Let things happen, and then the world come to rest; what must hold is checked throughout."""
    for step in history:
        act(world, step, pick)
        world.check()
    world.settle()
    world.check_at_rest()
    return world


def ran(count: int, history: list[Step], pick: Random) -> World:
    return lives_on(World(count), history, pick)


def lived_unaware(count: int, parts: list[list[Step]], pick: Random) -> World:
    """Let a node lose its disk and live on; only later somebody returns its history to it."""
    before, unaware, after = parts
    world = World(count)
    for step in before:
        act(world, step, pick)
    node, keeper, *_ = world.nodes.values()
    world.talk(node, keeper)
    world.lose_disk(node, keeper)
    for step in unaware:
        act(world, step, pick)
        world.check()
    world.cut_off = None
    again = world.nodes[node.id]
    world.regain(again, keeper)
    world.spread(again)
    return lives_on(world, after, pick)


def long_walk(seed: int) -> World:
    chosen = Random(seed)
    history = walk(chosen, QUIET + RESTARTS, chosen.randrange(10, 60))
    return ran(chosen.choice((2, 3, 3, 4)), history, chosen)


def long_walk_unaware(seed: int) -> World:
    chosen = Random(seed)
    parts = [
        walk(chosen, QUIET + RESTARTS, chosen.randrange(4, 25)),
        walk(chosen, QUIET, chosen.randrange(4, 30)),
        walk(chosen, QUIET + RESTARTS, chosen.randrange(10)),
    ]
    return lived_unaware(chosen.choice((3, 3, 4)), parts, chosen)


@settings(max_examples=60)
@pytest.mark.parametrize("count", [2, 3, 4])
@given(
    history=st.lists(steps(QUIET + RESTARTS), max_size=25),
    pick=st.randoms(use_true_random=False),
)
def test_nodes_show_what_a_registry_with_tombstones_shows(
    count: int, history: list[Step], pick: Random
):
    ran(count, history, pick)


@settings(max_examples=150)
@given(seed=st.integers(0, 1 << 32))
def test_long_histories_bring_nothing_back_and_lose_nothing(seed: int):
    long_walk(seed)


@settings(max_examples=150)
@given(seed=st.integers(0, 1 << 32))
def test_a_life_with_an_empty_disk_brings_nothing_back(seed: int):
    long_walk_unaware(seed)


def test_the_walks_meet_what_is_hard():
    counts: Counter[str] = Counter()
    for seed in range(50):
        counts += long_walk(seed).counts + long_walk_unaware(seed).counts
    for name in ("snapshots", "removals dropped", *(f"{kind} restarts" for kind in RESTARTS[1:])):
        assert counts[name] > 50, name


def gone_as_far_as_seen(self: Roster, dot: Dot, removal: Removal) -> bool:
    """Drop a removal once its owner's feed is past the add and without it, whatever it answers."""
    held = self._tables.registration(dot.origin, registry_key(removal.place))
    present = held is not None and held.birth == dot.birth
    return not present and self._head(dot.origin) >= dot.at


@pytest.mark.parametrize(
    ("rule", "looser", "walks"),
    [
        ("_is_gone", gone_as_far_as_seen, long_walk_unaware),
        ("hidden", lambda _self: set(), long_walk),
        ("_is_removed", lambda *_: False, long_walk),
        ("_has_held", lambda _self, _dot: False, long_walk),
    ],
)
def test_no_rule_can_be_left_out(
    rule: str, looser: object, walks: Callable[[int], World], monkeypatch: pytest.MonkeyPatch
):
    def wrong(seed: int) -> bool:
        try:
            walks(seed)
        except AssertionError:
            return True
        return False

    monkeypatch.setattr(Roster, rule, looser)
    assert any(wrong(seed) for seed in range(1000))
