"""Small meshes through all that may go wrong, a few hundred seeds of it, and back to rest."""

from collections import Counter

import pytest
from sim.crowding import limits_of
from sim.decrees import KINDS
from sim.faults import FAULTS, Schedule, choose
from sim.invariants import alive_of
from sim.network import LATENCY_S
from sim.notes import NOTES
from sim.world import World, boot

from meshnode.app.mesh.outbox import OUTBOX_BYTES_MAX
from meshnode.core.links.liveness import MemberState

SEEDS_A_TEST = len(FAULTS)  # each has its turn
SEEDS = 10 * SEEDS_A_TEST
DAY_S = 24 * 3600.0
LIES = 16


def ran(seed: int) -> tuple[World, Schedule]:
    """Run one seed; `./dev sim --seed N` does the same."""
    size, names, for_s = choose(seed)
    world = boot(seed, size, limits=limits_of(seed))
    schedule = Schedule(world, seed, names, for_s)
    schedule.run()
    return world, schedule


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_A_TEST))
def test_after_any_mix_of_faults_comes_calm(first: int):
    happened: Counter[str] = Counter()
    entered: set[str] = set()
    dropped = 0
    removals = refused = 0
    for seed in range(first, first + SEEDS_A_TEST):
        try:
            world, schedule = ran(seed)
        except AssertionError as error:
            raise AssertionError(f"./dev sim --seed {seed}: {error}") from error
        assert schedule.vacuous == [], seed
        assert schedule.happened.total() + schedule.skipped.total() > 0
        assert world.invariants.checks > 20
        happened += schedule.happened
        entered |= {kind for kind in KINDS if world.counts[f"entered: {kind}"]}
        dropped += world.counts["entries dropped"]
        removals += world.registry.counts["removals"]
        refused += world.counts["ledger writes refused"]
    assert entered == set(KINDS)
    assert dropped
    assert refused > 5 * SEEDS_A_TEST
    assert removals > 5 * SEEDS_A_TEST
    assert happened.keys() == FAULTS.keys(), FAULTS.keys() - happened.keys()


def test_a_seed_replays_exactly_and_another_seed_differs():
    traces = [ran(seed)[0].trace for seed in (7, 7, 8)]
    assert traces[0] == traces[1]
    assert traces[0] != traces[2]


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_every_fault_changes_its_run(name: str):
    def trace(*names: str) -> str:
        world = boot(3, 4)
        schedule = Schedule(world, 3, names, 12.0)
        schedule.run()
        assert set(schedule.happened) == set(names)
        assert schedule.vacuous == []
        return world.trace

    assert trace(name) != trace()


@pytest.mark.parametrize("knob", ["latency", "lost", "doubled", "swapped"])
def test_every_knob_changes_its_run(knob: str):
    def frames(*, turned: bool) -> tuple[str, int]:
        world = boot(5, 3)
        network = world.network
        if turned and knob == "latency":
            network.latency_s = (0.1, LATENCY_S[1] * 10)
        elif turned:
            setattr(network, knob, 0.2)
        world.run(5.0)
        return world.trace, world.counts[f"frames {knob}"]

    plain, turned = frames(turned=False), frames(turned=True)
    assert plain[0] != turned[0]
    assert knob == "latency" or turned[1] > plain[1] == 0


@pytest.mark.parametrize("seed", range(4))
def test_a_partition_of_a_day_heals_like_a_short_one(seed: int):
    world = boot(seed, 3)
    world.partition(world.nodes[:1], world.nodes[1:])
    for number in range(20):
        for node in world.nodes:
            world.notes.write(node, world.rng)
        world.run(DAY_S / 20 / 8 if number % 2 else 1.0)
    assert world.nodes[0].running.liveness.state(world.nodes[1].id) is MemberState.DEAD
    world.heal()
    world.settle()


@pytest.mark.parametrize("seed", range(4))
def test_starved_nodes_make_no_healthy_one_unreachable(seed: int):
    world = boot(seed, 9)
    before = world.invariants.false_node_seconds
    for _ in range(4):
        victim = world.rng.choice([node for node in world.nodes if not node.frozen])
        victim.freeze()
        world.run(world.rng.uniform(5.0, 30.0))
        others = {node.id for node in world.nodes if node is not victim}
        assert all(alive_of(n.running) >= others for n in world.nodes if n is not victim)
        victim.thaw()
        world.run(8.0)
    world.settle()
    assert world.counts["timers held"] > 0
    assert world.counts["frames held"] > 0
    assert world.invariants.false_node_seconds == before


def test_a_thawed_node_takes_its_sockets_before_its_timers():
    world = boot(1, 3)
    victim = world.nodes[0]
    links = dict(victim.streams)
    victim.freeze()
    world.run(2.5)  # less than three pulses: nobody lets go of it, and it must let go of nobody
    victim.thaw()
    assert victim.streams == links
    assert world.counts["hung up: silent"] == 0


def test_an_overflowing_outbox_is_repaired_by_reconciliation():
    world = boot(2, 2)
    one, other = world.nodes
    world.network.narrow[one.id] = 50_000.0
    for number in range(OUTBOX_BYTES_MAX // 150_000 + 10):
        for part in range(10):
            one.write(NOTES, b"%d" % part, b"%15000d" % number)
        world.run(0.02)
    assert world.counts["frames squeezed"] > 0
    world.run(12.0)
    world.heal()
    world.settle()
    assert world.counts["outboxes overflowed"] > 0
    assert other.running.replication.replicas[one.id].head == one.running.own.head


@pytest.mark.parametrize("seed", range(6))
def test_a_lying_member_harms_nobody_but_itself(seed: int):
    world = boot(seed, 5)
    schedule = Schedule(world, seed, ["byzantine"], 20.0)
    schedule.run()
    assert schedule.happened["byzantine"] == 1
    lies = {name: count for name, count in world.counts.items() if name.startswith("lies: ")}
    assert len(lies) == LIES
    assert world.counts["frame_refused"] > 0
    assert world.invariants.false_node_seconds == 0
