"""Messages along a route: each relay checks its own step, and takes a share of what comes."""

import pytest

from meshnode.core.errors import PeerError
from meshnode.core.feeds.messages import Ask, Heard, Routed
from meshnode.core.ids import NodeId
from meshnode.core.links.relay import (
    ANSWERED_WITHIN_S,
    ORDERS_MAX,
    ORDERS_OF_NEIGHBOUR_MAX,
    ORDERS_OF_SENDER_BURST,
    ORDERS_OF_SENDER_MAX,
    ORDERS_OF_SENDER_PER_S,
    ROUTE_MAX,
    Turnstile,
    answer,
    back,
    next_hop,
    onward,
    sent,
)

NODES = [NodeId(f"n{number}") for number in range(ROUTE_MAX + 1)]
A, B, C, D = NODES[:4]
ASK = Ask(D)


def test_a_message_goes_from_hop_to_hop_and_its_answer_back():
    message = sent(A, (B, C, D), ASK)
    assert next_hop(B, A, message) == C
    message = onward(message)
    assert next_hop(C, B, message) == D
    message = onward(message)
    assert next_hop(D, C, message) is None
    assert message.body == ASK
    reply = answer(back(message), Heard(D, 1.0))
    for here, before, after in ((C, D, B), (B, C, A), (A, B, None)):
        assert next_hop(here, before, reply) == after
        reply = onward(reply)


def test_a_relay_that_cannot_go_on_answers_from_where_it_is():
    message = onward(sent(A, (B, C, D), ASK))
    assert back(message) == (C, B, A)


@pytest.mark.parametrize(
    "message",
    [
        Routed((A, B), 0, ASK),
        Routed((A, B), 2, ASK),
        Routed((A, C, B), 1, ASK),
        Routed((C, B, A), 1, ASK),
        Routed((A, B, A), 1, ASK),
        Routed((A, B, C, B), 1, ASK),
        Routed((A, B, *NODES[2:]), 1, ASK),
        Routed((), 0, ASK),
    ],
)
def test_a_route_that_is_no_route_is_refused(message: Routed):
    with pytest.raises(PeerError):
        next_hop(B, A, message)


def test_the_longest_route_is_allowed():
    assert next_hop(NODES[1], A, Routed(tuple(NODES[:ROUTE_MAX]), 1, ASK)) == C


def passed(turnstile: Turnstile, peer: NodeId, sender: NodeId, numbers, now_s: float) -> int:
    """Count how many of these orders pass."""
    return sum(not turnstile.refusal(peer, sender, number, now_s) for number in numbers)


def test_a_sender_has_a_share_and_its_answers_make_room():
    turnstile = Turnstile()
    assert passed(turnstile, B, A, range(40), 0.0) == ORDERS_OF_SENDER_MAX
    assert turnstile.refusal(B, A, 99, 0.0) == f"{ORDERS_OF_SENDER_MAX} of one sender are under way"
    turnstile.answered(B, A, 0)
    turnstile.answered(B, A, 0)  # once is enough
    assert passed(turnstile, B, A, range(50, 52), 0.0) == 1


def test_a_neighbour_that_makes_up_senders_has_a_share_too():
    turnstile = Turnstile()
    made_up = [NodeId(f"made{number}") for number in range(50)]
    assert sum(passed(turnstile, B, one, range(9), 0.0) for one in made_up) == (
        ORDERS_OF_NEIGHBOUR_MAX
    )
    assert passed(turnstile, C, A, range(9), 0.0) == 9


def test_naming_an_honest_sender_takes_nothing_from_it():
    turnstile = Turnstile()
    assert passed(turnstile, B, A, range(100), 0.0) == ORDERS_OF_SENDER_MAX
    assert passed(turnstile, C, A, range(10), 0.0) == 10


def test_all_together_are_bounded_and_what_nobody_answers_is_forgotten():
    turnstile = Turnstile()
    peers = [NodeId(f"peer{number}") for number in range(20)]
    assert sum(passed(turnstile, one, A, range(30), 0.0) for one in peers) == ORDERS_MAX
    assert passed(turnstile, peers[0], A, range(100, 101), ANSWERED_WITHIN_S - 0.1) == 0
    assert passed(turnstile, peers[0], A, range(100, 101), ANSWERED_WITHIN_S) == 1
    assert len(turnstile._under_way) == 1
    assert sum(turnstile._of_neighbour.values()) == sum(turnstile._of_sender.values()) == 1


def test_quick_answers_do_not_lift_the_rate():
    turnstile, through = Turnstile(), 0
    for number in range(5000):
        if not turnstile.refusal(B, A, number, number * 0.001):
            through += 1
            turnstile.answered(B, A, number)
    assert through <= ORDERS_OF_SENDER_BURST + 5 * ORDERS_OF_SENDER_PER_S
    assert turnstile._of_sender == {}


def test_the_same_number_twice_at_a_time_is_refused():
    turnstile = Turnstile()
    assert passed(turnstile, B, A, [7, 7], 0.0) == 1
