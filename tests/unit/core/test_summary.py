"""Hashes that show where two sets differ."""

from random import Random

import pytest

from meshnode.core.summary import BUCKETS, Summary, bucket_of


@pytest.fixture
def described() -> dict[bytes, bytes]:
    return {b"%d" % number: b"%d is here" % number for number in range(500)}


def summary_of(described: dict[bytes, bytes], order: int = 0) -> Summary[bytes]:
    summary = Summary(described.__getitem__)
    names = sorted(described)
    Random(order).shuffle(names)
    for name in names:
        summary.add(name)
    return summary


def test_equal_sets_have_equal_roots_in_whatever_order_they_grew(described):
    assert summary_of(described, 1).root() == summary_of(described, 2).root()
    assert summary_of(described, 1).differing(summary_of(described, 2).hashes()) == frozenset()


def test_every_difference_shows_in_its_bucket_and_in_the_root(described):
    one = summary_of(described)
    fewer = dict(described)
    del fewer[b"7"]
    other = summary_of(fewer)
    assert one.root() != other.root()
    assert one.differing(other.hashes()) == {bucket_of(b"7")}
    assert b"7" in set(one.within(frozenset({bucket_of(b"7")})))


def test_a_change_is_seen_once_it_is_told(described):
    summary = summary_of(described)
    before = summary.root()
    described[b"7"] = b"7 has moved"
    assert summary.root() == before
    summary.changed(b"7")
    assert summary.root() == summary_of(described).root() != before


def test_buckets_share_the_names_out(described):
    summary = summary_of(described)
    sizes = [len(list(summary.within(frozenset({number})))) for number in range(BUCKETS)]
    assert sum(sizes) == len(described)
    assert max(sizes) < 30
    assert len(summary.hashes()) == BUCKETS


def test_what_is_taken_out_is_as_if_it_had_never_been_here(described):
    summary = summary_of(described)
    gone = {b"7", b"77", b"499"}
    rest = summary_of({name: text for name, text in described.items() if name not in gone})
    assert summary.root_without(gone) == rest.root()
    assert summary.root() == summary_of(described).root(), "nothing was taken out yet"
    for name in gone:
        summary.remove(name)
    assert summary.root() == rest.root() == summary.root_without(set())
