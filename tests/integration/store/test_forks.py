"""Fork proofs on disk: one an origin, until a higher epoch is stored."""

from random import Random

import pytest

from meshnode.core.feeds.feed import Change
from meshnode.core.feeds.forks import Proof, is_fork, proof_of
from meshnode.core.feeds.headers import Header, header_from_signed
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.rows import all_rows
from meshnode.core.keys import Key
from meshnode.core.membership.genesis import Genesis
from meshnode.store import feeds, forks
from meshnode.store.database import Database

KEY = Key.new(Random(41).randbytes)
GENESIS = Genesis((KEY.public,), 1, "test", bytes(16))


def feed_of(epoch: int, text: bytes) -> OwnFeed:
    feed = OwnFeed(KEY, GENESIS.mesh_id, GENESIS.limits, 1)
    feed.epoch = epoch
    feed.write("notes", b"1", text)
    assert feed.flush(1.0) is not None
    return feed


def header_of(epoch: int, text: bytes) -> Header:
    header = feed_of(epoch, text).header
    assert header is not None
    return header


def fork_of(epoch: int) -> Proof:
    return proof_of((header_of(epoch, b"one"), header_of(epoch, b"other")))


def loaded(database: Database) -> list[Proof]:
    return [
        proof_of(tuple(header_from_signed(signed, GENESIS.mesh_id) for signed in pair))
        for pair in database.run_now(forks.load)
    ]


def test_a_proof_is_read_back_as_it_was_and_still_proves(database: Database):
    database.run_now(forks.save, fork_of(3))
    assert loaded(database) == [fork_of(3)]
    assert is_fork(*loaded(database)[0])


def test_a_later_proof_takes_the_place_of_an_earlier_one(database: Database):
    database.run_now(forks.save, fork_of(3))
    database.run_now(forks.save, fork_of(4))
    assert loaded(database) == [fork_of(4)]


@pytest.mark.parametrize(("epoch", "kept"), [(2, 1), (3, 1), (4, 0)])
def test_a_proof_goes_with_the_first_state_of_a_higher_epoch(
    database: Database, epoch: int, kept: int
):
    database.run_now(forks.save, fork_of(3))
    feed = feed_of(epoch, b"later")
    assert feed.header is not None
    change = Change(feed.origin, feed.header, None, all_rows(feed.rows))
    database.run_now(feeds.save, [change], [])
    assert len(loaded(database)) == kept
