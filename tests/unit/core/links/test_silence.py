"""When a link counts as silent, and what another neighbour's word is worth."""

import pytest

from meshnode.core.effects import Send
from meshnode.core.feeds.messages import Pulse
from meshnode.core.ids import NodeId
from meshnode.core.links.silence import (
    CHECK_S,
    LISTEN_S,
    PULSE_S,
    SILENT_S,
    VOUCHED_S,
    Silences,
    Verdict,
)

ANNA, BERT = NodeId("anna"), NodeId("bert")
NOTHING = Verdict([], [])
LATE_S = SILENT_S + 0.001


@pytest.fixture
def silences() -> Silences:
    silences = Silences()
    silences.linked(ANNA, 0.0)
    return silences


def test_a_peer_is_doubted_after_three_intervals_and_not_before(silences: Silences):
    assert silences.judge(SILENT_S) == NOTHING
    assert silences.judge(LATE_S) == Verdict([ANNA], [])


def test_a_peer_that_nobody_vouches_for_is_silent(silences: Silences):
    silences.judge(LATE_S)
    assert silences.judge(LATE_S + CHECK_S - 0.01) == NOTHING
    assert silences.judge(LATE_S + CHECK_S) == Verdict([], [ANNA])


def test_any_frame_is_a_sign_of_life(silences: Silences):
    silences.judge(LATE_S)
    assert silences.heard(ANNA, LATE_S + 0.1)
    assert silences.judge(LATE_S + CHECK_S) == NOTHING
    assert silences.judge(LATE_S + 0.2 + SILENT_S) == Verdict([ANNA], [])


def test_a_frame_that_outlived_its_link_is_none(silences: Silences):
    silences.unlinked(ANNA)
    assert not silences.heard(ANNA, 1.0)
    assert silences.heard_ago_s(ANNA, 1.0) is None
    assert silences.judge(99.0) == NOTHING


@pytest.mark.parametrize("word", [None, SILENT_S + 0.1])
def test_another_neighbour_that_does_not_hear_it_either_changes_nothing(
    silences: Silences, word: float | None
):
    silences.judge(LATE_S)
    silences.answered(ANNA, word)
    assert silences.judge(LATE_S + CHECK_S) == Verdict([], [ANNA])


def test_a_peer_that_others_hear_is_given_time_and_let_go_in_the_end(silences: Silences):
    now_s, asked = LATE_S, 0
    while not (verdict := silences.judge(now_s)).silent:
        asked += len(verdict.doubted)
        for _ in verdict.doubted:
            silences.answered(ANNA, 0.5)
        now_s += 0.25
    assert verdict.silent == [ANNA]
    assert SILENT_S + VOUCHED_S < now_s <= SILENT_S + VOUCHED_S + 0.3
    assert asked == pytest.approx(VOUCHED_S / PULSE_S, abs=1)


@pytest.mark.parametrize(("ago_s", "again_s"), [(2.9, CHECK_S), (2.25, 0.75), (0.1, PULSE_S)])
def test_who_vouches_is_asked_again_when_it_may_have_lost_it_too(
    silences: Silences, ago_s: float, again_s: float
):
    silences.judge(LATE_S)
    silences.answered(ANNA, ago_s)
    assert silences.judge(LATE_S + again_s - 0.01) == NOTHING
    assert silences.judge(LATE_S + again_s) == Verdict([ANNA], [])
    silences.answered(ANNA, None)
    assert silences.judge(LATE_S + again_s + CHECK_S) == Verdict([], [ANNA])


def test_one_that_hears_it_outweighs_one_that_does_not(silences: Silences):
    silences.judge(LATE_S)
    silences.answered(ANNA, 0.5)
    silences.answered(ANNA, None)
    assert silences.judge(LATE_S + CHECK_S) == NOTHING


def test_words_about_a_peer_that_is_not_doubted_are_not_kept(silences: Silences):
    silences.answered(ANNA, 0.0)
    silences.answered(BERT, 0.0)
    silences.judge(LATE_S)
    assert silences.judge(LATE_S + CHECK_S) == Verdict([], [ANNA])


def test_a_node_that_was_held_up_listens_before_it_judges(silences: Silences):
    silences.linked(BERT, 19.5)
    silences.forgive(20.0)
    assert silences.judge(20.0 + LISTEN_S) == NOTHING
    assert silences.heard_ago_s(BERT, 20.0) == 0.5
    assert silences.judge(20.0 + LISTEN_S + 0.01) == Verdict([ANNA], [])


def test_pulses_go_to_everybody_also_to_the_doubted_and_are_counted(silences: Silences):
    silences.linked(BERT, 2.0)
    silences.judge(LATE_S)
    assert silences.pulses() == [Send(ANNA, Pulse(1)), Send(BERT, Pulse(1))]
    assert silences.pulses() == [Send(ANNA, Pulse(2)), Send(BERT, Pulse(2))]
