"""What is at hand of feeds is bounded by what it takes, of one origin and of all."""

from random import Random

import pytest

from meshnode.core.feeds import recent
from meshnode.core.feeds.feed import Flush
from meshnode.core.feeds.heads import Head
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.recent import FLUSH_BYTES, FLUSHES_BYTES_MAX, FLUSHES_MAX, Recent
from meshnode.core.keys import Key
from meshnode.core.membership.genesis import Limits

chance = Random(41).randbytes


def flushes_of(count: int, size: int = 0) -> list[Flush]:
    """Return what a feed says when it writes one row again and again."""
    own = OwnFeed(Key.new(chance), "m", Limits(), 1)
    said = []
    for number in range(count):
        own.write("notes", b"", b"%d" % number + bytes(size))
        change = own.flush(1.0)
        assert change is not None
        assert change.flush is not None
        said.append(change.flush)
    return said


def test_flushes_count_for_more_than_their_deltas():
    kept, said = Recent(), flushes_of(FLUSHES_MAX + 50)
    for flush in said:
        kept.add(flush)
    origin, newest = said[0].header.origin, said[-1].header.head
    assert kept.since(origin, Head(1, 50), newest) == said[50:]
    assert kept.since(origin, Head(1, 49), newest) == []
    assert kept.bytes == sum(len(flush.delta) + FLUSH_BYTES for flush in said[50:])
    kept.drop(origin)
    assert kept.bytes == 0


def test_large_flushes_of_one_origin_have_a_bound_too():
    kept, said = Recent(), flushes_of(60, size=16_000)
    for flush in said:
        kept.add(flush)
    assert FLUSHES_BYTES_MAX // 2 < kept.bytes <= FLUSHES_BYTES_MAX


@pytest.mark.parametrize("origins", [3, 10])
def test_all_origins_together_have_a_bound_and_each_has_its_share(monkeypatch, origins):
    monkeypatch.setattr(recent, "RECENT_BYTES_MAX", 60_000)
    kept, said = Recent(), [flushes_of(60) for _ in range(origins)]
    for feed in said:  # the first ones have written when there was more room for each
        for flush in feed:
            kept.add(flush)
            assert kept.bytes <= 60_000
    share = 60_000 // origins // (FLUSH_BYTES + 20)
    for feed in said:
        first, newest = Head(1, 60 - share), feed[-1].header.head
        assert kept.since(feed[0].header.origin, first, newest) == feed[-share:]
