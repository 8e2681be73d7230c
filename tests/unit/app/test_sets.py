"""Sets by key, of which no empty one stays."""

from meshnode.app.sets import Sets


def test_what_is_put_is_found_and_nothing_empty_stays():
    sets: Sets[str, int] = Sets()
    for one in (1, 2):
        sets.put("a", one, there=True)
    sets.put("b", 3, there=False)
    assert (sets.of("a"), sets.of("b"), len(sets)) == ({1, 2}, frozenset(), 1)
    for one in (1, 2, 2):
        sets.put("a", one, there=False)
    assert len(sets) == 0


def test_what_is_popped_is_gone():
    sets: Sets[str, int] = Sets()
    sets.put("a", 1, there=True)
    assert (sets.pop("a"), sets.pop("a"), sets.of("a")) == ({1}, frozenset(), frozenset())
