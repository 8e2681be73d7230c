"""Feeds are asked for a few at a time, of one neighbour each, and of the next if none comes."""

from meshnode.core.fetching import AGAIN_S, IN_FLIGHT_MAX, OFFERS_MAX, Fetching
from meshnode.core.headers import Head
from meshnode.core.ids import NodeId

A, B = NodeId("a"), NodeId("b")


def offered(count: int, *peers: NodeId) -> Fetching:
    fetching = Fetching()
    for peer in peers:
        for number in range(count):
            fetching.offered(peer, NodeId(f"o{number}"), Head(1, 5), 0.0)
    return fetching


def test_a_neighbour_is_asked_for_a_few_and_then_for_the_next():
    fetching = offered(IN_FLIGHT_MAX + 2, A)
    asked = fetching.asks(0.0)[A]
    assert len(asked) == IN_FLIGHT_MAX
    assert fetching.asks(0.1) == {}
    fetching.held(asked[0], Head(1, 5))
    assert fetching.asks(0.2) == {A: [NodeId(f"o{IN_FLIGHT_MAX}")]}


def test_what_two_offer_is_asked_of_one_and_both_are_kept_busy():
    fetching = offered(IN_FLIGHT_MAX * 2, A, B)
    asks = fetching.asks(0.0)
    assert len(asks[A]) == len(asks[B]) == IN_FLIGHT_MAX
    assert not set(asks[A]) & set(asks[B])


def test_who_does_not_answer_is_not_asked_again_and_the_next_is():
    fetching = offered(1, A, B)
    assert fetching.asks(0.0) == {A: ["o0"]}
    assert fetching.asks(AGAIN_S - 0.1) == {}
    assert fetching.asks(AGAIN_S) == {B: ["o0"]}
    assert fetching.asks(9.0) == {}
    assert len(fetching) == 0  # until somebody offers it anew
    fetching.offered(A, NodeId("o0"), Head(1, 5), 9.0)
    assert fetching.asks(9.0) == {A: ["o0"]}


def test_who_sends_a_feed_in_parts_is_waited_for():
    fetching = offered(1, A, B)
    fetching.asks(0.0)
    for number in range(1, 9):
        fetching.came(NodeId("o0"), number * AGAIN_S / 2)
        assert fetching.asks(number * AGAIN_S / 2 + 0.1) == {}


def test_a_feed_that_grew_meanwhile_is_asked_for_again():
    fetching = offered(1, A)
    fetching.asks(0.0)
    fetching.offered(A, NodeId("o0"), Head(1, 7), 0.0)
    fetching.held(NodeId("o0"), Head(1, 5))
    assert fetching.asks(0.1) == {A: ["o0"]}
    fetching.held(NodeId("o0"), Head(2, 1))
    assert len(fetching) == 0


def test_a_lost_neighbour_is_replaced_at_once():
    fetching = offered(2, A, B)
    assert fetching.asks(0.0) == {A: ["o0", "o1"]}
    fetching.forget_peer(A)
    assert fetching.asks(0.0) == {B: ["o0", "o1"]}
    fetching.forget_peer(B)
    assert len(fetching) == 0
    assert fetching.asks(0.0) == {}


def test_so_many_holders_of_a_feed_are_remembered_and_no_more():
    fetching = offered(1, *(NodeId(f"p{number}") for number in range(OFFERS_MAX + 3)))
    asked = set()
    for turn in range(OFFERS_MAX + 3):
        asked |= fetching.asks(turn * AGAIN_S).keys()
    assert len(asked) == OFFERS_MAX
    assert len(fetching) == 0
