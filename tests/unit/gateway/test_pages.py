"""Pages go on behind the last item told, wherever that would stand by now."""

import pytest

from meshnode.gateway.pages import Part, part_asked
from meshnode.gateway.problems import Problem
from meshnode.gateway.strict import parse_query


def part(following=None, limit=2):
    words = f"limit={limit}" + (f"&next={following}" if following else "")
    return part_asked(parse_query(words.encode(), ("limit", "next")))


def ordered(*names):
    return [((name,), name) for name in names]


def test_what_comes_and_goes_between_pages_moves_nothing_else():
    first, following = part().of(ordered("b", "d", "f", "h"))
    assert first == ["b", "d"]
    # `a` came before the place, `d` went, `e` came behind it
    second, following = part(following).of(ordered("a", "b", "e", "f", "h"))
    assert second == ["e", "f"]
    assert part(following).of(ordered("a", "h")) == (["h"], None)


def test_items_need_no_order_of_their_own():
    assert part().of(ordered("z", "a", "m"))[0] == ["a", "m"]


def test_nothing_is_behind_the_last():
    _, following = part().of(ordered("a", "b", "c"))
    assert part(following).of(ordered("a", "b")) == ([], None)


def test_names_of_any_letters_and_numbers_of_64_bits_travel():
    last = (-(2**63) + 1, 2**63 - 1, "über/模型 " + "x" * 8000)
    _, following = Part(1).of([(last, 1), ((5, 0, ""), 2)])
    assert part(following).of([(last, 1), ((5, 0, ""), 2)]) == ([2], None)


@pytest.mark.parametrize(
    "following", ["x", "!", "20", "kQ", "wA", "k8DAwA", "gA", "kcsAAAAAAAAAAA"]
)
def test_a_next_that_no_answer_has_ended_with_is_refused(following):
    with pytest.raises(Problem) as raised:
        part(following).of(ordered("a", "b"))
    assert raised.value.status == 400
    assert raised.value.more == {"field": "next"}


def test_a_next_of_another_list_is_refused():
    _, following = part(limit=1).of([((1, "a"), 1), ((2, "b"), 2)])
    with pytest.raises(Problem, match="not from an earlier answer"):
        part(following).of(ordered("a", "b"))
