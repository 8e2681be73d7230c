"""Nodes that exchange messages in any order come to hold the same."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from property.repairing import (
    GENESIS,
    KEYS,
    ROOT,
    Node,
    Wire,
    assert_equal,
    chance,
    deliver,
    exchange,
    nodes_of,
    positions_of,
    sends,
    settled,
)

from meshnode.core.control.entries import role_entry
from meshnode.core.control.roles import Role
from meshnode.core.effects import Send
from meshnode.core.feeds.fetching import AGAIN_S
from meshnode.core.feeds.heads import NOTHING, Head
from meshnode.core.feeds.intake import Outcome
from meshnode.core.feeds.messages import (
    Flush,
    Manifest,
    Pull,
    Vector,
)
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.recent import (
    EARLY_MAX,
    EARLY_OF_ONE_MAX,
    FLUSH_BYTES,
    FLUSHES_BYTES_MAX,
    FLUSHES_MAX,
)
from meshnode.core.feeds.reconcile import ANSWERED_MAX
from meshnode.core.feeds.snapshots import FRAME_BYTES, STANDS_S, WINDOW_BYTES, whole
from meshnode.core.keys import Key

writes = st.tuples(
    st.integers(0, 2), st.sampled_from([b"1", b"2", b"3"]), st.none() | st.binary(max_size=8)
)


@settings(max_examples=150)
@pytest.mark.parametrize("count", [2, 3])
@given(history=st.lists(writes, max_size=12), lost=st.randoms(use_true_random=False))
def test_nodes_converge_whatever_was_lost_repeated_or_late(count: int, history: list, lost: Random):
    nodes = nodes_of(count)
    late: Wire = []
    for number, key, value in history:
        owner = nodes[number % count]
        for flush in owner.write(key, value):
            news = [(owner, node, flush) for node in nodes if node is not owner]
            late += lost.choices(news, k=lost.randrange(4))  # some twice, some never
    lost.shuffle(late)
    for source, target, message in late:
        target.take(source.id, message, 0.0)
    settled(nodes, lost.randrange)
    assert_equal(nodes)


@settings(max_examples=60)
@given(history=st.lists(writes, max_size=12), order=st.randoms(use_true_random=False))
def test_news_reach_a_node_that_speaks_with_a_relay_only(history: list, order: Random):
    owner, relay, reader = nodes_of(3)
    for _, key, value in history:
        owner.write(key, value)
    settled([owner, relay], order.randrange)
    settled([relay, reader], order.randrange)
    if history and owner.own.header:
        assert reader.notes(owner.id) == owner.notes(owner.id)
    assert reader.held.digest() == owner.held.digest()


@settings(max_examples=60)
@given(
    before=st.integers(1, 8),
    after=st.integers(0, 12),
    order=st.randoms(use_true_random=False),
    count=st.integers(2, 3),
)
def test_a_lost_disk_gets_its_rows_back_in_a_higher_epoch(
    before: int, after: int, order: Random, count: int
):
    """Also when its new history has grown longer than the old one before anybody was met."""
    nodes = nodes_of(count)
    for number in range(before):
        nodes[0].write(b"old %d" % (number % 3), b"%d" % number)
    old = nodes[0].notes(nodes[0].id)
    settled(nodes, order.randrange)
    nodes[0] = Node(KEYS[0], boot=2)
    for number in range(after):
        nodes[0].write(b"new", b"%d" % number)
    new = nodes[0].notes(nodes[0].id) if after else {}
    asked = nodes[0].held.ask_for_own()
    wire: Wire = [(nodes[0], other, asked) for other in nodes[1:]]
    while wire:
        source, target, message = wire.pop(order.randrange(len(wire)))
        wire += sends(target, target.take(source.id, message, 0.0), nodes)
    nodes[0].flush()
    settled(nodes, order.randrange)
    assert_equal(nodes)
    assert nodes[0].notes(nodes[0].id) == {**old, **new}
    assert nodes[0].own.head.epoch == 2


@settings(max_examples=60)
@given(before=st.integers(1, 6), after=st.integers(1, 9), order=st.randoms(use_true_random=False))
def test_two_histories_of_one_feed_are_noticed_by_the_next_flush(
    before: int, after: int, order: Random
):
    """Nobody was asked at the start; the owner's next news show that histories differ."""
    nodes = nodes_of(2)
    for number in range(before):
        nodes[0].write(b"old %d" % number, b"")
    settled(nodes, order.randrange)
    nodes[0] = Node(KEYS[0], boot=2)
    for number in range(before - 1 + after):
        nodes[0].write(b"new %d" % number, b"")
    flushes = nodes[0].write(b"last", b"")
    wire: Wire = [(nodes[0], nodes[1], flush) for flush in flushes]
    while wire:
        source, target, message = wire.pop(0)
        wire += sends(target, target.take(source.id, message, 0.0), nodes)
    nodes[0].flush()
    settled(nodes, order.randrange)
    assert_equal(nodes)
    assert len(nodes[1].notes(nodes[0].id)) == before + before - 1 + after + 1


def test_entries_of_the_control_set_come_along():
    one, other = nodes_of(2)
    for node in (one, other):
        for _ in range(3):
            role = Role(chance(32), "operator", "", ROOT.public, 5, None)
            node.control.add(role_entry(ROOT, GENESIS.mesh_id, role, chance), 0.0)
    settled([one, other], Random(1).randrange)
    assert len(one.control.entries()) == 6
    assert one.control.summary.root() == other.control.summary.root()


def test_nodes_that_hold_the_same_say_it_in_one_message():
    one, other = nodes_of(2)
    one.write(b"1", b"")
    settled([one, other], Random(1).randrange)
    assert other.held.on_digest(one.id, one.held.digest()) == Outcome()
    assert exchange([one, other], Random(1).randrange, 99.0) == 2


def test_a_relay_that_lacks_a_flush_sends_the_whole_feed():
    one, other = nodes_of(2)
    one.write(b"1", b"first")
    settled([one, other], Random(1).randrange)
    for number in range(60):
        one.write(b"%d" % number, bytes(10_000))
    kept = one.held._recent._flushes[one.id]
    assert 0 < sum(len(flush.delta) + FLUSH_BYTES for flush in kept) <= FLUSHES_BYTES_MAX
    pulled = Pull({one.id: Head(1, 1)})
    (answer,) = one.held.on_pull(other.id, pulled).effects
    assert isinstance(answer, Send)
    assert isinstance(answer.message, Manifest)
    kinds = deliver([one, other], (other, one, pulled))
    assert kinds["BucketPull"] > 1  # a window at a time
    assert kinds["BucketRows"] > 600_000 // (FRAME_BYTES + 10_100)
    assert other.notes(one.id) == one.notes(one.id)


def test_of_tiny_flushes_a_relay_keeps_so_many_and_answers_the_rest_with_the_whole_feed():
    one, other = nodes_of(2)
    for number in range(FLUSHES_MAX + 9):
        one.write(b"1", b"%d" % number)

    def sent(after: int) -> list[str]:
        effects = one.held.on_pull(other.id, Pull({one.id: Head(1, after)})).effects
        return [type(effect.message).__name__ for effect in effects if isinstance(effect, Send)]

    assert len(one.held._recent._flushes[one.id]) == FLUSHES_MAX
    assert sent(9) == ["Flush"] * FLUSHES_MAX
    assert sent(8) == ["Snapshot"]


def test_one_request_for_flushes_of_many_feeds_is_answered_with_so_many_messages():
    nodes = nodes_of(3)
    relay, *owners = nodes
    for owner in owners:
        owner.write(b"1", b"")
    settled(nodes, Random(1).randrange)
    for owner in owners:
        for number in range(ANSWERED_MAX * 2 // 3):
            for flush in owner.write(b"1", b"%d" % number):
                relay.take(owner.id, flush, 0.0)
    pull = Pull({owner.id: Head(1, 1) for owner in owners})
    *flushes, rest = relay.held.on_pull(owners[0].id, pull).effects
    assert len(flushes) == ANSWERED_MAX * 2 // 3
    assert isinstance(rest.message, Vector)
    assert rest.message.positions.keys() == {owners[1].id}


def test_a_feed_of_buckets_larger_than_a_frame_is_taken_without_a_pause():
    one, other = nodes_of(2)
    for number in range(1000):
        one.own.write("notes", b"%d" % number, bytes(16_000))
    one.flush()
    kinds = deliver([one, other], (other, one, Pull({one.id: NOTHING})))
    assert kinds["BucketPull"] > 1000 * 16_000 / WINDOW_BYTES
    assert other.notes(one.id) == one.notes(one.id)


def test_a_relay_that_has_every_flush_sends_only_those():
    one, other = nodes_of(2)
    for number in range(5):
        one.write(b"%d" % number, b"")
    outcome = one.held.on_pull(other.id, Pull({one.id: Head(1, 2)}))
    sent = [effect.message for effect in outcome.effects if isinstance(effect, Send)]
    assert [m.header.first_seq for m in sent if isinstance(m, Flush)] == [3, 4, 5]


def test_nothing_of_our_own_is_told_before_it_is_on_disk():
    one, other = nodes_of(2)
    one.write(b"1", b"on disk")
    told = one.held.digest()
    one.own.write("notes", b"2", b"not yet")
    change = one.own.flush(1.0)
    assert change is not None
    assert change.flush is not None
    assert one.held.digest() == told
    assert positions_of(one) == {one.id: Head(1, 1)}
    for after in (Head(0, 0), Head(1, 1)):
        outcome = one.held.on_pull(other.id, Pull({one.id: after}))
        for effect in outcome.effects:
            assert isinstance(effect, Send)
            assert isinstance(effect.message, Flush)
            assert effect.message.header.last_seq == 1
    one.held.remember(change.flush)
    assert positions_of(one) == {one.id: Head(1, 2)}


def test_the_one_flush_that_a_graft_brings_goes_on_along_the_tree():
    one, other = nodes_of(2)
    for number in range(3):
        one.write(b"%d" % number, b"")

    def eager(pull: Pull) -> list[bool]:
        return [e.message.eager for e in one.held.on_pull(other.id, pull).effects]

    assert eager(Pull({one.id: Head(1, 2)}, graft=True)) == [True]
    assert eager(Pull({one.id: Head(1, 1)}, graft=True)) == [False, False], "a repair"
    assert eager(Pull({one.id: Head(1, 2)})) == [False], "a comparison"


def test_an_unknown_feed_is_asked_for_once_in_a_while():
    one, other = nodes_of(2)
    flushes = [flush for number in range(4) for flush in one.write(b"%d" % number, b"")]
    first = other.take(one.id, flushes[1], 10.0)
    assert [type(effect.message) for effect in first.effects if isinstance(effect, Send)] == [Pull]
    assert other.take(one.id, flushes[2], 10.0).effects == []
    assert other.take(one.id, flushes[3], 10.0 + AGAIN_S).effects != []


def test_flushes_that_overtook_another_wait_for_it():
    one, other = nodes_of(2)
    one.write(b"first", b"")
    settled([one, other], Random(1).randrange)
    flushes = [flush for number in range(4) for flush in one.write(b"%d" % number, b"")]
    for early in (flushes[2], flushes[1]):
        outcome = other.take(one.id, early, 0.0)
        assert outcome.effects == outcome.changes == []
        assert outcome.missing == {one.id: early.header.head}
    assert other.take(one.id, flushes[2], 99.0).effects != []  # once more: the rest may be lost
    outcome = other.take(one.id, flushes[0], 99.0)
    assert [change.header.head for change in outcome.changes] == [Head(1, n) for n in (2, 3, 4)]
    assert other.held._early.bytes == 0
    assert other.held.graft([one.id]) == Pull({one.id: Head(1, 4)}, graft=True)


def test_flushes_behind_a_second_gap_go_on_waiting():
    one, other = nodes_of(2)
    one.write(b"first", b"")
    settled([one, other], Random(1).randrange)
    flushes = [flush for number in range(6) for flush in one.write(b"%d" % number, b"")]
    for number in (5, 2, 4, 1, 0):
        other.take(one.id, flushes[number], 0.0)
    assert other.held.head_of(one.id) == flushes[2].header.head
    outcome = other.take(one.id, flushes[3], 0.0)
    heads = [flush.header.head for flush in flushes]
    assert [change.header.head for change in outcome.changes] == heads[3:]
    assert other.held._early.bytes == 0


def test_flushes_of_one_feed_that_wait_leave_room_for_those_of_others():
    one, other, reader = nodes_of(3)
    for node in (one, other):
        node.write(b"first", b"")
    settled([one, other, reader], Random(1).randrange)
    for number in range(EARLY_MAX + 1):
        for key in range(14):  # almost as much as a flush may have
            one.own.write("notes", b"%d" % key, b"%d" % number + bytes(16_000))
        (flush,) = one.flush()
        if number:  # the first one is lost
            reader.take(one.id, flush, 0.0)
    assert 0 < reader.held._early.bytes <= EARLY_OF_ONE_MAX
    before, after = (other.write(b"%d" % number, b"")[0] for number in range(2))
    assert reader.take(other.id, after, 0.0).missing
    assert len(reader.take(other.id, before, 0.0).changes) == 2


def test_flushes_that_wait_are_bounded():
    one, other = nodes_of(2)
    one.write(b"first", b"")
    settled([one, other], Random(1).randrange)
    flushes = [flush for number in range(40) for flush in one.write(b"%d" % number, b"")]
    for number, flush in enumerate(flushes[1:]):
        outcome = other.take(one.id, flush, (number + 9) * AGAIN_S)
        assert bool(outcome.missing) == (number < EARLY_MAX)
        assert bool(outcome.effects) == (number >= EARLY_MAX)
    for flush in flushes:
        other.take(one.id, flush, 999.0)
    assert other.notes(one.id) == one.notes(one.id)
    assert other.held._early.bytes == 0


def test_news_that_were_here_already_are_told_apart_by_how_they_came():
    one, other = nodes_of(2)
    (flush,) = one.write(b"1", b"")
    settled([one, other], Random(1).randrange)
    held = {one.id: flush.header.head}
    assert other.take(one.id, flush, 0.0) == Outcome(theirs=held)
    assert other.take(one.id, replace(flush, eager=True), 0.0) == Outcome(
        duplicate_of=one.id, theirs=held
    )


def test_what_a_lost_neighbour_has_half_sent_another_completes():
    one, other, relay = nodes_of(3)
    for number in range(60):
        one.write(b"%d" % number, bytes(10_000))
    settled([one, relay], Random(1).randrange)
    wire: Wire = [(other, one, Pull({one.id: Head(0, 0)}))]
    while other.held._assemblies.get(one.id) is None or len(wire) < 3:
        source, target, message = wire.pop(0)
        wire += sends(target, target.take(source.id, message, 0.0), [one, other, relay])
    part = [message for source, _, message in wire if source is one][:1]
    other.take(one.id, part[0], 0.0)
    other.held.forget_peer(one.id)
    left = other.held._assemblies.get(one.id)
    here = len(left.rows.tables["notes"]) if left else 0
    assert 0 < here < 60
    deliver([one, other, relay], (other, relay, Pull({one.id: Head(0, 0)})))
    assert other.notes(one.id) == one.notes(one.id)
    assert len(other.held._assemblies) == 0


@pytest.mark.parametrize("ended", ["by its neighbour's end", "by a minute"])
def test_nothing_is_kept_of_a_feed_of_nobody_known_that_nobody_goes_on_to_send(ended: str):
    one, other, stranger = nodes_of(3)
    for number in range(60):
        stranger.write(b"%d" % number, bytes(1_000))
    header = stranger.own.header
    assert header is not None
    manifest = whole(header, stranger.own.rows)
    assert isinstance(manifest, Manifest)
    one.held.on_manifest(other.id, manifest, 1.0)
    assert len(one.held._assemblies) == 1
    if ended == "by a minute":
        one.held.tick(1.0 + STANDS_S)
    else:
        one.held.forget_peer(other.id)
    assert len(one.held._assemblies) == 0


def test_who_asks_for_all_feeds_at_once_gets_some_and_is_told_of_the_rest():
    relay, asker = Node(KEYS[0], 1), Node(KEYS[1], 2)
    for _ in range(ANSWERED_MAX + 9):
        feed = OwnFeed(Key.new(chance), GENESIS.mesh_id, GENESIS.limits, 1)
        feed.write("notes", b"1", b"one")
        feed.flush(1.0)
        relay.held.restore(feed.header, feed.rows)
    everything = Pull(dict.fromkeys(relay.held.replicas, NOTHING))
    effects = relay.held.on_pull(asker.id, everything).effects
    *feeds, rest = [one.message for one in effects if isinstance(one, Send)]
    assert len(feeds) == ANSWERED_MAX
    assert isinstance(rest, Vector)
    assert len(rest.positions) == 9
