"""What is shown of too many things: no member takes the places of others."""

from meshnode.app.queries.crowds import some_of_each
from meshnode.core.ids import NodeId

LOUD, QUIET = NodeId("loud"), NodeId("quiet")


def test_all_is_shown_where_there_is_room():
    found = [(LOUD, 1), (LOUD, 2), (QUIET, 0)]
    assert sorted(some_of_each(found, 3)) == found
    assert some_of_each([], 3) == []


def test_each_node_has_as_many_places_as_any_other():
    found = [(LOUD, number) for number in range(9)] + [(QUIET, 0), (QUIET, None)]
    shown = some_of_each(found, 5)
    assert shown == [(LOUD, 0), (QUIET, 0), (LOUD, 1), (QUIET, None), (LOUD, 2)]
