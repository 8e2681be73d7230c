"""Who is reachable, by who says to be linked to whom."""

import pytest

from meshnode.core.ids import NodeId, short_id_of
from meshnode.core.links import linkgraph
from meshnode.core.links import liveness as core
from meshnode.core.links.linkgraph import Standing
from meshnode.core.links.liveness import DEAD_AFTER_S, Liveness, MemberState

A, B, C, D, E = (NodeId(name) for name in "abcde")


def up(peers: str, stalled: str = "") -> Standing:
    return Standing("up", marks(peers), marks(stalled))


def marks(peers: str) -> frozenset[bytes]:
    return frozenset(short_id_of(peer) for peer in peers)


def seen_from_a(links: str, **lists: str) -> Liveness:
    """`b="ac"`: b says to be linked to a and c. Nothing is judged yet; no link of ours is new."""
    liveness = Liveness(A)
    for peer in links:
        liveness.graph.add_link(NodeId(peer))
        liveness.graph.age_link(NodeId(peer))
    for name, peers in lists.items():
        liveness.hear(NodeId(name), up(peers))
    return liveness


def alive_from_a(links: str, **lists: str) -> str:
    liveness = seen_from_a(links, **lists)
    liveness.judge(0.0)
    alive = [peer for peer in liveness.members() if liveness.state(peer) is MemberState.ALIVE]
    assert set(alive) == liveness.alive
    return "".join(alive)


def lost_at(lost_s: float) -> Liveness:
    """B was alive, and lost its only edge."""
    liveness = seen_from_a("b", a="b", b="a")
    liveness.judge(0.0)
    liveness.graph.drop_link(B)
    assert liveness.judge(lost_s) == {B}
    return liveness


def test_an_edge_that_both_ends_list_counts():
    assert alive_from_a("b", a="b", b="a") == "ab"


def test_an_edge_that_one_end_lists_does_not_count():
    assert alive_from_a("b", a="b", b="") == "a"
    assert alive_from_a("", a="", b="a") == "a"


def test_a_new_link_of_ours_counts_before_the_other_end_lists_it_and_no_longer_than_it_is_new():
    liveness = seen_from_a("", a="", b="c", c="b")
    liveness.judge(0.0)
    liveness.graph.add_link(B)
    assert liveness.judge(1.0) == {B, C}  # what b says of its other links is old, and true
    assert liveness.graph.path(C) == (B, C)
    liveness.graph.age_link(B)
    assert liveness.judge(5.0) == {B, C}
    assert liveness.alive == {A}
    liveness.hear(B, up("ac"))
    liveness.judge(6.0)
    assert liveness.alive == {A, B, C}


def test_a_new_link_to_who_is_down_or_not_known_does_not_count():
    liveness = seen_from_a("", a="")
    liveness.graph.add_link(B)
    liveness.judge(0.0)
    assert liveness.alive == {A}
    liveness.hear(B, Standing("down", marks("")))
    liveness.judge(1.0)
    assert liveness.alive == {A}
    liveness.hear(B, up(""))
    assert liveness.judge(2.0) == {B}


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


def test_we_are_a_member_once_our_own_record_is_known():
    assert alive_from_a("b", b="a") == "b"


@pytest.mark.parametrize("word", ["down", "left"])
def test_we_are_alive_to_ourselves_whatever_our_row_says(word: str):
    liveness = seen_from_a("b", b="a")
    liveness.hear(A, Standing(word, frozenset()))
    liveness.judge(0.0)
    assert liveness.alive == {A, B}


@pytest.mark.parametrize("word", ["down", "left"])
def test_what_a_member_says_about_itself_stands_and_no_path_leads_through_it(word: str):
    liveness = seen_from_a("b", a="b", b="ac", c="b")
    liveness.hear(B, Standing(word, marks("ac")))
    liveness.judge(0.0)
    assert liveness.state(B) is MemberState(word)
    assert liveness.state(C) is MemberState.UNREACHABLE
    liveness.judge(DEAD_AFTER_S)
    assert liveness.state(B) is MemberState(word)


def test_a_lost_member_is_unreachable_at_once_and_dead_after_thirty_seconds():
    liveness = seen_from_a("b", a="b", b="a")
    assert liveness.judge(10.0) == {A, B}
    assert liveness.heard_at_s(B) == 10.0
    assert liveness.next_change_s(10.0) is None
    liveness.graph.drop_link(B)
    assert liveness.judge(20.0) == {B}
    assert liveness.state(B) is MemberState.UNREACHABLE
    assert liveness.next_change_s(20.0) == 20.0 + DEAD_AFTER_S
    assert liveness.judge(20.0 + DEAD_AFTER_S - 0.01) == set()
    assert liveness.judge(20.0 + DEAD_AFTER_S) == {B}
    assert liveness.state(B) is MemberState.DEAD
    assert liveness.next_change_s(60.0) is None
    assert liveness.heard_at_s(B) == 20.0  # until it was lost
    assert liveness.heard_at_s(A) == 20.0 + DEAD_AFTER_S


@pytest.mark.parametrize("tenths", range(1, 400, 7))
def test_the_announced_moment_of_death_is_the_moment_of_death(tenths: int):
    liveness = lost_at(tenths / 10 + 1e-7)
    dead_s = liveness.next_change_s(tenths / 10 + 1e-7)
    assert dead_s is not None
    liveness.judge(dead_s)
    assert liveness.state(B) is MemberState.DEAD


def test_members_lost_one_after_another_die_one_after_another():
    liveness = seen_from_a("bcd", b="a", c="a", d="a")
    liveness.judge(0.0)
    for at_s, peer in enumerate((C, B, D)):
        liveness.graph.drop_link(peer)
        liveness.judge(float(at_s))
    liveness.graph.add_link(C)
    assert liveness.judge(3.0) == {C}
    assert liveness.next_change_s(3.0) == 1.0 + DEAD_AFTER_S
    assert liveness.judge(1.0 + DEAD_AFTER_S) == {B}
    assert liveness.next_change_s(31.0) == 2.0 + DEAD_AFTER_S
    assert liveness.next_change_s(99.0) == 99.0


@pytest.mark.parametrize("away_s", [1.0, 500.0])
def test_a_member_is_alive_again_as_soon_as_a_path_returns(away_s: float):
    liveness = lost_at(1.0)
    liveness.judge(1.0 + away_s)
    liveness.graph.add_link(B)
    assert liveness.judge(2.0 + away_s) == {B}
    assert liveness.state(B) is MemberState.ALIVE


@pytest.mark.parametrize("word", ["down", "left"])
def test_a_member_that_is_up_again_but_not_linked_yet_has_its_thirty_seconds(word: str):
    liveness = seen_from_a("b", a="b", b="a")
    liveness.judge(0.0)
    liveness.graph.drop_link(B)
    liveness.hear(B, Standing(word, frozenset()))
    liveness.judge(1.0)
    liveness.hear(B, up(""))
    liveness.judge(1000.0)
    assert liveness.state(B) is MemberState.UNREACHABLE
    assert liveness.next_change_s(1000.0) == 1000.0 + DEAD_AFTER_S


def test_a_member_first_heard_of_has_thirty_seconds_to_be_reached():
    liveness = seen_from_a("", a="", b="")
    assert liveness.judge(0.0) == {A, B}
    assert liveness.state(B) is MemberState.UNREACHABLE
    liveness.judge(DEAD_AFTER_S)
    assert liveness.state(B) is MemberState.DEAD
    assert liveness.heard_at_s(B) is None


def test_an_isolated_viewer_calls_everybody_else_unreachable_and_itself_alive():
    liveness = seen_from_a("bcde", a="bcde", b="acde", c="abde", d="abce", e="abcd")
    liveness.judge(0.0)
    assert liveness.alive == {A, B, C, D, E}
    for peer in (B, C, D, E):
        liveness.graph.drop_link(peer)  # their rows, as last heard, still list us
    liveness.judge(5.0)
    assert liveness.alive == {A}
    assert {liveness.state(peer) for peer in (B, C, D, E)} == {MemberState.UNREACHABLE}


def test_of_somebody_never_heard_of_nothing_is_believed():
    assert Liveness(A).state(B) is MemberState.DEAD
    assert Liveness(A).heard_at_s(B) is None


def test_what_is_lost_and_back_between_two_judgements_has_not_changed():
    liveness = seen_from_a("b", a="b", b="a")
    liveness.judge(0.0)
    liveness.graph.drop_link(B)
    liveness.graph.add_link(B)
    assert liveness.judge(1.0) == set()
    assert liveness.next_change_s(1.0) is None


def test_a_member_that_we_lost_because_it_stalled_is_stalled():
    liveness = lost_at(1.0)
    liveness.set_stalled(marks("b"))
    assert liveness.judge(2.0) == {B}
    assert liveness.state(B) is MemberState.STALLED
    liveness.set_stalled(frozenset())
    liveness.judge(3.0)
    assert liveness.state(B) is MemberState.UNREACHABLE


def test_a_stalled_member_is_dead_thirty_seconds_after_it_was_lost_and_not_later():
    liveness = lost_at(1.0)
    liveness.set_stalled(marks("b"))
    liveness.judge(20.0)
    assert liveness.next_change_s(20.0) == 1.0 + DEAD_AFTER_S
    liveness.judge(1.0 + DEAD_AFTER_S)
    assert liveness.state(B) is MemberState.DEAD
    liveness.set_stalled(frozenset())
    liveness.set_stalled(marks("b"))
    assert liveness.judge(40.0) == set()


def test_a_member_that_a_path_leads_to_is_alive_whoever_calls_it_stalled():
    liveness = seen_from_a("bc", a="bc", b="ac", c="ab")
    liveness.hear(C, up("a", stalled="b"))
    liveness.set_stalled(marks("b"))
    liveness.judge(0.0)
    assert liveness.state(B) is MemberState.ALIVE


def test_the_word_of_somebody_alive_makes_a_lost_member_stalled():
    liveness = seen_from_a("b", a="b", b="a", c="b")
    liveness.hear(B, up("a", stalled="c"))
    liveness.judge(0.0)
    assert liveness.state(C) is MemberState.STALLED
    liveness.graph.drop_link(B)  # nobody hears its word any more
    assert liveness.judge(1.0) == {B, C}
    assert liveness.state(C) is MemberState.UNREACHABLE
    liveness.graph.add_link(B)
    assert liveness.judge(2.0) == {B, C}
    liveness.hear(B, up("a"))
    assert liveness.judge(3.0) == {C}
    assert liveness.state(C) is MemberState.UNREACHABLE


def test_who_says_to_be_linked_to_a_member_cannot_call_it_stalled():
    liveness = seen_from_a("b", a="b", b="a", c="")
    liveness.hear(B, up("ac", stalled="c"))
    liveness.judge(0.0)
    assert liveness.state(C) is MemberState.UNREACHABLE
    liveness.set_stalled(marks("c"))
    liveness.judge(1.0)
    assert liveness.state(C) is MemberState.STALLED
    liveness.graph.add_link(C)
    liveness.graph.age_link(C)
    liveness.judge(2.0)
    assert liveness.state(C) is MemberState.UNREACHABLE


def test_of_two_with_the_same_short_id_the_second_has_a_state_of_its_own_and_no_edges(
    monkeypatch: pytest.MonkeyPatch,
):
    for module in (linkgraph, core):
        monkeypatch.setattr(
            module, "mark_of", lambda peer: short_id_of("b" if peer == "e" else peer)
        )
    liveness = seen_from_a("be", a="be", b="a")
    liveness.hear(E, up("ac", stalled="c"))
    liveness.hear(E, up("ac"))
    liveness.set_stalled(marks("b"))
    liveness.judge(0.0)
    assert liveness.alive == {A, B}
    assert liveness.state(E) is MemberState.UNREACHABLE
    liveness.hear(E, Standing("left", frozenset()))
    liveness.judge(1.0)
    assert liveness.state(E) is MemberState.LEFT
