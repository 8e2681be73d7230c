"""A replica equals its owner's feed at every header, whatever way the news took."""

from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from property.walk import values

from meshnode.core.errors import PeerError
from meshnode.core.feeds.feed import Change, Flush, Replica
from meshnode.core.feeds.headers import Header, header_from_signed, sign_header
from meshnode.core.feeds.messages import Snapshot
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.rows import Row, Rows, all_rows
from meshnode.core.feeds.snapshots import rows_of, whole
from meshnode.core.keys import Key
from meshnode.core.membership.genesis import Genesis, Limits
from meshnode.core.packing import pack, unpack

KEY = Key(bytes(range(32)))
LIMITS = Limits(rows_max=50, row_bytes_max=64, flush_bytes_max=400)
GENESIS = Genesis((KEY.public,), 1, "test", bytes(16), LIMITS)
Model = dict[tuple[str, bytes], bytes]

places = st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([b"", b"1", b"2", b"3", b"4"]))
contents = st.none() | st.binary(max_size=64)
writes = st.lists(st.tuples(places, contents), max_size=6)
histories = st.lists(writes, min_size=1, max_size=8)


@dataclass
class Owner:
    """A feed, every flush of it, and what a plain dict says that its rows are at each header."""

    feed: OwnFeed = field(default_factory=lambda: OwnFeed(KEY, GENESIS.mesh_id, LIMITS, 7))
    model: Model = field(default_factory=dict)
    flushes: list[Flush] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)

    def write(self, history: list[tuple[tuple[str, bytes], bytes | None]]) -> None:
        for (table, key), value in history:
            self.feed.write(table, key, value)
            self.model.pop((table, key), None)
            if value is not None:
                self.model[table, key] = value
        while (change := self.feed.flush(1.0)) is not None:
            self.keep(change)
        assert values(self.feed.rows) == self.model

    def keep(self, change: Change) -> None:
        if change.flush is None:
            raise AssertionError("an owner flushes, and never takes a snapshot")
        self.flushes.append(change.flush)
        self.models.append(values(self.feed.rows))
        snapshot = whole(change.header, self.feed.rows)
        if not isinstance(snapshot, Snapshot):
            raise TypeError("these feeds are small")
        self.snapshots.append(snapshot)


def written(history: list[list[tuple[tuple[str, bytes], bytes | None]]]) -> Owner:
    owner = Owner()
    for part in history:
        owner.write(part)
    return owner


def new_replica() -> Replica:
    return Replica(Owner().feed.origin, LIMITS)


def taken(replica: Replica, header: Header, snapshot: Snapshot) -> Change:
    rows = rows_of(snapshot, LIMITS)
    assert snapshot.header == header
    assert rows.state_hash() == header.state_hash
    return replica.replace(header, rows)


def follow(replica: Replica, change: Change, kept: Model) -> None:
    """Do to a dict what a disk does with a change."""
    if change.flush is None:
        kept.clear()
    for place, row in change.rows.items():
        kept.pop(place, None)
        if row is not None:
            kept[place] = row.value
    assert kept == values(replica.rows)


@given(histories)
def test_flushes_in_order_lead_through_every_state_of_the_owner(history: list):
    owner, replica = written(history), new_replica()
    kept: Model = {}
    for number, (flush, model) in enumerate(zip(owner.flushes, owner.models, strict=True)):
        if number == 0:
            follow(replica, taken(replica, flush.header, owner.snapshots[0]), kept)
        else:
            assert replica.follows(flush.header)
            follow(replica, replica.apply(flush), kept)
        assert values(replica.rows) == model
        assert replica.rows.state_hash() == flush.header.state_hash


@settings(max_examples=200)
@given(histories, st.data())
def test_any_arrival_of_flushes_and_snapshots_keeps_a_replica_at_a_header(
    history: list, data: st.DataObject
):
    owner, replica = written(history), new_replica()
    kept: Model = {}
    arrivals = st.tuples(st.integers(0, max(0, len(owner.flushes) - 1)), st.booleans())
    for number, all_of_it in data.draw(st.lists(arrivals, max_size=20)) if owner.flushes else []:
        flush = owner.flushes[number]
        before = replica.head
        if all_of_it and flush.header.head > replica.head:
            follow(replica, taken(replica, flush.header, owner.snapshots[number]), kept)
        elif replica.follows(flush.header):
            follow(replica, replica.apply(flush), kept)
        assert replica.head >= before
        if replica.header is not None:
            position = [f.header.head for f in owner.flushes].index(replica.head)
            assert values(replica.rows) == owner.models[position]


@given(histories, st.data())
def test_a_flush_applied_out_of_place_is_refused_and_changes_nothing(
    history: list, data: st.DataObject
):
    owner = written(history)
    for number, flush in enumerate(owner.flushes):
        other = data.draw(st.integers(0, len(owner.flushes) - 1))
        if other in {number, number - 1}:
            continue
        replica = new_replica()
        taken(replica, owner.flushes[other].header, owner.snapshots[other])
        before = (dict(all_rows(replica.rows)), replica.head, replica.rows.state_hash())
        try:
            replica.apply(flush)
        except PeerError:
            assert (dict(all_rows(replica.rows)), replica.head) == before[:2]
            assert replica.rows.state_hash() == before[2]
        else:
            assert values(replica.rows) == owner.models[number]


def base() -> tuple[Owner, Replica]:
    owner = written([[(("a", b"1"), b"one"), (("a", b"2"), b"two"), (("b", b""), b"x")]])
    replica = new_replica()
    taken(replica, owner.flushes[0].header, owner.snapshots[0])
    owner.write([(("a", b"1"), None), (("a", b"3"), b"three"), (("b", b""), b"y")])
    return owner, replica


def test_every_changed_bit_of_a_flush_is_refused_and_changes_nothing():
    owner, replica = base()
    flush = owner.flushes[1]
    before = (values(replica.rows), replica.rows.state_hash(), replica.head)
    for place in range(len(flush.delta) * 8):
        touched = bytearray(flush.delta)
        touched[place // 8] ^= 1 << place % 8
        with pytest.raises(PeerError):
            replica.apply(Flush(flush.header, bytes(touched)))
        # A member that signs what it likes gets no further: the state does not follow.
        header = forged(flush.header, bytes(touched))
        with pytest.raises(PeerError):
            replica.apply(Flush(header, bytes(touched)))
        assert (values(replica.rows), replica.rows.state_hash(), replica.head) == before
    replica.apply(flush)
    assert values(replica.rows) == owner.model


def forged(header: Header, delta: bytes, **fields: object) -> Header:
    return replace(header, delta_hash=sha256(delta).digest(), **fields)


def test_every_changed_bit_of_a_header_is_refused():
    owner, _ = base()
    signed = owner.flushes[1].header.signed
    assert signed is not None
    assert header_from_signed(signed, GENESIS.mesh_id) == owner.flushes[1].header
    for place in range(len(signed.payload) * 8):
        touched = bytearray(signed.payload)
        touched[place // 8] ^= 1 << place % 8
        with pytest.raises(PeerError):
            header_from_signed(replace(signed, payload=bytes(touched)), GENESIS.mesh_id)
    with pytest.raises(PeerError):
        header_from_signed(signed, "another mesh")
    with pytest.raises(PeerError):
        header_from_signed(replace(signed, signature=bytes(64)), GENESIS.mesh_id)


@pytest.mark.parametrize(
    "fields",
    [
        {"epoch": 0},
        {"epoch": 1 << 63},
        {"epoch": True},
        {"boot": -1},
        {"first_seq": 0},
        {"first_seq": 5, "last_seq": 3},
        {"last_seq": 1 << 63},
        {"at_s": float("nan")},
        {"at_s": float("inf")},
        {"at_s": "now"},
        {"state_hash": "text"},
    ],
)
def test_a_header_that_its_owner_signed_wrongly_is_refused(fields: dict):
    owner, _ = base()
    header = sign_header(KEY, replace(owner.flushes[1].header, **fields))
    assert header.signed is not None
    with pytest.raises(PeerError):
        header_from_signed(header.signed, GENESIS.mesh_id)


def test_every_changed_bit_and_missing_row_of_a_snapshot_is_refused():
    owner, _ = base()
    snapshot = owner.snapshots[1]
    assert values(rows_of(snapshot, LIMITS)) == owner.model
    for place in range(len(snapshot.rows) * 8):
        touched = bytearray(snapshot.rows)
        touched[place // 8] ^= 1 << place % 8
        with pytest.raises(PeerError):
            rows_of(replace(snapshot, rows=bytes(touched)), LIMITS)
    rows = unpack(snapshot.rows)
    for number in range(len(rows)):
        missing = pack(rows[:number] + rows[number + 1 :])
        with pytest.raises(PeerError):
            rows_of(replace(snapshot, rows=missing), LIMITS)


def snapshot_of(entries: list) -> Snapshot:
    """Return a snapshot whose header proves these rows, if they can have a hash at all."""
    rows = Rows()
    owner, _ = base()
    header = owner.flushes[0].header
    with suppress(TypeError, ValueError, AttributeError, OverflowError):
        for table, key, epoch, seq, value in entries:
            rows.put(table, key, Row(epoch, seq, value))
        header = replace(header, state_hash=rows.state_hash())
    return Snapshot(header, pack(entries))


@pytest.mark.parametrize(
    "row",
    [
        [5, b"key", 1, 1, b"value"],
        [None, b"key", 1, 1, b"value"],
        ["", b"key", 1, 1, b"value"],
        ["t" * 33, b"key", 1, 1, b"value"],
        ["a", "key", 1, 1, b"value"],
        ["a", b"k" * 1025, 1, 1, b"value"],
        ["a", b"key", -1, 1, b"value"],
        ["a", b"key", 1, 1.5, b"value"],
        ["a", b"key", 1, True, b"value"],
        ["a", b"key", 1, 1, None],
        ["a", b"key", 1, 1, b"v" * 65],
        ["a", b"key", 1, 1],
        "text",
        5,
    ],
)
def test_a_snapshot_row_that_no_flush_could_have_written_is_refused(row: object):
    good: list[object] = [["a", b"key", 1, 1, b"value"], ["b", b"key", 1, 2, b"value"]]
    assert rows_of(snapshot_of(good), LIMITS).count() == 2
    with pytest.raises(PeerError):
        rows_of(snapshot_of([*good, row]), LIMITS)


def test_a_feed_of_too_many_rows_is_refused_by_either_way():
    rows = [["a", b"%d" % number, 1, number + 1, b""] for number in range(LIMITS.rows_max + 1)]
    with pytest.raises(PeerError, match="more rows"):
        rows_of(snapshot_of(rows), LIMITS)
    assert rows_of(snapshot_of(rows[1:]), LIMITS).count() == LIMITS.rows_max


@given(st.lists(st.tuples(places, contents), min_size=1, max_size=40))
def test_no_flush_is_larger_than_the_mesh_allows(history: list):
    owner = written(
        [[((f"{table}{n % 7}", key), value) for n, ((table, key), value) in enumerate(history)]]
    )
    assert all(len(flush.delta) <= LIMITS.flush_bytes_max for flush in owner.flushes)


@given(st.integers(1, 40))
def test_many_small_writes_still_fit(count: int):
    owner = written([[(("a", b"%d" % number), b"") for number in range(count)]])
    assert all(len(flush.delta) <= LIMITS.flush_bytes_max for flush in owner.flushes)
    replica = new_replica()
    taken(replica, owner.flushes[0].header, owner.snapshots[0])
    for flush in owner.flushes[1:]:
        replica.apply(flush)
    assert values(replica.rows) == owner.model


@given(writes, writes, writes)
def test_a_lost_history_comes_back_beneath_what_was_written_since(
    shared: list, lost: list, since: list
):
    """The disk is as old as `shared`; `lost` was published, `since` is written after the start."""
    owner = written([shared, lost])
    feed = OwnFeed(KEY, GENESIS.mesh_id, LIMITS, 8)
    if shared and (shared_flushes := written([shared])).flushes:
        header = shared_flushes.flushes[-1].header
        feed.restore(header, rows_of(shared_flushes.snapshots[-1], LIMITS))
    model = dict(owner.model)
    for (table, key), value in since:
        feed.write(table, key, value)
        model.pop((table, key), None)
        if value is not None:
            model[table, key] = value
    feed.flush(2.0)
    if not owner.flushes or feed.has_written(owner.flushes[-1].header):
        return
    newest = owner.flushes[-1].header
    feed.continue_after(newest, rows_of(owner.snapshots[-1], LIMITS))
    while feed.flush(3.0):
        pass
    assert values(feed.rows) == model
    assert feed.has_written(newest)
    if model:
        assert feed.head.epoch > newest.epoch


@given(writes, writes, st.dictionaries(st.sampled_from([b"1", b"2", b"3"]), contents), writes)
def test_what_is_written_together_leaves_in_one_flush(
    shared: list, before: list, together: dict, after: list
):
    owner = written([shared])
    for (table, key), value in before:
        owner.feed.write(table, key, value)
    group = owner.feed.write_together("a", together)
    for (table, key), value in after:
        owner.feed.write(table, key, value)
    left = {place for place in group if owner.feed.is_pending(*place)}
    seen = []
    while (change := owner.feed.flush(1.0)) is not None:
        seen.append(left & change.rows.keys())
    assert [some for some in seen if some] == [left] * bool(left)


def test_a_write_that_changes_nothing_makes_no_flush():
    owner, _ = base()
    head = owner.feed.head
    owner.feed.write("a", b"3", b"three")
    owner.feed.write("a", b"9", None)
    assert not owner.feed.waiting
    assert owner.feed.flush(1.0) is None
    assert owner.feed.head == head
