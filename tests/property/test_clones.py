"""Of two processes with one key one goes on, and it is not the copy of a home that runs."""

from contextlib import suppress
from copy import deepcopy
from random import Random

import pytest
from property.walk import Node, Saved, Walk, values


def beside(walk: Walk, rivals: list[Node], relays: list[Node], turns: int) -> None:
    """Let processes with one key take turns at their relays, each cut off somewhere."""
    for turn in range(turns):
        author = walk.rng.choice(rivals)
        walk.nodes, walk.wire = [author, *relays], []
        walk.now_s += 5.0
        if not author.own.cloned and walk.rng.random() < 0.7:
            author.own.write("notes", b"%d" % author.boot, b"%d" % turn)
            walk.flush(author)
        walk.tell(author, author.held.digest())
        walk.tell(author, author.held.ask_for_own())
        for _ in range(walk.rng.randrange(40)):
            if not walk.wire or author.own.cloned:  # who falls silent hangs up
                break
            walk.hand_over(*walk.wire.pop(0))
    for _ in range(6):
        for author in rivals:
            walk.nodes, walk.wire = [author, *relays], []
            if not author.own.cloned:
                walk.calm()


def begun(seed: int) -> tuple[Walk, Node, list[Node]]:
    walk = Walk(Random(seed), 3)
    owner, *relays = walk.nodes
    owner.own.write("notes", b"1", b"mine")
    walk.flush(owner)
    walk.calm()
    return walk, owner, relays


def started(walk: Walk, disk_of: Node, saved: Saved, *, remembering: bool = False) -> Node:
    node = Node(disk_of.key, walk.rng.getrandbits(62) | 64, saved)
    if disk_of.own.cloned and remembering:
        node.own.clones.gave_way = disk_of.own.clones.writers
    return node


def beside_an_older_copy(seed: int) -> list[Node]:
    walk, owner, relays = begun(seed)
    backup = owner.saved()
    original = started(walk, owner, owner.saved())
    walk.nodes = [original, *relays]
    original.own.write("notes", b"2", b"since the backup")
    walk.flush(original)
    walk.calm()
    rivals = [original, started(walk, owner, backup)]
    beside(walk, rivals, relays, turns=20)
    return rivals


def beside_a_copy_that_was_restarted(seed: int) -> list[Node]:
    walk, owner, relays = begun(seed)
    copy = started(walk, owner, owner.saved())
    beside(walk, [owner, copy], relays, turns=20)
    rivals = [owner, started(walk, copy, copy.saved())]
    beside(walk, rivals, relays, turns=20)
    return rivals


@pytest.mark.parametrize("seed", range(30))
def test_the_copy_of_a_home_that_runs_gives_way_and_never_the_original(seed):
    walk, owner, relays = begun(seed)
    copy = started(walk, owner, owner.saved())
    beside(walk, [owner, copy], relays, turns=20)
    assert (owner.own.cloned, copy.own.cloned) == (False, True)
    for relay in relays:
        assert values(relay.held.replicas[owner.id].rows) == values(owner.own.rows)


def beside_a_copy_when_both_were_restarted(seed: int) -> list[Node]:
    walk, owner, relays = begun(seed)
    copy = started(walk, owner, owner.saved())
    beside(walk, [owner, copy], relays, turns=20)
    original = started(walk, owner, owner.saved())
    rivals = [original, started(walk, copy, copy.saved(), remembering=True)]
    beside(walk, rivals, relays, turns=20)
    return rivals


def started_from_one_disk_that_gave_way(walk: Walk, before: Node, relays: list[Node]) -> list[Node]:
    copy = started(walk, before, before.saved())
    beside(walk, [before, copy], relays, turns=20)
    return [started(walk, copy, copy.saved(), remembering=True) for _ in range(2)]


def started_from_one_disk(walk: Walk, before: Node, _relays: list[Node]) -> list[Node]:
    return [started(walk, before, before.saved()) for _ in range(2)]


STORIES = [
    beside_an_older_copy,
    beside_a_copy_that_was_restarted,
    beside_a_copy_when_both_were_restarted,
]


def test_a_home_that_gave_way_and_went_on_undisputed_stays_beside_the_other_s_old_disk():
    """Whoever it gave way to was stopped, this one went on, and that machine is started again."""
    gave_way = []
    for seed in range(60):
        walk, owner, relays = begun(seed)
        copy = started(walk, owner, owner.saved())
        beside(walk, [owner, copy], relays, turns=20)
        node = started(walk, copy, copy.saved(), remembering=True)
        walk.nodes = [node, *relays]
        node.own.write("notes", b"2", b"of years")
        walk.flush(node)
        walk.calm()
        node.own.clones.trust_own()
        rivals = [node, started(walk, owner, owner.saved())]
        beside(walk, rivals, relays, turns=20)
        gave_way.append([one.own.cloned for one in rivals])
    assert gave_way.count([False, True]) >= 55


@pytest.mark.parametrize("story", STORIES)
def test_the_original_goes_on_beside_a_copy_whose_disk_is_not_of_its_last_start(story):
    """Nearly always: cut off at the wrong moments, each knows as little of the other."""
    gave_way = [[one.own.cloned for one in story(seed)] for seed in range(60)]
    assert all(sorted(one) == [False, True] for one in gave_way)
    assert gave_way.count([False, True]) >= 55


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("story", [started_from_one_disk, started_from_one_disk_that_gave_way])
def test_of_two_that_were_started_from_one_disk_one_gives_way_soon(seed, story):
    walk, before, relays = begun(seed)
    rivals = story(walk, before, relays)
    beside(walk, rivals, relays, turns=20)
    assert sorted(one.own.cloned for one in rivals) == [False, True]
    assert relays[0].held.head_of(before.id).epoch <= 12


def resumed(node: Node) -> Node:
    """Copy a process with its memory, as a snapshot of a virtual machine is."""
    return deepcopy(node, {id(node.key): node.key})


@pytest.mark.parametrize("seed", range(10))
def test_a_machine_that_is_reverted_again_and_again_is_heard_each_time(seed):
    walk, owner, relays = begun(seed)
    for number, node in enumerate([owner, *(resumed(owner) for _ in range(3))]):
        walk.nodes, walk.wire = [node, *relays], []
        for _ in range(3):  # at the first it learns what it has published since
            node.own.write("notes", b"now", b"%d" % number)
            walk.flush(node)
            with suppress(AssertionError):
                walk.calm()
        assert not node.own.cloned
        for relay in relays:
            assert values(relay.held.replicas[node.id].rows) == values(node.own.rows)


@pytest.mark.parametrize("seed", range(10))
def test_of_two_that_were_resumed_from_one_memory_one_gives_way(seed):
    walk, owner, relays = begun(seed)
    twin = resumed(owner)
    for _ in range(3):
        with suppress(AssertionError):  # both may still speak
            beside(walk, [owner, twin], relays, turns=20)
    assert [owner.own.cloned, twin.own.cloned].count(True) == 1
    (node,) = (one for one in (owner, twin) if not one.own.cloned)
    walk.nodes, walk.wire = [node, *relays], []
    walk.calm()
    for relay in relays:
        assert values(relay.held.replicas[node.id].rows) == values(node.own.rows)
        assert relay.held.head_of(node.id).epoch < 10
