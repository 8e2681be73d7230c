"""Meshes whose feeds are full: what nobody could take is not said, and all else goes on."""

from functools import cache
from itertools import count, islice

import pytest
from sim.crowding import TIGHT, overfull
from sim.disk import Disk
from sim.invariants import alive_of
from sim.machine import Machine
from sim.world import World, boot

from meshnode.core.feeds.feed import fits
from meshnode.core.feeds.rows import bucket_of
from meshnode.core.ledger.ledger import LEDGER
from meshnode.wire.links import FRAME_BYTES_MAX

SEEDS = range(8)
LONG = "\U0001f600" * 32  # 128 bytes
CROWDED_S = 12.0


def ledger(place: Machine, owner: Machine) -> dict[bytes, bytes]:
    rows = place.running.replication.replicas[owner.id].rows.tables.get(LEDGER, {})
    return {key: row.value for key, row in rows.items()}


def left_out(world: World) -> int:
    return sum(place.running.own.left_out for place in world.up)


def crowded(seed: int, count: int = 3) -> World:
    """Boot a mesh with little room, and let everybody write more than there is."""
    world = boot(seed, count, limits=TIGHT)
    world.crowd.begin(world.now_s + CROWDED_S)
    world.run(CROWDED_S)
    world.settle()
    assert world.counts["ledger writes refused"] > 0
    return world


@pytest.mark.parametrize("seed", SEEDS)
def test_full_feeds_are_held_by_all_and_links_come_and_go(seed: int):
    world = crowded(seed)
    one, other, _ = world.rng.sample(world.nodes, 3)
    world.reset(one, other)
    world.run(1.0)
    world.settle()
    other.leave()
    world.run(1.0)
    world.settle()
    other.start(one)
    world.settle()
    assert left_out(world) == 0
    assert all(len(alive_of(place.running)) == 3 for place in world.nodes)


@pytest.mark.parametrize("seed", SEEDS)
def test_of_a_full_feed_that_a_disk_has_lost_nothing_is_left_out(seed: int):
    world = crowded(seed)
    victim, witness = world.rng.sample(world.nodes, 2)
    lost = ledger(witness, victim)
    victim.stop("reset")
    victim.disk = Disk()
    victim.start(witness)
    world.settle()
    assert left_out(world) > 0
    for place in world.nodes:
        assert ledger(place, victim).keys() >= lost.keys()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_feed_that_was_too_large_before_a_restart_is_held_by_all_after_it(seed: int):
    world = crowded(seed)
    victim, witness = world.rng.sample(world.nodes, 2)
    victim.stop("reset")
    overfull(victim)
    ((header, rows),) = [held for held in victim.disk.load() if held[0].origin == victim.id]
    assert not fits(rows, TIGHT)
    victim.start(witness)
    world.settle()
    assert left_out(world) > 0
    assert victim.running.own.head.epoch == header.epoch + 1
    assert victim.running.own.rows.bytes > TIGHT.feed_bytes_max / 2


@cache
def keys_of_one_bucket(wanted: int) -> list[bytes]:
    keys = (number.to_bytes(3, "big") for number in count())
    return list(islice((key for key in keys if bucket_of(key) == 5), wanted))


def test_a_newcomer_takes_a_bucket_whose_table_has_a_long_name():
    world = boot(1, 3)
    owner, _, newcomer = world.nodes
    keys = keys_of_one_bucket(8000)
    assert len(keys) * len(LONG.encode()) > FRAME_BYTES_MAX * 0.97
    for key in keys:
        owner.write(LONG, key, b"")
    world.settle()
    newcomer.stop("reset")
    newcomer.disk = Disk()
    world.run(1.0)
    newcomer.start(owner)
    world.settle()
    held = newcomer.running.replication.replicas[owner.id].rows
    assert held.tables[LONG].keys() == set(keys)
