"""Budgets through partitions, crashes and lost frames: what is held, by whom, and how often."""

import pytest
from sim.spenders import HELD_S, LIMIT, SEEN_S, Spenders
from sim.world import Machine, World, boot

SEEDS = range(8)
THENS = ("suspend", "kill")
LONG_S = 30.0  # until everybody has compared with somebody, and looked


class Spree:
    """A mesh whose agents all spend from one budget."""

    def __init__(self, seed: int, then: str) -> None:
        self.world: World = boot(seed, 3 + seed % 4)
        self.spenders = Spenders(self.world, seed)
        self.rng = self.spenders.rng
        for machine in self.world.nodes:
            self.spenders.run_agent(machine)
        self.spenders.set(self.rng.choice(self.world.nodes), then)
        self.world.run(LONG_S)
        assert self.spenders.acts == []

    def spend(self, tokens: int, *machines: Machine) -> None:
        """Let some spend so much, each its share."""
        share, rest = divmod(tokens, len(machines))
        for place, machine in enumerate(machines):
            self.spenders.spend(machine, share + (rest if place == 0 else 0))

    def parts(self) -> tuple[list[Machine], list[Machine]]:
        """Return some, and the others."""
        nodes = self.rng.sample(self.world.nodes, len(self.world.nodes))
        cut = self.rng.randrange(1, len(nodes))
        return nodes[:cut], nodes[cut:]

    def acts(self, *machines: Machine) -> set[tuple[str, ...]]:
        return {tuple(self.spenders.acts_of(machine)) for machine in machines}

    def heal(self) -> None:
        self.world.heal()
        self.world.settle()
        self.world.run(LONG_S)


@pytest.mark.parametrize("then", THENS)
@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_spent_together_holds_each_session_once_within_moments(seed: int, then: str):
    spree = Spree(seed, then)
    spree.spend(LIMIT - 1, *spree.world.nodes)
    spree.world.run(LONG_S)
    assert spree.acts(*spree.world.nodes) == {()}
    spree.spend(1, spree.rng.choice(spree.world.nodes))
    spree.world.run(HELD_S)
    assert spree.acts(*spree.world.nodes) == {(then,)}
    spree.spend(LIMIT, *spree.world.nodes)
    spree.world.run(LONG_S)
    assert spree.acts(*spree.world.nodes) == {(then,)}


@pytest.mark.parametrize("then", THENS)
@pytest.mark.parametrize("seed", SEEDS)
def test_who_is_cut_off_goes_by_what_it_knows_and_kills_nobody(seed: int, then: str):
    spree = Spree(seed, then)
    some, others = spree.parts()
    spree.world.partition(some, others)
    spree.world.run(SEEN_S)
    spree.spend(LIMIT - 1, *some)
    spree.spend(LIMIT, *others)
    spree.world.run(LONG_S)
    assert (spree.acts(*some), spree.acts(*others)) == ({()}, {("suspend",)})
    spree.heal()
    assert (spree.acts(*some), spree.acts(*others)) == ({(then,)}, {("suspend",)})


@pytest.mark.parametrize("seed", SEEDS)
def test_while_one_is_gone_nobody_is_killed_and_later_nobody_is_held_again(seed: int):
    spree = Spree(seed, "kill")
    gone, *others = spree.rng.sample(spree.world.nodes, len(spree.world.nodes))
    gone.stop("reset")
    spree.world.run(SEEN_S)
    spree.spend(LIMIT, *others)
    spree.world.run(LONG_S)
    assert spree.acts(*others) == {("suspend",)}
    gone.start(others[0])
    spree.heal()
    assert (spree.acts(gone), spree.acts(*others)) == ({("kill",)}, {("suspend",)})


@pytest.mark.parametrize("then", THENS)
@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_goes_wrong_each_session_is_held_once_in_the_end(seed: int, then: str):
    spree = Spree(seed, then)
    world, rng = spree.world, spree.rng
    world.network.lost = world.network.swapped = 0.1
    for _ in range(6):
        machine = rng.choice(world.nodes)
        match rng.randrange(4):
            case 0:
                world.partition(*spree.parts())
            case 1:
                world.network.groups = {}
            case 2 if machine.mesh is not None:
                machine.stop("reset")
            case _ if machine.mesh is None:
                machine.start(*world.up[:1])
        world.run(rng.uniform(1.0, 20.0))
        up = [one for one in world.up if one.healthy]
        spree.spend(LIMIT // 4, *up[:1])
    world.network.lost = world.network.swapped = 0.0
    for machine in world.nodes:
        if machine.mesh is None:
            machine.start(*world.up[:1])
    world.heal()
    world.settle()
    spree.spend(LIMIT, rng.choice(world.nodes))
    world.run(LONG_S)
    assert {len(acts) for acts in spree.acts(*world.nodes)} == {1}
