"""Who lists whom, and what can be reached from here."""

from random import Random

import pytest

from meshnode.core.ids import NodeId, short_id_of
from meshnode.core.links import linkgraph
from meshnode.core.links.linkgraph import HOPS_MAX, PEERS_MAX, LinkGraph, Standing, standing_of

A, B, C, D, E, F = (NodeId(name) for name in "abcdef")


def marks(peers: str) -> frozenset[bytes]:
    return frozenset(short_id_of(peer) for peer in peers)


def graph_of(links: str, **lists: str) -> LinkGraph:
    """`b="ac"`: b says to be linked to a and c. We are a."""
    graph = LinkGraph(A)
    for peer in links:
        graph.add_link(NodeId(peer))
    for name, peers in lists.items():
        graph.hear(NodeId(name), Standing("up", marks(peers)))
    return graph


def reached(graph: LinkGraph) -> str:
    return "".join(sorted(graph.reached))


def line_of(count: int) -> tuple[LinkGraph, list[NodeId]]:
    """Ourselves at one end, the others in a row."""
    nodes = [A, *(NodeId(f"n{place:04}") for place in range(1, count))]
    graph = LinkGraph(A)
    graph.add_link(nodes[1])
    for place in range(1, count):
        ends = nodes[place - 1 : place] + nodes[place + 1 : place + 2]
        graph.hear(nodes[place], Standing("up", frozenset(short_id_of(end) for end in ends)))
    return graph, nodes


def test_a_new_edge_brings_whatever_hangs_on_it_into_reach():
    graph = graph_of("b", b="a", c="bd", d="c")
    assert reached(graph) == "ab"
    graph.take_changes()
    graph.hear(B, Standing("up", marks("ac")))
    assert graph.take_changes() == {C, D}
    assert reached(graph) == "abcd"


def test_a_lost_edge_of_a_circle_changes_nothing():
    graph = graph_of("bd", b="ac", c="bd", d="ac")
    graph.take_changes()
    for peers in ("bd", "b", "bd", "d"):  # each edge of c goes once: one of them was of the tree
        graph.hear(C, Standing("up", marks(peers)))
        assert reached(graph) == "abcd"
    assert graph.take_changes() == set()


def test_a_lost_bridge_takes_whatever_is_behind_it():
    graph = graph_of("b", b="ac", c="bde", d="ce", e="cd")
    graph.take_changes()
    graph.hear(B, Standing("up", marks("a")))
    assert graph.take_changes() == {C, D, E}
    assert reached(graph) == "ab"


def test_what_is_lost_and_returns_before_anybody_asks_has_not_changed():
    graph = graph_of("b", b="ac", c="b")
    graph.take_changes()
    graph.drop_link(B)
    graph.add_link(B)
    assert graph.take_changes() == set()
    assert reached(graph) == "abc"


@pytest.mark.parametrize("word", ["down", "left"])
def test_no_path_leads_through_a_member_that_is_not_up(word: str):
    graph = graph_of("b", b="ac", c="b")
    graph.hear(B, Standing(word, marks("ac")))
    assert reached(graph) == "a"
    graph.hear(B, Standing("up", marks("ac")))
    assert reached(graph) == "abc"


def test_our_links_replace_what_our_own_row_says():
    graph = graph_of("b", b="a", c="a")
    graph.hear(A, Standing("down", marks("c")))
    assert reached(graph) == "ab"
    graph.drop_link(B)
    graph.add_link(C)
    assert reached(graph) == "ac"
    assert graph.links == {C}


def test_a_link_to_a_member_whose_row_comes_later_counts_then():
    graph = graph_of("b")
    assert reached(graph) == "a"
    graph.hear(B, Standing("up", marks("a")))
    assert reached(graph) == "ab"


def test_a_row_that_lists_everybody_itself_and_nobody_known_wins_only_what_is_confirmed():
    graph = graph_of("b", b="abcdef!?", c="b", d="", e="f", f="e")
    assert reached(graph) == "abc"
    assert graph.neighbours(B) == [A, C]


def test_of_a_row_that_lists_too_many_the_first_are_read():
    listed = sorted(short_id_of(str(place)) for place in range(PEERS_MAX + 2000))
    standing = Standing("up", frozenset(listed), frozenset(listed))
    assert standing.peers == standing.stalled == frozenset(listed[:PEERS_MAX])
    exact = frozenset(listed[:PEERS_MAX])
    assert Standing("up", exact).peers is exact


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch) -> None:
    """B and E have the same short id."""
    monkeypatch.setattr(
        linkgraph, "mark_of", lambda peer: short_id_of("b" if peer == "e" else peer)
    )


@pytest.mark.usefixtures("twins")
def test_of_two_with_the_same_short_id_the_first_known_keeps_it():
    graph = graph_of("be", b="ac", e="ad", c="b", d="b")
    assert reached(graph) == "abc"
    assert graph.path(E) == ()
    assert graph.neighbours(E) == []
    graph.drop_link(B)
    assert reached(graph) == "a"


@pytest.mark.usefixtures("twins")
def test_a_link_to_the_second_of_two_with_the_same_short_id_is_no_edge_to_the_first():
    graph = graph_of("e", b="a", e="a")
    assert reached(graph) == "a"


def test_a_path_is_a_shortest_one_and_ends_at_the_target():
    graph = graph_of("bc", b="ad", c="ae", d="be", e="cdf", f="e")
    assert graph.path(B) == (B,)
    assert graph.path(F) == (C, E, F)
    assert graph.path(F, avoid={C}) == (B, D, E, F)
    assert graph.path(F, avoid={C, D}) == ()
    assert graph.path(F, avoid={F}) == (C, E, F)
    assert graph.path(A) == graph.path(NodeId("x")) == ()


def test_of_equal_paths_the_same_is_always_taken():
    lists = {"b": "af", "c": "af", "d": "af", "e": "af", "f": "bcde"}
    paths = set()
    for seed in range(20):
        names = list(lists)
        Random(seed).shuffle(names)
        paths.add(graph_of("bcde", **{name: lists[name] for name in names}).path(F))
    assert len(paths) == 1


def test_a_path_has_at_most_so_many_hops_though_the_member_is_alive():
    graph, nodes = line_of(HOPS_MAX + 2)
    assert len(graph.reached) == HOPS_MAX + 2
    assert graph.path(nodes[HOPS_MAX]) == tuple(nodes[1 : HOPS_MAX + 1])
    assert graph.path(nodes[HOPS_MAX + 1]) == ()


def test_another_neighbour_of_a_silent_one_is_found_without_passing_through_it():
    graph = graph_of("bc", b="ad", c="ad", d="bc")
    assert graph.path_to_neighbour_of(B) == (C, D)
    assert graph.path_to_neighbour_of(B, avoid={D}) == ()
    assert graph.path_to_neighbour_of(D) == (B,)
    assert graph.path_to_neighbour_of(D, avoid={B}) == (C,)


def test_a_neighbour_is_found_though_our_own_link_to_it_is_gone():
    graph = graph_of("c", b="ac", c="ab")
    assert graph.path_to_neighbour_of(B, avoid={B}) == (C,)


def test_nobody_is_asked_who_only_claims_to_be_a_neighbour():
    graph = graph_of("bc", b="a", c="ab")
    assert graph.path_to_neighbour_of(B) == ()
    assert graph.path_to_neighbour_of(NodeId("x")) == ()


def test_a_long_branch_falls_and_is_tied_at_its_other_end():
    graph, nodes = line_of(300)
    graph.take_changes()
    last, first = nodes[-1], nodes[1]
    graph.hear(last, Standing("up", frozenset(short_id_of(end) for end in (nodes[-2], A))))
    graph.add_link(last)
    graph.drop_link(first)
    assert graph.take_changes() == set()
    assert graph.path(first) == ()
    assert len(graph.reached) == 300
    graph.drop_link(last)
    assert graph.take_changes() == set(nodes[1:])


@pytest.mark.parametrize("links", ["bc", "abc"])  # also with a link to ourselves
def test_a_tree_that_was_grown_anew_reaches_the_same(links: str):
    graph = graph_of(links, b="acd", c="abd", d="bc")
    graph.take_changes()
    for _ in range(20):
        for peer in (B, C):
            graph.drop_link(peer)
            assert reached(graph) == "abcd"
            graph.add_link(peer)
    assert graph.take_changes() == set()


def test_what_is_said_no_longer_is_kept_by_nobody():
    held = standing_of("up", frozenset({b"12345678"}))
    assert standing_of("up", frozenset([b"12345678"])) is held
    before = len(linkgraph._standings)
    for number in range(1000):
        standing_of("up", frozenset({b"%08d" % number}))
    assert len(linkgraph._standings) == before
