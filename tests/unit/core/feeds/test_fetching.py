"""Feeds are asked for a few at a time, of one neighbour each, and of the next if none comes."""

from meshnode.core.feeds.fetching import (
    AGAIN_S,
    IN_FLIGHT_MAX,
    LONGEST_S,
    LOOK_MAX,
    OFFERED_MAX,
    Fetching,
)
from meshnode.core.feeds.heads import Head
from meshnode.core.ids import NodeId

A, B = NodeId("a"), NodeId("b")


def offered(count: int, *peers: NodeId) -> Fetching:
    fetching = Fetching()
    for peer in peers:
        for number in range(count):
            fetching.offered(peer, NodeId(f"o{number}"), Head(1, 5))
    return fetching


def asks(fetching: Fetching, now_s: float) -> dict[NodeId, list[NodeId]]:
    fetching.give_up(now_s)
    return fetching.asks(now_s)


def test_a_neighbour_is_asked_for_a_few_and_then_for_the_next():
    fetching = offered(IN_FLIGHT_MAX + 2, A)
    asked = asks(fetching, 0.0)[A]
    assert len(asked) == IN_FLIGHT_MAX
    assert asks(fetching, 0.1) == {}
    fetching.held(asked[0], Head(1, 5))
    assert asks(fetching, 0.2) == {A: [NodeId(f"o{IN_FLIGHT_MAX}")]}


def test_what_two_offer_is_asked_of_one_and_both_are_kept_busy():
    fetching = offered(IN_FLIGHT_MAX * 2, A, B)
    asked = asks(fetching, 0.0)
    assert len(asked[A]) == len(asked[B]) == IN_FLIGHT_MAX
    assert not set(asked[A]) & set(asked[B])


def test_who_does_not_answer_is_not_asked_again_and_the_next_is():
    fetching = offered(1, A, B)
    assert asks(fetching, 0.0) == {A: ["o0"]}
    assert asks(fetching, AGAIN_S - 0.1) == {}
    assert asks(fetching, AGAIN_S) == {B: ["o0"]}
    assert asks(fetching, 9.0) == {}
    assert len(fetching) == 0  # until somebody offers it anew
    fetching.offered(A, NodeId("o0"), Head(1, 5))
    assert asks(fetching, 9.0) == {A: ["o0"]}


def test_who_sends_a_feed_in_parts_is_waited_for():
    fetching = offered(1, A, B)
    asks(fetching, 0.0)
    for number in range(1, 9):
        fetching.came(A, NodeId("o0"), number * AGAIN_S / 2)
        assert asks(fetching, number * AGAIN_S / 2 + 0.1) == {}


def test_a_feed_that_grew_meanwhile_is_asked_for_again():
    fetching = offered(1, A)
    asks(fetching, 0.0)
    fetching.offered(A, NodeId("o0"), Head(1, 7))
    fetching.held(NodeId("o0"), Head(1, 5))
    assert asks(fetching, 0.1) == {A: ["o0"]}
    fetching.held(NodeId("o0"), Head(2, 1))
    assert len(fetching) == 0


def test_a_lost_neighbour_is_replaced_at_once():
    fetching = offered(2, A, B)
    assert asks(fetching, 0.0) == {A: ["o0", "o1"]}
    fetching.forget_peer(A)
    assert asks(fetching, 0.0) == {B: ["o0", "o1"]}
    fetching.forget_peer(B)
    assert len(fetching) == 0
    assert asks(fetching, 0.0) == {}


def test_a_feed_that_comes_in_drips_is_asked_of_the_next_in_the_end():
    fetching = offered(1, A, B)
    asks(fetching, 0.0)
    now_s = 0.0
    while not (asked := asks(fetching, now_s)):
        now_s += 1.0
        fetching.came(A, NodeId("o0"), now_s)
    assert asked == {B: ["o0"]}
    assert now_s == LONGEST_S


def test_parts_from_somebody_else_do_not_prolong_the_wait_for_who_was_asked():
    fetching = offered(1, A, B)
    asks(fetching, 0.0)
    fetching.came(B, NodeId("o0"), AGAIN_S - 0.1)
    assert asks(fetching, AGAIN_S) == {B: ["o0"]}


def test_who_offers_thousands_of_feeds_and_sends_none_keeps_nobody_else_waiting():
    fetching = offered(OFFERED_MAX, A)
    asks(fetching, 0.0)
    fetching.offered(B, NodeId("wanted"), Head(1, 5))
    assert asks(fetching, 0.1) == {B: ["wanted"]}


def test_who_offers_a_feed_again_and_again_and_never_sends_it_is_asked_after_the_others():
    fetching = offered(LOOK_MAX, A, B)
    came: set[NodeId] = set()
    for turn in range(2 * LOOK_MAX // IN_FLIGHT_MAX):
        for origin in asks(fetching, turn * AGAIN_S).get(B, ()):
            came.add(origin)
            fetching.held(origin, Head(1, 5))
        for number in range(LOOK_MAX):
            if NodeId(f"o{number}") not in came:
                fetching.offered(A, NodeId(f"o{number}"), Head(9, 9))
    assert len(came) == LOOK_MAX


def test_so_many_offers_of_one_neighbour_are_remembered_and_no_more():
    assert len(offered(OFFERED_MAX + 3, A)) == OFFERED_MAX
