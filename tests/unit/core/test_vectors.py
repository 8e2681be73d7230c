"""The bytes that docs/protocol promises to other languages are the bytes that we write and read."""

import json
from pathlib import Path

import pytest

from meshnode.core.feeds.feed import Change, Flush, Op, Replica, delta_from_bytes, delta_to_bytes
from meshnode.core.feeds.headers import FLUSH, header_from_signed
from meshnode.core.feeds.messages import Snapshot
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.snapshots import hashes_from_bytes, hashes_to_bytes, rows_of, whole
from meshnode.core.keys import Key, Signed
from meshnode.core.membership.genesis import genesis_from_bytes

VECTORS = Path(__file__).parents[3] / "docs" / "protocol" / "vectors"
FEED = json.loads((VECTORS / "feed.json").read_text())
GENESIS = genesis_from_bytes(bytes.fromhex(FEED["genesis"]))


def ops_of(flush: dict) -> list[Op]:
    return [
        Op(table, bytes.fromhex(key), None if value is None else bytes.fromhex(value))
        for table, key, value in flush["writes"]
    ]


def written() -> list[tuple[dict, Change, Snapshot]]:
    """Write the feed of the vectors anew."""
    feed = OwnFeed(Key(bytes.fromhex(FEED["seed"])), GENESIS.mesh_id, GENESIS.limits, FEED["boot"])
    made = []
    for vector in FEED["flushes"]:
        for op in ops_of(vector):
            feed.write(op.table, op.key, op.value)
        change = feed.flush(vector["at"])
        assert change is not None
        snapshot = whole(change.header, feed.rows)
        assert isinstance(snapshot, Snapshot)
        made.append((vector, change, snapshot))
    return made


def test_a_genesis_has_the_mesh_id_of_its_bytes():
    assert FEED["mesh"] == GENESIS.mesh_id


@pytest.mark.parametrize(("vector", "change", "snapshot"), written())
def test_a_feed_is_written_as_in_its_vectors(vector: dict, change: Change, snapshot: Snapshot):
    assert change.flush is not None
    assert change.header.signed is not None
    assert change.origin == FEED["origin"]
    assert change.flush.delta.hex() == vector["delta"] == delta_to_bytes(ops_of(vector)).hex()
    assert change.header.signed.payload.hex() == vector["header"]
    assert change.header.signed.signature.hex() == vector["signature"]
    assert change.header.state_hash.hex() == vector["state_hash"]
    assert snapshot.rows.hex() == vector["snapshot"]
    hashes = hashes_from_bytes(bytes.fromhex(vector["manifest"]))
    assert hashes_to_bytes(hashes).hex() == vector["manifest"]
    assert hashes == rows_of(snapshot, GENESIS.limits).manifest()


def test_a_replica_follows_the_vectors_from_any_snapshot():
    for start in range(len(FEED["flushes"])):
        replica = None
        for number, vector in enumerate(FEED["flushes"]):
            signed = Signed(
                FLUSH, bytes.fromhex(vector["header"]), bytes.fromhex(vector["signature"])
            )
            header = header_from_signed(signed, GENESIS.mesh_id)
            if number == start:
                replica = Replica(header.origin, GENESIS.limits)
                snapshot = Snapshot(header, bytes.fromhex(vector["snapshot"]))
                replica.replace(header, rows_of(snapshot, GENESIS.limits))
            elif replica is not None:
                delta = bytes.fromhex(vector["delta"])
                assert delta_from_bytes(delta, GENESIS.limits) == ops_of(vector)
                replica.apply(Flush(header, delta))
            if replica is not None:
                assert replica.rows.state_hash().hex() == vector["state_hash"]
