"""Counters of a node: what they count, and that nobody can make them grow without bound."""

from random import Random

import pytest
from msgspec.structs import replace

from meshnode.app.cost.cost import CostGroup
from meshnode.app.counting import (
    MODELS_MAX,
    OTHERS,
    OUTCOMES_MAX,
    SPREAD_S_MAX,
    Charges,
    Counting,
    Histogram,
)
from meshnode.core.commands.commands import NODE_ACTIONS, SESSION_ACTIONS
from meshnode.core.feeds.feed import Change
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.ids import NodeId, SessionId
from meshnode.core.keys import Key
from meshnode.core.ledger.ledger import Buckets
from meshnode.core.links.liveness import MemberState
from meshnode.core.membership.genesis import Genesis
from meshnode.core.membership.members import NODE, ONLY_ROW, NodeRecord, node_to_row
from meshnode.core.sessions.sessions import SessionRecord, State

KEY = Key.new(Random(7).randbytes)
GENESIS = Genesis((KEY.public,), 1, "test", bytes(16))
OTHER = NodeId("other")
RECORD = SessionRecord(SessionId("s"), 1, "a", State.RUNNING, 100.0, 100.0, message_count=3)


def counting():
    return Counting(NodeId("me"), lambda: 200.0)


def test_a_histogram_counts_what_is_at_most_each_bound():
    histogram = Histogram((1.0, 10.0))
    for value in (0.5, 1.0, 5.0, 50.0):
        histogram.add(value)
    assert histogram.cumulative() == [("1", 2), ("10", 3), ("+Inf", 4)]
    assert histogram.total == 56.5


def test_a_session_is_counted_when_it_is_made_and_once_when_it_ends():
    counts = counting()
    counts.session(None, RECORD)
    counts.session(RECORD, replace(RECORD, message_count=4))
    failed = replace(RECORD, state=State.FAILED, ended_at_s=160.0, signal="SIGSEGV")
    counts.session(RECORD, failed)
    counts.session(failed, replace(failed, orders=("x",)))
    assert counts.sessions_created == 1
    assert counts.session_seconds.total == 60.0
    assert counts.messages_per_session.total == 3
    assert counts.session_errors == {"failed": 0, "signal": 1}
    counts.session(RECORD, replace(RECORD, state=State.EXPIRED, ended_at_s=101.0))
    assert counts.session_timeouts == 1


def test_what_strangers_send_makes_no_endless_labels():
    counts = counting()
    for number in range(1000):
        counts.command(f"action{number}", f"outcome{number}", None)
    counts.command("steer", "delivered", 0.02)
    assert {action for action, _ in +counts.commands} <= {"other", "steer"}
    assert len(counts.commands) <= OUTCOMES_MAX * 4 + 2
    assert sum(counts.commands.values()) == 1001


def test_what_is_undecided_is_counted_from_nought_on():
    counts = counting()
    undecided = {(action, "indeterminate"): 0 for action in SESSION_ACTIONS | NODE_ACTIONS}
    assert counts.commands == undecided
    counts.command("steer", "indeterminate", None)
    assert counts.commands == undecided | {("steer", "indeterminate"): 1}


def test_a_suspicion_is_confirmed_or_refuted():
    counts = counting()
    counts.member(OTHER, None, MemberState.ALIVE)
    counts.member(OTHER, MemberState.UNREACHABLE, MemberState.ALIVE)
    counts.member(OTHER, MemberState.UNREACHABLE, MemberState.DEAD)
    counts.member(OTHER, MemberState.DEAD, MemberState.ALIVE)
    assert counts.accusations == {"confirmed": 1, "refuted": 1}


def test_who_was_not_heard_since_the_start_is_under_no_suspicion():
    counts = counting()
    for peer, after in ((OTHER, MemberState.DEAD), (NodeId("first"), MemberState.ALIVE)):
        counts.member(peer, None, MemberState.UNREACHABLE)
        counts.member(peer, MemberState.UNREACHABLE, after)
    assert counts.accusations == {"confirmed": 0, "refuted": 0}
    counts.member(OTHER, MemberState.ALIVE, MemberState.STALLED)
    counts.member(OTHER, MemberState.STALLED, MemberState.DEAD)
    assert counts.accusations == {"confirmed": 1, "refuted": 0}


def spent(**tokens: int) -> dict[str, CostGroup]:
    return {model: charged(Buckets(input=count), count) for model, count in tokens.items()}


def charged(usage: Buckets, nusd: int | None) -> CostGroup:
    return CostGroup({}, 1, 1, (), usage, nusd)


def tokens(charges: Charges) -> dict[str, int]:
    return {model: one.usage.input for model, one in charges.by_model.items()}


def test_models_beyond_the_bound_are_counted_together_and_named_ones_keep_their_names():
    charges = Charges()
    many = {f"m{number}": number + 1 for number in range(MODELS_MAX + 50)}
    charges.take(spent(**many))
    assert len(charges.by_model) == MODELS_MAX + 1
    assert tokens(charges)["m50"] == 51
    assert "m49" not in charges.by_model
    assert tokens(charges)[OTHERS] == sum(range(1, 51))
    charges.take(spent(**many, late=10**9))
    assert "late" not in charges.by_model
    assert sum(tokens(charges).values()) == sum(many.values()) + 10**9
    assert charges.by_model[OTHERS].nusd == sum(range(1, 51)) + 10**9


def test_no_figure_falls_while_a_node_runs():
    charges = Charges()
    charges.take(spent(m=100, n=5))
    charges.take({"m": charged(Buckets(input=90, output=7), None)})
    assert charges.by_model["m"].usage == Buckets(input=100, output=7)
    assert (charges.by_model["m"].nusd, tokens(charges)["n"]) == (100, 5)


def flushed(at_s: float) -> Change:
    """Hear of something that another node signed at that time, as it says."""
    feed = OwnFeed(KEY, GENESIS.mesh_id, GENESIS.limits, 1)
    feed.write(NODE, ONLY_ROW, node_to_row(NodeRecord("n")))
    change = feed.flush(at_s)
    assert change is not None
    return change


@pytest.mark.parametrize(
    ("at_s", "counted_s"), [(-1e308, SPREAD_S_MAX), (-5.0, 205.0), (199.5, 0.5), (1e308, 0.0)]
)
def test_no_member_can_drown_how_long_news_takes(at_s, counted_s):
    counts = counting()
    for _ in range(3):
        counts.change(flushed(at_s))
    assert counts.dissemination_seconds.total == 3 * counted_s
    assert sum(counts.dissemination_seconds.counts) == 3
