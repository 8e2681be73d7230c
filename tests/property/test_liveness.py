"""The incremental view is the view that counting everything anew would give."""

from collections import deque
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshnode.core.ids import NodeId, short_id_of
from meshnode.core.links.linkgraph import HOPS_MAX, LinkGraph, Standing
from meshnode.core.links.liveness import DEAD_AFTER_S, Liveness, MemberState

NODES = [NodeId(name) for name in "abcdefghijkl"]
ME = NODES[0]
STRANGER = NodeId("x")
LOST = {MemberState.UNREACHABLE, MemberState.STALLED}

members = st.sampled_from(NODES)
some = st.frozensets(members, max_size=4)
hostile = st.frozensets(st.sampled_from([*NODES, STRANGER]), min_size=9)
words = st.sampled_from(["up", "up", "up", "up", "down", "left"])


def marks(peers: frozenset[NodeId]) -> frozenset[bytes]:
    return frozenset(short_id_of(peer) for peer in peers)


@dataclass
class Row:
    declared: str
    peers: frozenset[NodeId]
    stalled: frozenset[NodeId] = frozenset()


@dataclass
class Naive:
    """All that was said, and the states as of the last judgement, each from scratch."""

    links: set[NodeId] = field(default_factory=set)
    new: set[NodeId] = field(default_factory=set)  # of them
    stalled: frozenset[NodeId] = frozenset()
    rows: dict[NodeId, Row] = field(default_factory=dict)
    states: dict[NodeId, MemberState] = field(default_factory=dict)
    lost_at_s: dict[NodeId, float] = field(default_factory=dict)

    def lists(self, here: NodeId, other: NodeId) -> bool:
        if here == ME:
            return other in self.links
        row = self.rows.get(here)
        if row is None or row.declared != "up":
            return False
        return other in row.peers or (other == ME and here in self.new)

    def is_up(self, one: NodeId, other: NodeId) -> bool:
        return one != other and self.lists(one, other) and self.lists(other, one)

    def hops(self, avoid: frozenset[NodeId] = frozenset()) -> dict[NodeId, int]:
        """Return how far everybody is; `avoid` is walked to and not through."""
        hops, queue = {ME: 0}, deque([ME])
        while queue:
            here = queue.popleft()
            if here in avoid and here != ME:
                continue
            for other in NODES:
                if other not in hops and self.is_up(here, other):
                    hops[other] = hops[here] + 1
                    queue.append(other)
        return hops

    def judge(self, now_s: float) -> set[NodeId]:
        reached = self.hops()
        states = {peer: self.state(peer, reached, now_s) for peer in self.rows}
        changed = {peer for peer, state in states.items() if self.states.get(peer) != state}
        self.states = states
        return changed

    def state(self, peer: NodeId, reached: dict[NodeId, int], now_s: float) -> MemberState:
        declared = "up" if peer == ME else self.rows[peer].declared
        if declared != "up" or peer in reached:
            return MemberState.ALIVE if declared == "up" else MemberState(declared)
        before = self.states.get(peer)
        if before not in LOST | {MemberState.DEAD}:
            self.lost_at_s[peer] = now_s
        if now_s >= self.lost_at_s[peer] + DEAD_AFTER_S:
            return MemberState.DEAD
        blamed = any(
            peer in row.stalled and peer not in row.peers
            for other, row in self.rows.items()
            if other in reached and other != ME
        )
        if blamed or (peer in self.stalled and peer not in self.links):
            return MemberState.STALLED
        return MemberState.UNREACHABLE


class Views(RuleBasedStateMachine):
    """One node hears, links, unlinks and judges in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.naive = Naive()
        self.liveness = Liveness(ME)
        self.now_s = 0.0

    def hear(self, peer: NodeId, row: Row) -> None:
        self.naive.rows[peer] = row
        self.liveness.hear(peer, Standing(row.declared, marks(row.peers), marks(row.stalled)))

    @rule(peer=members, declared=words, peers=some | hostile, stalled=some)
    def hear_a_row(self, peer, declared, peers, stalled):
        self.hear(peer, Row(declared, peers, stalled))

    @rule(one=members, other=members, present=st.booleans())
    def an_edge_comes_or_goes(self, one, other, present):
        for here, there in ((one, other), (other, one)):
            if here == ME:
                self.link(there, present)
            else:
                row = self.naive.rows.get(here, Row("up", frozenset()))
                peers = row.peers | {there} if present else row.peers - {there}
                self.hear(here, Row(row.declared, peers, row.stalled))

    @rule(ends=st.lists(st.tuples(members, members), max_size=30))
    def many_edges_come(self, ends):
        for one, other in ends:
            self.an_edge_comes_or_goes(one, other, True)

    @precondition(lambda self: self.naive.rows)
    @rule(peer=members, word=words)
    def a_member_calls_itself(self, peer, word):
        row = self.naive.rows.get(peer)
        if row is not None:
            self.hear(peer, Row(word, row.peers, row.stalled))

    @rule(peer=members, present=st.booleans())
    def link(self, peer, present):
        if present:
            self.naive.new |= {peer} - self.naive.links
            self.naive.links.add(peer)
            self.liveness.graph.add_link(peer)
        else:
            self.naive.links.discard(peer)
            self.naive.new.discard(peer)
            self.liveness.graph.drop_link(peer)

    @rule(peers=some)
    def links_are_no_longer_new(self, peers):
        for peer in sorted(peers):
            self.naive.new.discard(peer)
            self.liveness.graph.age_link(peer)

    @rule(peers=some)
    def replace_links(self, peers):
        for peer in self.naive.links - peers:
            self.liveness.graph.drop_link(peer)
        for peer in sorted(peers):
            self.liveness.graph.add_link(peer)
        self.naive.new = (self.naive.new & peers) | (peers - self.naive.links)
        self.naive.links = set(peers)

    @rule(peers=some)
    def lose_to_stalling(self, peers):
        self.naive.stalled = peers
        self.liveness.set_stalled(marks(peers))

    @rule(after_s=st.sampled_from([0.0, 0.1, 7.3, 29.9, DEAD_AFTER_S]))
    def judge(self, after_s):
        self.now_s += after_s
        assert self.liveness.judge(self.now_s) == self.naive.judge(self.now_s)
        lost = [self.naive.lost_at_s[p] for p, s in self.naive.states.items() if s in LOST]
        due_s = min(lost) + DEAD_AFTER_S if lost else None
        assert self.liveness.next_change_s(self.now_s) == due_s

    @rule(goal=members, avoid=st.frozensets(members, max_size=3))
    def walk(self, goal, avoid):
        avoid_on_the_way = avoid - {goal}
        path = self.liveness.graph.path(goal, avoid)
        assert len(path) == self.naive.hops(avoid_on_the_way).get(goal, 0)
        if path:
            assert path[-1] == goal
            assert not avoid_on_the_way & set(path)
            self.edges_are_up(path)

    @rule(goal=members, avoid=st.frozensets(members, max_size=3))
    def walk_to_a_neighbour(self, goal, avoid):
        path = self.liveness.graph.path_to_neighbour_of(goal, avoid)
        hops = self.naive.hops(avoid | {goal})
        ends = {p for p in hops if p not in avoid | {ME} and self.naive.is_up(p, goal)}
        assert len(path) == min((hops[end] for end in ends), default=0)
        if path:
            assert path[-1] in ends
            assert not (avoid | {goal}) & set(path)
            self.edges_are_up(path)

    def edges_are_up(self, path: tuple[NodeId, ...]) -> None:
        for one, other in zip((ME, *path), path, strict=False):
            assert self.naive.is_up(one, other)
            assert other in self.liveness.graph.neighbours(one)

    @invariant()
    def whoever_a_path_leads_to_is_reached(self):
        assert self.liveness.graph.reached == self.naive.hops().keys()

    @invariant()
    def new_links_are_not_among_the_edges_that_both_ends_list(self):
        old = Naive(links=self.naive.links, rows=self.naive.rows)
        for one in NODES:
            edges = sum(old.is_up(one, other) for other in NODES)
            assert self.liveness.graph.listed_by_both(one) == edges

    @invariant()
    def states_are_those_of_the_last_judgement(self):
        states = self.naive.states
        assert {peer: self.liveness.state(peer) for peer in self.liveness.members()} == states
        alive = {peer for peer, state in states.items() if state is MemberState.ALIVE}
        assert self.liveness.alive == alive


TestViews = Views.TestCase


@given(st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), min_size=30, max_size=90))
def test_paths_in_larger_meshes_are_shortest_up_to_the_limit(edges):
    nodes = [NodeId(f"n{place}") for place in range(40)]
    peers: dict[NodeId, set[NodeId]] = {node: set() for node in nodes}
    chain = [(place, place + 1) for place in range(20)]  # so that some are far
    for one, other in edges[:40] + chain:
        peers[nodes[one]].add(nodes[other])
        peers[nodes[other]].add(nodes[one])
    graph = LinkGraph(nodes[0])
    for node in nodes[1:]:
        graph.hear(node, Standing("up", marks(frozenset(peers[node]))))
    for peer in sorted(peers[nodes[0]]):
        graph.add_link(peer)
    hops, queue = {nodes[0]: 0}, deque([nodes[0]])
    while queue:
        here = queue.popleft()
        for other in peers[here] - hops.keys():
            hops[other] = hops[here] + 1
            queue.append(other)
    assert graph.reached == hops.keys()
    for node in nodes:
        far = hops.get(node, 0)
        assert len(graph.path(node)) == (far if far <= HOPS_MAX else 0)
