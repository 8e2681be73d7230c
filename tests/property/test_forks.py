"""Two histories of one feed are noticed by all alike, and a clone falls silent."""

from random import Random

from property.walk import KEYS, Node, Values, Walk, values

from meshnode.core.errors import RefusedError
from meshnode.core.ids import NodeId
from meshnode.core.tables import Tables


def shown(node: Node, origin: NodeId) -> Values:
    tables = Tables(node.held.replicas, node.held.forks)
    hidden = tables._is_hidden(origin, "notes")
    return {} if hidden else values(node.held.replicas[origin].rows)


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
