"""Who is reachable, by who says to be linked to whom."""

import pytest

from meshnode.core.ids import NodeId, short_id_of
from meshnode.core.liveness import DEAD_AFTER_S, Liveness, MemberState, Standing

A, B, C, D, E = (NodeId(name) for name in "abcde")
Edges = dict[NodeId, str]


def standings(**lists: str) -> dict[NodeId, Standing]:
    """`a="bc"`: a says to be linked to b and c."""
    return {
        NodeId(name): Standing("up", frozenset(short_id_of(peer) for peer in peers))
        for name, peers in lists.items()
    }


def seen_from_a(links: str, now_s: float = 0.0, **lists: str) -> dict[str, MemberState]:
    liveness = Liveness(A)
    liveness.update(standings(**lists), [NodeId(peer) for peer in links], now_s)
    return {str(peer): liveness.state(peer) for peer in liveness.members()}


def alive_from_a(links: str, **lists: str) -> str:
    states = seen_from_a(links, **lists)
    return "".join(peer for peer, state in states.items() if state is MemberState.ALIVE)


def test_an_edge_that_both_ends_list_counts():
    assert alive_from_a("b", a="b", b="a") == "ab"


def test_an_edge_that_one_end_lists_does_not_count():
    assert alive_from_a("b", a="b", b="") == "a"
    assert alive_from_a("", a="", b="a") == "a"


def test_a_member_is_alive_by_a_path_through_others():
    assert alive_from_a("b", a="b", b="ac", c="bd", d="c") == "abcd"
    assert alive_from_a("b", a="b", b="ac", c="bd", d="") == "abc"
    assert alive_from_a("b", a="b", b="a", c="d", d="c") == "ab"


def test_our_own_links_count_before_our_row_is_out():
    assert alive_from_a("b", a="", b="a") == "ab"
    assert alive_from_a("", a="b", b="a") == "a"


def test_a_node_without_edges_sees_itself_only():
    assert alive_from_a("", a="", b="c", c="b") == "a"


def test_somebody_who_wrote_no_row_yet_is_no_part_of_a_path():
    assert alive_from_a("b", a="b", b="ac", d="c") == "ab"


@pytest.mark.parametrize("word", ["down", "left"])
def test_what_a_member_says_about_itself_stands_and_no_path_leads_through_it(word: str):
    rows = standings(a="b", b="ac", c="b")
    rows[B] = Standing(word, rows[B].peers)
    liveness = Liveness(A)
    liveness.update(rows, [B], 0.0)
    assert liveness.state(B) is MemberState(word)
    assert liveness.state(C) is MemberState.UNREACHABLE


def test_a_lost_member_is_unreachable_at_once_and_dead_after_thirty_seconds():
    liveness = Liveness(A)
    liveness.update(standings(a="b", b="a"), [B], 10.0)
    assert liveness.heard_at_s(B) == 10.0
    assert liveness.next_change_s(10.0) is None
    assert liveness.update(standings(a="", b="a"), [], 20.0) == {B}
    assert liveness.state(B) is MemberState.UNREACHABLE
    assert liveness.next_change_s(20.0) == 20.0 + DEAD_AFTER_S
    assert liveness.update(standings(a="", b="a"), [], 20.0 + DEAD_AFTER_S - 0.01) == set()
    assert liveness.update(standings(a="", b="a"), [], 20.0 + DEAD_AFTER_S) == {B}
    assert liveness.state(B) is MemberState.DEAD
    assert liveness.next_change_s(60.0) is None
    assert liveness.heard_at_s(B) == 20.0  # until it was lost


@pytest.mark.parametrize("tenths", range(1, 400, 7))
def test_the_announced_moment_of_death_is_the_moment_of_death(tenths: int):
    lost_s = tenths / 10 + 1e-7
    liveness = Liveness(A)
    liveness.update(standings(a="b", b="a"), [B], 0.0)
    liveness.update(standings(a="", b="a"), [], lost_s)
    dead_s = liveness.next_change_s(lost_s)
    assert dead_s is not None
    liveness.update(standings(a="", b="a"), [], dead_s)
    assert liveness.state(B) is MemberState.DEAD


@pytest.mark.parametrize("away_s", [1.0, 500.0])
def test_a_member_is_alive_again_as_soon_as_a_path_returns(away_s: float):
    liveness = Liveness(A)
    liveness.update(standings(a="b", b="a"), [B], 0.0)
    liveness.update(standings(a="", b="a"), [], 1.0)
    liveness.update(standings(a="", b="a"), [], 1.0 + away_s)
    assert liveness.update(standings(a="b", b="a"), [B], 2.0 + away_s) == {B}
    assert liveness.state(B) is MemberState.ALIVE


@pytest.mark.parametrize("word", ["down", "left"])
def test_a_member_that_is_up_again_but_not_linked_yet_has_its_thirty_seconds(word: str):
    liveness = Liveness(A)
    rows = standings(a="b", b="a")
    liveness.update(rows, [B], 0.0)
    liveness.update({**rows, B: Standing(word, frozenset())}, [], 1.0)
    liveness.update({**rows, B: Standing("up", frozenset())}, [], 1000.0)
    assert liveness.state(B) is MemberState.UNREACHABLE
    assert liveness.next_change_s(1000.0) == 1000.0 + DEAD_AFTER_S


def test_a_member_first_heard_of_has_thirty_seconds_to_be_reached():
    states = seen_from_a("", a="", b="")
    assert states["b"] is MemberState.UNREACHABLE
    liveness = Liveness(A)
    liveness.update(standings(a="", b=""), [], 0.0)
    liveness.update(standings(a="", b=""), [], DEAD_AFTER_S)
    assert liveness.state(B) is MemberState.DEAD
    assert liveness.heard_at_s(B) is None


def test_an_isolated_viewer_calls_everybody_else_unreachable_and_itself_alive():
    liveness = Liveness(A)
    rows = standings(a="bcde", b="acde", c="abde", d="abce", e="abcd")
    liveness.update(rows, [B, C, D, E], 0.0)
    assert liveness.alive() == {A, B, C, D, E}
    liveness.update(rows, [], 5.0)  # their rows, as last heard, still list us
    assert liveness.alive() == {A}
    assert {liveness.state(peer) for peer in (B, C, D, E)} == {MemberState.UNREACHABLE}


def test_of_somebody_never_heard_of_nothing_is_believed():
    assert Liveness(A).state(B) is MemberState.DEAD
    assert Liveness(A).heard_at_s(B) is None
