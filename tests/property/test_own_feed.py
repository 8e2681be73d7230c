"""What an owner may still write: room is counted with what waits, and kept for every table.

And whatever is written, planned, lost and flushed, every reader takes what was signed.
"""

from collections.abc import Iterable
from contextlib import suppress
from random import Random

import pytest
from copying import copied
from hypothesis import given
from msgspec.structs import replace
from property.test_feed import GENESIS, KEY, LIMITS, histories
from property.walk import values

from meshnode.core.errors import ExhaustedError, RefusedError
from meshnode.core.feeds.feed import BUCKET_BYTES_MAX, Op, Replica, fits
from meshnode.core.feeds.messages import Snapshot
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.room import ALWAYS, END_BYTES, Room
from meshnode.core.feeds.rows import bucket_of
from meshnode.core.feeds.snapshots import rows_of, whole
from meshnode.core.ledger.ledger import LEDGER
from meshnode.core.membership.genesis import Limits
from meshnode.core.sessions.sessions import SESSIONS
from meshnode.core.tables.removals import REMOVALS
from meshnode.wire.links import message_from_wire, message_to_wire

ALWAYS_ROWS = len(ALWAYS)
ORIGIN = OwnFeed(KEY, GENESIS.mesh_id, LIMITS, 1).origin
FEW = replace(LIMITS, rows_max=8 + ALWAYS_ROWS)  # of which a tenth is none


def test_a_full_feed_takes_what_goes_and_comes_together():
    limits = Limits(rows_max=2 + ALWAYS_ROWS, row_bytes_max=64, flush_bytes_max=400)
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
    limits = replace(LIMITS, rows_max=40 + ALWAYS_ROWS)
    feed = OwnFeed(KEY, GENESIS.mesh_id, limits, 7)
    for number in range(36):
        feed.write("a", b"%d" % number, b"")
        if number % 7 == 0:
            feed.flush(1.0)
    with pytest.raises(ExhaustedError, match="36 rows of its table a"):
        feed.write("a", b"more", b"")
    feed.write("a", b"0", b"has grown")
    for number in range(2):
        feed.write("b", b"%d" % number, b"")
    with pytest.raises(ExhaustedError, match="38 rows already"):
        feed.write("b", b"more", b"")
    for table in (SESSIONS, REMOVALS):
        feed.write(table, b"1", b"")
        with pytest.raises(ExhaustedError, match="rows already"):
            feed.write("b", b"more", b"")
    with pytest.raises(ExhaustedError, match="40 rows already"):
        feed.write(SESSIONS, b"more", b"")
    for table, key in ALWAYS:
        feed.write(table, key, bytes(limits.row_bytes_max))
    while feed.waiting:
        feed.flush(1.0)
    assert feed.rows.count() == limits.rows_max


def filled(feed: OwnFeed, table: str, *, at_once: bool) -> int:
    """Write rows of a kilobyte into one table until it takes no more; returns how many it took."""
    for number in range(200):
        try:
            feed.write(table, b"%03d" % number, bytes(997))
        except ExhaustedError:
            return number
        if not at_once:
            feed.flush(1.0)
    raise AssertionError("there is room for ever")


SMALL = Limits(
    row_bytes_max=2000, feed_bytes_max=106_000, flush_bytes_max=4000
)  # 6 kB are for ALWAYS


@pytest.mark.parametrize("at_once", [False, True])
def test_no_table_takes_the_bytes_that_are_left_for_others(at_once: bool):
    feed = OwnFeed(KEY, GENESIS.mesh_id, SMALL, 7)
    assert filled(feed, "a", at_once=at_once) == 90
    feed.write("a", b"000", bytes(1050))  # what is out may grow
    drain(feed, SMALL)
    again = OwnFeed(KEY, GENESIS.mesh_id, SMALL, 8)
    again.restore(feed.header, feed.rows)
    for one in (feed, again):
        with pytest.raises(ExhaustedError, match="as many bytes"):
            one.write("a", b"more", bytes(1000))
        one.write("b", b"1", bytes(1000))
    feed.flush(1.0)
    feed.write("a", b"001", None)
    feed.flush(1.0)
    feed.write("a", b"more", bytes(900))
    assert filled(feed, "b", at_once=at_once) == 4
    assert filled(feed, SESSIONS, at_once=at_once) == 3
    for key in feed.keys(SESSIONS):  # they end
        feed.write(SESSIONS, key, bytes(1000 + END_BYTES))
    for table, key in ALWAYS:
        feed.write(table, key, bytes(SMALL.row_bytes_max))
    drain(feed, SMALL)
    assert SMALL.feed_bytes_max - 1000 < feed.rows.bytes <= SMALL.feed_bytes_max


def test_what_waits_takes_room_in_its_bucket():
    keys = [key for key in map(b"%d".__mod__, range(20_000)) if bucket_of(key) == 5]
    feed = OwnFeed(KEY, GENESIS.mesh_id, Limits(), 7)
    most = BUCKET_BYTES_MAX // ((16 << 10) + 50)
    for key in keys[:most]:
        feed.write("a", key, bytes(16 << 10))
    with pytest.raises(ExhaustedError, match="as many bytes"):
        feed.write("a", keys[most], bytes(16 << 10))
    drain(feed, Limits())
    assert BUCKET_BYTES_MAX * 0.9 < feed.rows.bucket_bytes("a", 5) <= BUCKET_BYTES_MAX


def test_rows_that_are_written_anew_in_another_epoch_take_no_room():
    feed = OwnFeed(KEY, GENESIS.mesh_id, replace(LIMITS, rows_max=4 + ALWAYS_ROWS), 7)
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
    feed = OwnFeed(KEY, GENESIS.mesh_id, replace(LIMITS, rows_max=2 + ALWAYS_ROWS), 7)
    feed.write("a", b"1", b"one")
    feed.flush(1.0)
    with pytest.raises(ExhaustedError):
        feed.write_together("a", {b"1": None, b"2": b"two", b"3": b"three", b"4": b"four"})
    assert not feed.waiting


def test_what_was_planned_together_twice_leaves_in_one_flush():
    feed = OwnFeed(KEY, GENESIS.mesh_id, TIGHT, 7)
    for number in range(9):
        feed.write("a", b"before %d" % number, bytes(20))
    feed.write_together("a", {b"1": b"one", b"2": b"two"})
    feed.write_together("a", {b"2": None, b"3": b"three"})
    feed.write("a", b"2", bytes(20))  # it is out of that
    seen = []
    while (change := feed.flush(1.0)) is not None:
        seen.append({key for _, key in change.rows if key in {b"1", b"2", b"3"}})
    assert {b"1", b"3"} in [keys - {b"2"} for keys in seen]
    assert feed._room._rows["a"] == 12 == feed.rows.count()
    assert feed._room._bytes["a"] == feed.rows.bytes


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
    drain(feed, FEW)
    room = FEW.rows_max - ALWAYS_ROWS - feed.rows.count()
    for number in range(room):
        feed.write("c", b"%d" % number, b"")
    with pytest.raises(ExhaustedError):
        feed.write("c", b"more", b"")
    drain(feed, FEW)
    assert feed.rows.count() == FEW.rows_max - ALWAYS_ROWS


def drain(feed: OwnFeed, limits: Limits) -> None:
    while feed.flush(1.0):
        assert fits(feed.rows, limits)


# Whatever is written.

TIGHT = Limits(rows_max=16, row_bytes_max=40, flush_bytes_max=220, feed_bytes_max=500)
TABLES = (LEDGER, LEDGER, SESSIONS, REMOVALS, "notes", "\U0001f600" * 32)
KEYS = (b"", *(b"%d" % number for number in range(9)))
STEPS = {"write": 9, "together": 5, "repeat": 1, "always": 2, "flush": 5, "hear": 1}
RARE = {"fork": 1, "restart": 1, "lost disk": 1, "stale disk": 1}


class Sure(OwnFeed):
    """A feed whose count of its room must be right: the last defence is another test's."""

    def _begin_anew(self, ops: Iterable[Op]) -> None:
        raise AssertionError(f"{ops} were let in by mistake")


class Reader:
    """An owner that goes through anything, and somebody who takes whatever it signs."""

    def __init__(self) -> None:
        self.boot = 1
        self.own = Sure(KEY, GENESIS.mesh_id, TIGHT, 1)
        self.replica = Replica(self.own.origin, TIGHT)
        self.old = self.saved()

    def step(self, rng: Random) -> None:
        steps = STEPS if rng.random() < 0.9 else RARE
        (kind,) = rng.choices(list(steps), list(steps.values()))
        table, key = rng.choice(TABLES), rng.choice(KEYS)
        some = {one: content(rng) for one in rng.sample(KEYS, rng.randrange(4))}
        match kind:
            case "write":
                with suppress(ExhaustedError):
                    self.own.write(table, key, content(rng))
            case "together":
                with suppress(ExhaustedError):
                    self.own.write_together(table, some)
            case "repeat":
                self.own.repeat(table, key)
            case "always":
                place, value = rng.choice(sorted(ALWAYS)), content(rng)
                self.own.write(*place, value)
                assert self.own.latest(*place) == value
            case "flush":
                self.flush()
            case "hear":
                self.hear()
            case "fork":
                self.own.leave_epoch(self.own.epoch)
            case _:
                self.restart(kind)

    def flush(self) -> None:
        """Let the flush be taken as any node does: by itself, or as the whole feed."""
        before = self.own.header
        change = self.own.flush(1.0)
        if change is None:
            return
        assert len(change.flush.delta) <= TIGHT.flush_bytes_max
        frame = message_to_wire(whole(change.header, self.own.rows))
        sent = message_from_wire(frame, GENESIS.mesh_id)
        assert isinstance(sent, Snapshot)
        rows = rows_of(sent, TIGHT)
        if before is self.replica.header and self.replica.follows(change.header):
            self.replica.apply(change.flush)
            assert values(self.replica.rows) == values(self.own.rows)
        elif change.header.head > self.replica.head:  # else the owner has to hear of another first
            self.replica.replace(change.header, rows)

    def saved(self) -> tuple | None:
        own = self.own
        return None if own.header is None else (own.header, copied(own.rows))

    def restart(self, disk: str) -> None:
        self.boot += 1
        saved = {"restart": self.saved(), "lost disk": None, "stale disk": self.old}[disk]
        self.old = self.saved()
        self.own = Sure(KEY, GENESIS.mesh_id, TIGHT, self.boot)
        if saved is not None:
            self.own.restore(*saved)

    def hear(self) -> None:
        """Let the owner hear what its disk has lost."""
        held = self.replica
        if held.header is not None and not self.own.has_written(held.header):
            self.own.continue_after(held.header, copied(held.rows))


def content(rng: Random) -> bytes | None:
    return None if rng.random() < 0.3 else bytes(rng.choice([0, 20, TIGHT.row_bytes_max]))


@pytest.mark.parametrize("seed", range(300))
def test_whatever_is_written_planned_and_flushed_every_reader_takes_it(seed: int):
    reader, rng = Reader(), Random(seed)
    for _ in range(120):
        reader.step(rng)
    reader.hear()
    reader.own.leave_epoch(reader.replica.head.epoch)  # it may have forked by restarts on old disks
    while reader.own.waiting:
        reader.flush()
    assert values(reader.replica.rows) == values(reader.own.rows)
    counted = Room(TIGHT)
    counted.count(reader.own.rows)
    kept = reader.own._room
    assert +kept._rows == +counted._rows
    assert +kept._bytes == +counted._bytes
    assert +kept._buckets == +counted._buckets


def unbounded(feed: OwnFeed) -> None:
    """Let a feed believe that there is room for anything."""
    feed._room = Room(Limits(10**6, feed_bytes_max=10**9))


def test_as_a_last_defence_nothing_is_signed_that_readers_refuse():
    feed, replica = OwnFeed(KEY, GENESIS.mesh_id, SMALL, 7), Replica(ORIGIN, SMALL)
    feed.write("node", b"", b"record")
    feed.flush(1.0)
    replica.replace(feed.header, copied(feed.rows))
    unbounded(feed)
    for number in range(200):
        feed.write(LEDGER, b"%d" % number, bytes(1000))
    feed.write(SESSIONS, b"1", b"begun last")
    while (change := feed.flush(1.0)) is not None:
        assert fits(feed.rows, SMALL)
        if replica.follows(change.header):
            replica.apply(change.flush)
        else:
            replica.replace(change.header, copied(feed.rows))
    assert values(replica.rows) == values(feed.rows)
    assert (feed.epoch, feed.rows.get(SESSIONS, b"1").value) == (2, b"begun last")
    assert feed.left_out == 200 - len(feed.rows.tables[LEDGER]) > 0
    with pytest.raises(ExhaustedError):
        feed.write(LEDGER, b"more", bytes(1000))


def oversized(limits: Limits) -> OwnFeed:
    """Return a feed as earlier versions wrote them: what waited took no room."""
    feed = OwnFeed(KEY, GENESIS.mesh_id, replace(limits, feed_bytes_max=10**9), 7)
    for table, count in ((LEDGER, 150), (SESSIONS, 3), ("notes", 3)):
        for number in range(count):
            feed.write(table, b"%d" % number, bytes(1000))
    feed.write("node", b"", b"record")
    while feed.flush(1.0):
        pass
    assert not fits(feed.rows, limits)
    return feed


def test_a_feed_that_is_too_large_on_the_disk_goes_on_in_an_epoch_above_with_less_of_its_ledger():
    held, feed = oversized(SMALL), OwnFeed(KEY, GENESIS.mesh_id, SMALL, 8)
    before = values(held.rows)
    feed.restore(held.header, held.rows)
    change = feed.flush(1.0)
    assert fits(feed.rows, SMALL)
    assert (change.header.epoch, feed.flush(1.0)) == (2, None)
    gone = {place for place, row in change.rows.items() if row is None}
    assert {table for table, _ in gone} == {LEDGER}
    assert values(feed.rows) == {place: v for place, v in before.items() if place not in gone}
    assert (
        feed.left_out
        == len(gone)
        == len(feed.values(LEDGER).keys() ^ {b"%d" % n for n in range(150)})
    )
    assert feed.has_written(held.header)
    feed.write(SESSIONS, b"4", bytes(1000))
    again = OwnFeed(KEY, GENESIS.mesh_id, SMALL, 9)
    again.restore(feed.header, feed.rows)
    assert (again.left_out, again.epoch, again.waiting) == (0, 2, False)


def test_what_a_dropped_row_says_anew_is_said_in_its_place():
    held, feed = oversized(SMALL), OwnFeed(KEY, GENESIS.mesh_id, SMALL, 8)
    feed.restore(held.header, held.rows)
    dropped = {b"%d" % n for n in range(150)} - feed.keys(LEDGER)
    one, *_ = sorted(dropped)
    feed.write(LEDGER, one, b"small")
    assert feed.latest(LEDGER, one) == b"small" == feed.values(LEDGER)[one]
    feed.repeat(LEDGER, sorted(dropped)[1])
    feed.leave_epoch(2)
    drain(feed, SMALL)
    assert feed.keys(LEDGER) & dropped == {one}
    assert (feed.epoch, feed.rows.get(LEDGER, one).value) == (3, b"small")


@pytest.mark.parametrize("waits", [False, True])
def test_after_a_lost_disk_what_ours_can_say_again_is_left_out_first(waits: bool):
    limits = replace(LIMITS, rows_max=100, flush_bytes_max=4000)
    lost, feed = (OwnFeed(KEY, GENESIS.mesh_id, limits, boot) for boot in (7, 8))
    for name, one in ((b"lost %d", lost), (b"ours %d", feed)):
        for table, most in ((LEDGER, 80), (SESSIONS, 3), ("notes", 3)):
            for number in range(most):
                one.write(table, name % number, b"")
    drain(lost, limits)
    if not waits:
        drain(feed, limits)
    feed.continue_after(lost.header, copied(lost.rows))
    drain(feed, limits)
    assert {key for key in feed.keys(LEDGER) if key.startswith(b"lost")} == lost.keys(LEDGER)
    assert len(feed.keys(SESSIONS)) == len(feed.keys("notes")) == 6
    assert feed.left_out == 160 - len(feed.keys(LEDGER)) > 0
    for table, key in ALWAYS:
        feed.write(table, key, b"x")
    feed.write(SESSIONS, b"one more", b"")
