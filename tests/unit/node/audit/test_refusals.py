"""A peer that talks nonsense fills no log."""

from meshnode.node.audit.refusals import PEERS_MAX, REFUSALS_MAX, Refusals


def test_one_refusal_a_second_is_logged_with_the_count_of_the_others():
    refusals = Refusals()
    verdicts = [refusals.note("anna", 10.0 + number / 100) for number in range(50)]
    assert [verdict.logged for verdict in verdicts] == [True] + [False] * 49
    later = refusals.note("anna", 11.0)
    assert (later.logged, later.unlogged) == (True, 49)
    assert not any(verdict.is_too_much for verdict in (*verdicts, later))


def test_too_many_within_a_second_end_the_link_once():
    refusals = Refusals()
    verdicts = [refusals.note("anna", 10.0) for _ in range(3 * REFUSALS_MAX)]
    assert [n for n, verdict in enumerate(verdicts, 1) if verdict.is_too_much] == [REFUSALS_MAX]


def test_peers_are_counted_apart_and_their_number_is_bounded():
    refusals = Refusals()
    assert all(refusals.note(f"peer{number}", 10.0).logged for number in range(PEERS_MAX + 50))
    assert len(refusals._windows) == PEERS_MAX
