"""What an owner may still write: room for rows is counted as it is, and kept for every table."""

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from property.test_feed import GENESIS, KEY, LIMITS, histories
from property.walk import values

from meshnode.core.errors import ExhaustedError, RefusedError
from meshnode.core.genesis import Limits
from meshnode.core.own_feed import OTHERS_PART, OwnFeed

FEW = replace(LIMITS, rows_max=8)  # of which a tenth is none


def test_a_full_feed_takes_what_goes_and_comes_together():
    limits = Limits(rows_max=2, row_bytes_max=64, flush_bytes_max=400)
    feed = OwnFeed(KEY, GENESIS.mesh_id, limits, 7)
    feed.write("a", b"1", b"one")
    feed.write("a", b"2", b"two")
    feed.flush(1.0)
    with pytest.raises(RefusedError):
        feed.write_together("a", {b"3": b"three"})
    feed.write_together("a", {b"1": None, b"2": None, b"3": b"three"})
    assert feed.values("a") == {b"3": b"three"}
    feed.flush(1.0)
    assert values(feed.rows) == {("a", b"3"): b"three"}


def test_no_table_takes_the_rows_that_are_left_for_others():
    feed = OwnFeed(KEY, GENESIS.mesh_id, LIMITS, 7)
    left = LIMITS.rows_max // OTHERS_PART
    for number in range(LIMITS.rows_max - left):
        feed.write("a", b"%d" % number, b"")
        if number % 7 == 0:
            feed.flush(1.0)
    with pytest.raises(ExhaustedError, match="45 rows of its table a"):
        feed.write("a", b"more", b"")
    feed.write("a", b"0", b"has grown")
    for number in range(left):
        feed.write("b", b"%d" % number, b"")
    with pytest.raises(ExhaustedError, match="50 rows already"):
        feed.write("b", b"more", b"")
    while feed.waiting:
        feed.flush(1.0)
    assert feed.rows.count() == LIMITS.rows_max


def filled(feed: OwnFeed, most: int) -> int:
    """Write rows of a kilobyte into one table until it takes no more; returns how many it took."""
    for number in range(most):
        try:
            feed.write("a", b"%d" % number, bytes(1000))
        except ExhaustedError:
            return number
        feed.flush(1.0)
    return most


def test_no_table_takes_the_bytes_that_are_left_for_others():
    limits = Limits(feed_bytes_max=100_000, flush_bytes_max=4000)
    feed = OwnFeed(KEY, GENESIS.mesh_id, limits, 7)
    assert filled(feed, 100) == 67  # of 75 kB a tenth is left
    feed.write("a", b"0", bytes(1050))  # what is out may grow
    feed.flush(1.0)
    again = OwnFeed(KEY, GENESIS.mesh_id, limits, 8)
    again.restore(feed.header, feed.rows)
    for one in (feed, again):
        with pytest.raises(ExhaustedError, match="as many bytes"):
            one.write("a", b"more", bytes(1000))
        one.write("b", b"1", bytes(1000))
    feed.flush(1.0)
    feed.write("a", b"1", None)
    feed.flush(1.0)
    feed.write("a", b"more", bytes(1000))


def test_rows_that_are_written_anew_in_another_epoch_take_no_room():
    feed = OwnFeed(KEY, GENESIS.mesh_id, replace(LIMITS, rows_max=4), 7)
    for number in range(3):
        feed.write("a", b"%d" % number, b"")
    feed.flush(1.0)
    feed.leave_epoch(1)
    feed.write("a", b"0", b"has grown")
    feed.write("b", b"", b"")
    with pytest.raises(ExhaustedError):
        feed.write("b", b"more", b"")
    while feed.waiting:
        feed.flush(1.0)
    assert feed.rows.count() == 4


def test_what_does_not_fit_together_is_refused_whole():
    feed = OwnFeed(KEY, GENESIS.mesh_id, replace(LIMITS, rows_max=2), 7)
    feed.write("a", b"1", b"one")
    feed.flush(1.0)
    with pytest.raises(ExhaustedError):
        feed.write_together("a", {b"1": None, b"2": b"two", b"3": b"three", b"4": b"four"})
    assert not feed.waiting


@given(histories)
def test_a_feed_takes_as_many_rows_as_it_may_have_whatever_was_written_before(history: list):
    feed = OwnFeed(KEY, GENESIS.mesh_id, FEW, 7)
    for number, writes in enumerate(history):
        for (table, key), value in writes:
            with suppress(ExhaustedError):
                feed.write(table, key, value)
        if number % 3 == 2:
            feed.leave_epoch(feed.epoch)
        elif number % 3 == 1:
            feed.flush(1.0)
    drain(feed)
    room = FEW.rows_max - feed.rows.count()
    for number in range(room):
        feed.write("c", b"%d" % number, b"")
    with pytest.raises(ExhaustedError):
        feed.write("c", b"more", b"")
    drain(feed)
    assert feed.rows.count() == FEW.rows_max


def drain(feed: OwnFeed) -> None:
    while feed.flush(1.0):
        assert feed.rows.count() <= FEW.rows_max
