"""Whole feeds, bucket by bucket: nothing twice, nothing unproved, nothing unbounded."""

from itertools import islice
from random import Random

import pytest
from msgspec.structs import replace

from meshnode.core.errors import PeerError, RefusedError
from meshnode.core.feeds.feed import BUCKET_BYTES_MAX, TABLES_MAX, Replica
from meshnode.core.feeds.headers import Header, sign_header
from meshnode.core.feeds.messages import BucketRows, Manifest, Snapshot
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.rows import Row, Rows, bucket_of, state_hash
from meshnode.core.feeds.snapshots import (
    ASSEMBLIES_MAX,
    ROWS_MAX,
    SMALL_BYTES_MAX,
    STANDS_S,
    STILL_S,
    UNPROVED_MAX,
    WINDOW_BYTES,
    Assemblies,
    Assembly,
    answers,
    check_size,
    rows_of,
    whole,
)
from meshnode.core.ids import NodeId, node_id_of
from meshnode.core.keys import Key
from meshnode.core.membership.genesis import Genesis
from meshnode.core.membership.members import NODE, ONLY_ROW
from meshnode.core.packing import pack

chance = Random(31).randbytes
KEY, *KEYS = (Key.new(chance) for _ in range(3))
A, B = NodeId("a"), NodeId("b")
GENESIS = Genesis((KEY.public,), 1, "test", bytes(16))


def feed_of(count: int, key: Key = KEY, size: int = 900) -> OwnFeed:
    feed = OwnFeed(key, GENESIS.mesh_id, GENESIS.limits, 1)
    for number in range(count):
        feed.write("notes", b"%d" % number, bytes(size) + b"%d" % number)
    flush_all(feed)
    return feed


def flush_all(feed: OwnFeed) -> None:
    while feed.flush(1.0) is not None:
        pass


def manifest_of(feed: Replica) -> Manifest:
    assert feed.header is not None
    manifest = whole(feed.header, feed.rows)
    assert isinstance(manifest, Manifest)
    return manifest


def begun(
    assemblies: Assemblies, manifest: Manifest, held: Rows | None, now_s: float, peer: NodeId = A
) -> Assembly:
    assembly = assemblies.begin(peer, manifest, held, now_s)
    assert assembly is not None
    return assembly


def fetched(assemblies: Assemblies, assembly: Assembly, feed: Replica) -> int:
    """Ask and take until nothing is missing; return how many bytes came."""
    came = 0
    while assembly.missing:
        for message in answers(assembly.asks(), feed.rows):
            came += len(message.rows)
            assemblies.take(message, 0.0)
    return came


def test_a_small_feed_is_one_message_and_a_large_one_begins_with_its_hashes():
    small, large = feed_of(20), feed_of(200)
    for feed, kind in ((small, Snapshot), (large, Manifest)):
        assert feed.header is not None
        assert isinstance(whole(feed.header, feed.rows), kind)
    assert small.rows.bytes < SMALL_BYTES_MAX < large.rows.bytes


def test_a_large_feed_arrives_whole():
    feed, assemblies = feed_of(2000), Assemblies(GENESIS.limits)
    assembly = begun(assemblies, manifest_of(feed), None, 0.0)
    fetched(assemblies, assembly, feed)
    assert feed.header is not None
    assert assembly.rows.state_hash() == feed.header.state_hash
    assert assembly.rows.tables == feed.rows.tables
    assert assembly.rows.bytes == feed.rows.bytes


def test_one_request_is_answered_with_a_window_and_no_more():
    feed, assemblies = feed_of(2000), Assemblies(GENESIS.limits)
    asked = begun(assemblies, manifest_of(feed), None, 0.0).asks()
    parts = list(answers(asked, feed.rows))
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert WINDOW_BYTES / 2 < sum(len(part.rows) for part in parts) <= WINDOW_BYTES


def test_of_an_older_state_only_what_has_changed_is_fetched():
    feed, assemblies = feed_of(2000), Assemblies(GENESIS.limits)
    old = Replica(feed.origin, GENESIS.limits)
    assembly = begun(assemblies, manifest_of(feed), None, 0.0)
    everything = fetched(assemblies, assembly, feed)
    old.rows = assembly.rows
    feed.write("notes", b"7", b"changed")
    feed.write("notes", b"8", None)
    flush_all(feed)
    again = begun(assemblies, manifest_of(feed), old.rows, 0.0)
    assert len(again.missing) == 2
    assert fetched(assemblies, again, feed) < everything / 50
    assert feed.header is not None
    assert again.rows.state_hash() == feed.header.state_hash


def test_what_was_fetched_before_the_feed_changed_is_kept():
    feed, assemblies = feed_of(2000), Assemblies(GENESIS.limits)
    assembly = begun(assemblies, manifest_of(feed), None, 0.0)
    for message in answers(assembly.asks(), feed.rows):
        assemblies.take(message, 0.0)
    missing = len(assembly.missing)
    feed.write("notes", b"new", b"row")
    flush_all(feed)
    assert len(begun(assemblies, manifest_of(feed), None, 0.0).missing) <= missing + 1


def test_a_manifest_that_its_header_does_not_prove_is_refused():
    feed, assemblies = feed_of(200), Assemblies(GENESIS.limits)
    manifest = manifest_of(feed)
    bent = {table: {**held, 0: bytes(32)} for table, held in manifest.buckets.items()}
    with pytest.raises(PeerError):
        assemblies.begin(A, replace(manifest, buckets=bent), None, 0.0)
    assert len(assemblies) == 0


def test_a_bucket_that_is_not_proved_leaves_nothing_behind():
    feed, assemblies = feed_of(200), Assemblies(GENESIS.limits)
    assembly = begun(assemblies, manifest_of(feed), None, 0.0)
    before = len(assembly.missing)
    forged = BucketRows(feed.origin, pack([["notes", b"1", 1, 1, b"forged"]]), last=True)
    with pytest.raises(PeerError):
        assemblies.take(forged, 0.0)
    assert len(assembly.missing) == before
    assert assembly.rows.count() == assembly.rows.bytes == 0
    fetched(assemblies, assembly, feed)
    assert feed.header is not None
    assert assembly.rows.state_hash() == feed.header.state_hash


def test_buckets_that_nobody_asked_for_are_passed_over():
    feed, assemblies = feed_of(200), Assemblies(GENESIS.limits)
    stray = BucketRows(feed.origin, pack([["other", b"1", 1, 1, b"stray"]]), last=True)
    assert not assemblies.take(stray, 0.0)
    assembly = begun(assemblies, manifest_of(feed), None, 0.0)
    assemblies.take(stray, 0.0)
    assert assembly.rows.count() == 0


def test_the_feed_that_stands_still_longest_makes_room():
    assemblies = Assemblies(GENESIS.limits)
    feeds = [feed_of(40, Key.new(chance)) for _ in range(ASSEMBLIES_MAX + 1)]
    for number, feed in enumerate(feeds):
        begun(assemblies, manifest_of(feed), None, float(number or 999))
    assert len(assemblies) == ASSEMBLIES_MAX
    assert assemblies.get(feeds[0].origin) is not None
    assert assemblies.get(feeds[1].origin) is None


def test_whoever_begins_most_feeds_makes_room_for_the_others():
    assemblies = Assemblies(GENESIS.limits)
    wanted = feed_of(40, Key.new(chance))
    begun(assemblies, manifest_of(wanted), None, 0.0, B)
    for number in range(ASSEMBLIES_MAX + 1):
        begun(assemblies, manifest_of(feed_of(40, Key.new(chance))), None, 1.0 + number)
    assert len(assemblies) == ASSEMBLIES_MAX
    assert assemblies.get(wanted.origin) is not None


def hashes_alone(tables: int) -> Manifest:
    """Return a manifest of a made-up feed: who signs it has admitted nobody, and holds no row."""
    key = Key.new(chance)
    hashes = {f"t{table}": {n: chance(32) for n in range(256)} for table in range(tables)}
    header = Header(
        GENESIS.mesh_id, node_id_of(key.public), 1, 1, 1, 1, bytes(32), state_hash(hashes), 1.0
    )
    return Manifest(sign_header(key, header), hashes)


def buckets_named(assemblies: Assemblies, *manifests: Manifest) -> int:
    held = [assemblies.get(manifest.header.origin) for manifest in manifests]
    return sum(len(one.missing) for one in held if one is not None)


def test_of_feeds_that_have_proved_no_member_so_many_buckets_are_named():
    assemblies = Assemblies(GENESIS.limits)
    wanted = manifest_of(feed_of(200, Key.new(chance)))
    begun(assemblies, wanted, None, 0.0, B)
    made_up = [hashes_alone(TABLES_MAX - 2) for _ in range(12)]
    for manifest in made_up:
        begun(assemblies, manifest, None, 1.0)
        assert buckets_named(assemblies, wanted, *made_up) <= UNPROVED_MAX
    assert buckets_named(assemblies, made_up[-1]) > 0
    assert buckets_named(assemblies, wanted) > 0, "another has begun it, and less"


def test_feeds_that_are_held_or_proved_make_no_room_for_made_up_ones():
    assemblies, held, proved = Assemblies(GENESIS.limits), feed_of(200), feed_of(200, KEYS[0])
    begun(assemblies, manifest_of(held), Rows(), 0.0)
    begun(assemblies, manifest_of(proved), None, 0.0).admitted = True
    for _ in range(12):
        begun(assemblies, hashes_alone(TABLES_MAX - 2), None, 1.0)
    assert all(assemblies.get(feed.origin) for feed in (held, proved))


def test_what_stands_still_is_dropped_after_a_minute_and_what_moves_stays():
    assemblies, still, moving = Assemblies(GENESIS.limits), feed_of(200), feed_of(200, KEYS[0])
    for feed in (still, moving):
        begun(assemblies, manifest_of(feed), None, 0.0)
    (first, *_) = answers(begun(assemblies, manifest_of(moving), None, 0.0).asks(), moving.rows)
    assert assemblies.take(first, 1.0)
    assemblies.expire(STANDS_S)
    assert assemblies.get(still.origin) is None
    assert assemblies.get(moving.origin) is not None


def test_what_a_lost_neighbour_began_stays_only_of_members():
    assemblies, stranger, member = Assemblies(GENESIS.limits), feed_of(200), feed_of(200, KEYS[0])
    begun(assemblies, manifest_of(stranger), None, 0.0)
    begun(assemblies, manifest_of(member), None, 0.0).admitted = True
    other = hashes_alone(1)
    begun(assemblies, other, None, 0.0, B)
    assemblies.forget_peer(A)
    assert assemblies.get(stranger.origin) is None
    assert assemblies.get(member.origin) is not None
    assert assemblies.get(other.header.origin) is not None


def test_a_proof_of_membership_lasts_while_the_feed_changes_on_its_way():
    feed, assemblies = feed_of(200), Assemblies(GENESIS.limits)
    begun(assemblies, manifest_of(feed), None, 0.0).admitted = True
    feed.write("notes", b"1", b"changed")
    flush_all(feed)
    assert begun(assemblies, manifest_of(feed), None, 0.0).admitted
    feed.write(NODE, ONLY_ROW, b"another record")
    flush_all(feed)
    assert not begun(assemblies, manifest_of(feed), None, 0.0).admitted


def test_an_old_manifest_undoes_nothing_of_a_later_state_that_is_on_its_way():
    feed, assemblies = feed_of(2000), Assemblies(GENESIS.limits)
    old = manifest_of(feed)
    for number in range(0, 2000, 3):
        feed.write("notes", b"%d" % number, b"changed")
    flush_all(feed)
    assembly = begun(assemblies, manifest_of(feed), None, 0.0)
    while assembly.missing:
        for message in answers(assembly.asks(), feed.rows):
            assemblies.take(message, 0.0)
            assert assemblies.begin(B, old, None, 0.0) is None
            assert begun(assemblies, manifest_of(feed), None, 0.0, B) is assembly
    assert assembly.rows.tables == feed.rows.tables


def test_an_older_state_is_taken_once_the_later_one_stands_still():
    feed, assemblies = feed_of(2000), Assemblies(GENESIS.limits)
    old = manifest_of(feed)
    feed.write("notes", b"1", b"changed")
    flush_all(feed)
    begun(assemblies, manifest_of(feed), None, 0.0)
    assert begun(assemblies, old, None, STILL_S, B).header == old.header


def test_nothing_is_taken_of_a_feed_before_its_member_record():
    feed, assemblies = feed_of(200), Assemblies(GENESIS.limits)
    feed.write(NODE, ONLY_ROW, b"record")
    flush_all(feed)
    assembly = begun(assemblies, manifest_of(feed), None, 0.0)
    missing = dict(assembly.missing)
    first, *others = answers(assembly.asks(), feed.rows)
    for message in (BucketRows(feed.origin, pack([]), last=True), *others):
        assert not assemblies.take(message, 0.0)
    assert assembly.missing == missing
    assert assemblies.take(first, 0.0)
    assert assembly.rows.get(NODE, ONLY_ROW) is not None


def test_a_feed_that_grows_beyond_what_the_mesh_allows_is_dropped_on_its_way():
    feed = feed_of(200)
    assemblies = Assemblies(replace(GENESIS.limits, feed_bytes_max=50_000))
    assembly = begun(assemblies, manifest_of(feed), None, 0.0)
    with pytest.raises(PeerError, match="more rows or bytes"):
        fetched(assemblies, assembly, feed)
    assert len(assemblies) == 0
    assert assembly.rows.bytes < 60_000


def test_a_message_with_more_rows_than_a_bucket_can_have_is_refused_unread():
    feed = feed_of(20)
    assert feed.header is not None
    rows = pack([["t", b"", 1, 1, b""]] * (ROWS_MAX + 1))
    with pytest.raises(PeerError, match="bucket by bucket"):
        rows_of(Snapshot(feed.header, rows), GENESIS.limits)
    assemblies = Assemblies(GENESIS.limits)
    begun(assemblies, manifest_of(feed_of(200)), None, 0.0)
    with pytest.raises(PeerError, match=f"more than {ROWS_MAX} rows"):
        assemblies.take(BucketRows(feed.origin, rows, last=True), 0.0)


def keys_of_one_bucket(count: int) -> list[bytes]:
    keys = (b"%d" % number for number in range(10**9))
    return list(islice((key for key in keys if bucket_of(key) == 5), count))


def write_all(feed: OwnFeed, places: list[tuple[str, bytes]], value: bytes) -> None:
    for table, key in places:
        feed.write(table, key, value)
        flush_all(feed)


def test_a_bucket_that_fits_no_frame_is_refused_by_its_owner_and_by_all():
    count = BUCKET_BYTES_MAX // (16 << 10) + 1
    keys = keys_of_one_bucket(count)
    feed = OwnFeed(KEY, GENESIS.mesh_id, GENESIS.limits, 1)
    with pytest.raises(RefusedError, match="as many bytes"):
        write_all(feed, [("notes", key) for key in keys], bytes(16 << 10))
    rows = Rows()
    for key in keys:
        rows.put("notes", key, Row(1, 1, bytes(16 << 10)))
    with pytest.raises(PeerError):
        check_size(rows, GENESIS.limits)


def test_more_tables_than_a_manifest_can_name_are_refused_by_owner_and_reader():
    feed = OwnFeed(KEY, GENESIS.mesh_id, GENESIS.limits, 1)
    with pytest.raises(RefusedError):
        write_all(feed, [(f"t{number}", b"") for number in range(TABLES_MAX + 1)], b"")
    rows = Rows()
    for number in range(TABLES_MAX + 1):
        rows.put(f"t{number}", b"", Row(1, number + 1, b""))
    assert feed.header is not None
    with pytest.raises(PeerError, match="more rows"):
        rows_of(
            Snapshot(
                replace(feed.header, state_hash=rows.state_hash()),
                pack([[f"t{number}", b"", 1, number + 1, b""] for number in range(TABLES_MAX + 1)]),
            ),
            GENESIS.limits,
        )
