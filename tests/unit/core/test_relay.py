"""Messages along a route: each relay checks its own step."""

import pytest

from meshnode.core.errors import PeerError
from meshnode.core.ids import NodeId
from meshnode.core.messages import Ask, Heard, Routed
from meshnode.core.relay import ROUTE_MAX, answer, back, next_hop, onward, sent

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
