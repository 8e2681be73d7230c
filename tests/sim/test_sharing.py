"""A shared replica is a replica: the same laws, and no row leaks from one holder to another."""

import sys

import pytest
from property import test_feed as laws
from property.test_feed import (  # noqa: F401 - collected here too, with the fixture below
    test_a_flush_applied_out_of_place_is_refused_and_changes_nothing,
    test_any_arrival_of_flushes_and_snapshots_keeps_a_replica_at_a_header,
    test_every_changed_bit_of_a_flush_is_refused_and_changes_nothing,
    test_flushes_in_order_lead_through_every_state_of_the_owner,
    test_many_small_writes_still_fit,
)
from sim.faults import Schedule
from sim.sharing import SharedReplica
from sim.world import boot

REPLICA_BYTES_MAX = 200


@pytest.fixture(autouse=True, scope="module")
def _shared():
    with pytest.MonkeyPatch.context() as patch:
        origin = laws.Owner().feed.origin
        patch.setattr(laws, "new_replica", lambda: SharedReplica(origin, laws.LIMITS))
        yield


def test_the_laws_are_asked_of_shared_replicas():
    owner, _ = laws.base()
    replica = laws.new_replica()
    laws.taken(replica, owner.flushes[0].header, owner.snapshots[0])
    assert isinstance(replica, SharedReplica)
    assert laws.values(replica.rows)


def test_two_holders_of_one_state_part_when_only_one_hears_more():
    owner, _ = laws.base()
    one, other = laws.new_replica(), laws.new_replica()
    for replica in (one, other):
        laws.taken(replica, owner.flushes[0].header, owner.snapshots[0])
    assert one.rows is other.rows
    before = laws.values(other.rows)
    first = one.apply(owner.flushes[1])
    assert laws.values(one.rows) == owner.model
    assert laws.values(other.rows) == before
    assert other.apply(owner.flushes[1]) is first
    assert other.rows is one.rows


def test_a_shared_replica_is_small():
    owner, _ = laws.base()
    replica = laws.new_replica()
    laws.taken(replica, owner.flushes[0].header, owner.snapshots[0])
    assert sys.getsizeof(replica) < REPLICA_BYTES_MAX
    assert not vars(replica)


@pytest.mark.parametrize("seed", range(3))
def test_a_mesh_of_shared_replicas_runs_as_one_of_its_own_replicas_does(seed: int):
    def trace(**options) -> str:
        world = boot(seed, 5, **options)
        Schedule(world, seed, ["reset", "loss", "partition"], 20.0).run()
        return world.trace

    assert trace(replica=SharedReplica) == trace()
