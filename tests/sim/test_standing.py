"""Standing kills and their cancels through partitions, crashes and lost frames."""

import pytest
from sim.wards import Wards
from sim.world import World, boot

from meshnode.app.commands.standing import UNHEARD_S
from meshnode.core.control.entries import Cancel, StandingKill

SEEDS = range(10)
AWAY_S = (2.0, 30.0)
WAYS = ("stopped", "cut off", "stopped after it heard")
LONG_S = 30.0  # until everybody has compared with somebody, and looked


class Absence:
    """An owner goes, somebody orders and perhaps cancels, the owner returns."""

    def __init__(self, seed: int, way: str) -> None:
        self.world: World = boot(seed, 2 + seed % 4)
        self.wards = Wards(self.world, seed)
        self.world.run(2.0)
        self.rng, self.way = self.wards.rng, way
        self.owner = self.rng.choice(self.world.nodes)
        self.others = [one for one in self.world.nodes if one is not self.owner]
        self.order_id = b""

    def go(self) -> None:
        """Leave an order while the owner is away, or about to end."""
        kill = self.wards.kill_of(self.owner)
        if self.way == "stopped after it heard":
            self.order_id = self.wards.order(self.owner, kill)
            self.world.run(0.4)  # on its disk and on its way, and not carried out yet
            self.owner.stop("reset")
        else:
            if self.way == "stopped":
                self.owner.stop("reset")
            else:
                self.world.partition([self.owner], self.others)
            self.world.run(self.rng.uniform(*AWAY_S))
            self.order_id = self.wards.order(self.rng.choice(self.others), kill)
        self.world.run(self.rng.uniform(*AWAY_S))

    def cancel(self) -> None:
        """Take it back, and let all who are there hear of it."""
        cancel_id = self.wards.cancel(self.rng.choice(self.others), self.order_id)
        self.world.run(15.0)
        assert all(one.running.control.get(cancel_id) for one in self.others)

    def come_back(self, *, lossy: bool) -> None:
        """Return, perhaps over a network that loses and swaps."""
        network = self.world.network
        if lossy:
            network.lost, network.swapped = 0.3, 0.3
        if self.owner.mesh is None:
            self.owner.start(self.rng.choice(self.others))
        else:
            network.groups = {}
        self.world.run(LONG_S)
        network.lost = network.swapped = 0.0
        self.world.heal()
        self.world.settle()
        self.world.run(LONG_S)

    def restart(self) -> None:
        self.owner.stop("reset")
        self.world.run(3.0)
        self.owner.start(self.rng.choice(self.others))
        self.world.settle()
        self.world.run(LONG_S)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_cancelled_while_its_owner_was_away_is_never_carried_out(seed: int, way: str):
    absence = Absence(seed, way)
    absence.go()
    absence.cancel()
    absence.come_back(lossy=bool(seed % 2))
    assert absence.owner.running.control.held(StandingKill)
    assert absence.owner.running.control.held(Cancel)
    absence.restart()
    assert absence.wards.carried_out == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_not_cancelled_is_carried_out_once_and_by_its_owner_alone(seed: int, way: str):
    absence = Absence(seed, way)
    absence.go()
    absence.come_back(lossy=bool(seed % 2))
    expected = [(absence.owner.id, absence.order_id)]
    assert absence.wards.carried_out == expected
    absence.restart()
    assert absence.wards.carried_out == expected


def test_an_owner_that_nobody_hears_acts_after_a_while_upon_what_it_has_heard():
    absence = Absence(1, "stopped after it heard")
    absence.go()
    for one in absence.others:
        one.stop("reset")
    absence.owner.start()
    absence.world.run(UNHEARD_S - 5.0)
    assert absence.wards.carried_out == []
    absence.world.run(10.0)
    assert absence.wards.carried_out == [(absence.owner.id, absence.order_id)]


@pytest.mark.parametrize("seed", range(6))
def test_an_order_that_arrives_while_its_owner_is_up_is_carried_out_within_moments(seed: int):
    absence = Absence(seed, "")
    began_s = absence.world.now_s
    order_id = absence.wards.order(absence.others[0], absence.wards.kill_of(absence.owner))
    while not absence.wards.carried_out:
        absence.world.run(0.1)
        assert absence.world.now_s - began_s < 5.0
    assert absence.wards.carried_out == [(absence.owner.id, order_id)]
