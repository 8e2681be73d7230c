"""Two histories of one feed are noticed by all alike, and a clone falls silent."""

from random import Random

import pytest
from msgspec.structs import replace
from property.walk import GENESIS, KEYS, Node, Values, Walk, values

from meshnode.core.errors import PeerError, RefusedError
from meshnode.core.feeds.headers import header_from_signed, sign_header
from meshnode.core.feeds.messages import Fork, Message
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.snapshots import whole
from meshnode.core.ids import NodeId
from meshnode.core.tables.tables import Tables


def shown(node: Node, origin: NodeId) -> Values:
    tables = Tables(node.held.replicas, node.held.forks)
    hidden = tables._is_hidden(origin, "notes")
    return {} if hidden else values(node.held.replicas[origin].rows)


def whole_of(node: Node) -> Message:
    assert node.own.header is not None
    return whole(node.own.header, node.own.rows)


def two_histories() -> tuple[Walk, Node, list[Node]]:
    """Return an owner gone for good, and two nodes that hold as much of it, but not the same."""
    walk = Walk(Random(1), 3)
    owner, *others = walk.nodes
    owner.own.write("notes", b"1", b"both")
    walk.flush(owner)
    walk.calm()
    clone = Node(owner.key, 99, owner.saved())
    for author, reader, text in ((owner, others[0], b"one"), (clone, others[1], b"other")):
        author.own.write("notes", b"2", text)
        change = author.own.flush(1.0)
        if change is None or change.flush is None or change.header.signed is None:
            raise AssertionError("there was something to flush")
        walk.model.states[change.header.signed.signature] = values(author.own.rows)
        reader.take(owner.id, change.flush, 0.0)
    walk.nodes = others
    return walk, owner, others


def test_two_histories_of_equal_length_are_noticed_and_put_in_quarantine_by_all():
    walk, owner, others = two_histories()
    assert shown(others[0], owner.id) != shown(others[1], owner.id)
    walk.calm()
    for node in others:
        assert node.held.forks.has(owner.id)
        assert shown(node, owner.id) == {}


def test_an_owner_cannot_say_two_things_in_a_flush_that_writes_nothing():
    key = KEYS[3]
    for text in (b"one", b"other"):
        feed = OwnFeed(key, GENESIS.mesh_id, GENESIS.limits, 1)
        feed.write("notes", b"1", text)
        change = feed.flush(1.0)
        assert change is not None
        silent = sign_header(key, replace(change.header, epoch=2, first_seq=1, last_seq=0))
        assert silent.signed is not None
        with pytest.raises(PeerError, match="seqs do not fit"):
            header_from_signed(silent.signed, GENESIS.mesh_id)


def test_a_higher_epoch_clears_a_quarantine_and_nothing_is_lost():
    walk, owner, others = two_histories()
    walk.calm()
    back = Node(owner.key, 100)  # with a lost disk
    walk.nodes = [back, *others]
    walk.tell(back, back.held.ask_for_own())
    walk.calm()
    for node in walk.nodes:
        assert not node.held.forks.has(owner.id)
        rows = shown(node, owner.id)
        assert rows["notes", b"1"] == b"both"
        assert rows["notes", b"2"] in {b"one", b"other"}


def test_a_quarantine_outlives_a_restart_and_reaches_a_newcomer():
    walk, owner, others = two_histories()
    walk.calm()
    again = Node(others[0].key, 7, others[0].saved())
    newcomer = Node(KEYS[3], 8)
    walk.nodes = [again, newcomer]
    walk.calm()
    for node in walk.nodes:
        assert node.held.forks.has(owner.id)
        assert shown(node, owner.id) == {}


def test_a_clone_that_stays_leaves_the_forked_epoch_when_it_is_started_again():
    walk, owner, others = two_histories()
    walk.calm()
    clone = Node(owner.key, 99, others[0].saved())
    clone.own.stop_writing()  # it has seen that the other machine answers
    proof = others[0].held.forks.get(owner.id)
    assert proof is not None
    clone.take(others[0].id, Fork(proof), walk.now_s)
    assert shown(clone, owner.id) == {}
    back = Node(owner.key, 100, clone.saved())
    assert back.own.waiting
    walk.flush(back)
    walk.nodes = [back, *others]
    walk.calm()
    for node in walk.nodes:
        assert not node.held.forks.has(owner.id)
        assert shown(node, owner.id) == values(back.own.rows) != {}


def test_a_clone_that_answers_stops_writing_and_epochs_do_not_race():
    walk = Walk(Random(1), 2)
    owner, relay = walk.nodes
    owner.own.write("notes", b"1", b"mine")
    walk.flush(owner)
    walk.calm()
    clone = Node(owner.key, 99, owner.saved())
    told: dict[bytes, Node] = {}
    for turn in range(30):
        for author in (owner, clone):
            try:
                author.own.write("notes", b"turn", b"%d of %d" % (turn, author.boot))
            except RefusedError:
                told[b"%d" % author.boot] = author
            walk.nodes = [author, relay]
            walk.calm()
    assert [node.own.cloned for node in (owner, clone)].count(True) == 1
    assert len(told) == 1
    assert relay.held.head_of(owner.id).epoch <= 4
    (writer,) = [node for node in (owner, clone) if not node.own.cloned]
    assert values(relay.held.replicas[owner.id].rows) == values(writer.own.rows)


def test_of_two_that_leave_each_other_at_once_one_goes_on():
    walk = Walk(Random(1), 2)
    owner, relay = walk.nodes
    owner.own.write("notes", b"1", b"mine")
    walk.flush(owner)
    walk.calm()
    clone = Node(owner.key, 99, owner.saved())
    for author in (owner, clone):
        author.own.write("notes", b"2", b"by %d" % author.boot)
        walk.flush(author)
    for _ in range(9):
        shown = [(author, whole_of(author)) for author in (owner, clone)]
        for author, message in shown:
            other = owner if author is clone else clone
            walk.perform(other, other.take(relay.id, message, walk.now_s))
        for author in (owner, clone):
            walk.flush(author)
    assert [node.own.cloned for node in (owner, clone)].count(True) == 1
    (writer,) = [node for node in (owner, clone) if not node.own.cloned]
    walk.wire.clear()
    walk.nodes = [writer, relay]
    walk.calm()
    assert values(relay.held.replicas[owner.id].rows) == values(writer.own.rows)


def test_who_lost_a_disk_twice_is_not_silenced_by_what_neighbours_remember_of_its_second_life():
    """The second life wrote in epoch 1, then above what it had lost: two epochs with one boot."""
    walk = Walk(Random(1), 2)
    first, relay = walk.nodes
    for number in range(9):
        first.own.write("notes", b"%d" % number, b"first")
        walk.flush(first)
    second = Node(first.key, 50)
    second.own.write("notes", b"second", b"")
    walk.flush(second)
    early = whole_of(second)
    second.take(relay.id, whole_of(first), walk.now_s)
    walk.flush(second)
    third = Node(first.key, 51)
    third.own.write("notes", b"third", b"")
    walk.flush(third)
    for message in (early, whole_of(second)):
        third.take(relay.id, message, walk.now_s)
        walk.flush(third)
    assert not third.own.cloned
    assert len(values(third.own.rows)) == 9 + 2


def test_an_owner_whose_history_has_no_rows_left_is_agreed_upon_too():
    walk = Walk(Random(1), 2)
    owner, relay = walk.nodes
    for value in (b"soon gone", None):
        owner.own.write("notes", b"1", value)
        walk.flush(owner)
    walk.calm()
    back = Node(owner.key, 100)  # with a lost disk
    walk.nodes = [back, relay]
    walk.tell(back, back.held.ask_for_own())
    walk.calm()
    assert relay.held.head_of(owner.id).epoch == 2


def test_an_old_backup_is_no_clone():
    walk = Walk(Random(1), 3)
    owner, near, far = walk.nodes
    backup = owner.saved()
    for number in range(6):
        owner.own.write("notes", b"%d" % number, b"")
        walk.flush(owner)
        walk.wire = [entry for entry in walk.wire if number < 3 or entry[1] == far.id]
        walk.nodes = [owner, near, far] if number < 3 else [owner, far]
        walk.calm()
    back = Node(owner.key, 5, backup)
    for peers in ([near], [near, far]):  # one side knows more of our history than the other
        walk.nodes = [back, *peers]
        walk.tell(back, back.held.ask_for_own())
        walk.calm()
    assert not back.own.cloned
    assert len(values(back.own.rows)) == 6
