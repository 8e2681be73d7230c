"""Who waits for a member with a short id, and how many of those anybody can wait for."""

from meshnode.app.queries.awaited import MARKS_MAX, Awaited
from meshnode.core.ids import NodeId

ONE, OTHER = NodeId("one"), NodeId("other")


def marks(first: int, count: int) -> list[bytes]:
    return [b"%08d" % number for number in range(first, first + count)]


def test_who_waits_is_told_once():
    awaited = Awaited()
    awaited.expect(ONE, marks(0, 2))
    awaited.expect(OTHER, marks(1, 2))
    assert awaited.come(marks(1, 1)[0]) == {ONE, OTHER}
    assert awaited.come(marks(1, 1)[0]) == frozenset()
    assert len(awaited) == 2


def test_a_member_waits_for_what_it_names_now():
    awaited = Awaited()
    for first in range(0, 6400, 64):
        awaited.expect(ONE, marks(first, 64))
        assert len(awaited) == 64
    assert awaited.come(marks(0, 1)[0]) == frozenset()
    awaited.expect(ONE, ())
    assert len(awaited) == 0
    assert not awaited._of


def test_of_a_long_row_so_many_are_waited_for():
    awaited = Awaited()
    awaited.expect(ONE, marks(0, MARKS_MAX + 9))
    assert len(awaited) == MARKS_MAX
