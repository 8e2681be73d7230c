"""A node of a small mesh, and somebody who does with its changes what whoever watches does."""

from random import Random

from doubles import ManualClock
from hypothesis import strategies as st
from msgspec.structs import replace

from meshnode.app.events.changes import Changes
from meshnode.app.events.things import KINDS, Kind, Op, identity_of
from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.app.pieces import finished
from meshnode.app.queries.listing import page_of
from meshnode.app.queries.queries import Queries
from meshnode.app.queries.specialists import Specialists
from meshnode.app.queries.views import NodeView, Selection, SessionView
from meshnode.core.effects import Announce
from meshnode.core.feeds.feed import Change as FeedChange
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.ids import SessionId, node_id_of, short_id_of
from meshnode.core.keys import Key
from meshnode.core.ledger.ledger import LEDGER, Buckets, Slot, SlotKey
from meshnode.core.ledger.ledger_rows import key_to_row, slot_to_row
from meshnode.core.ledger.prices import Priced, Rates
from meshnode.core.membership.genesis import Genesis
from meshnode.core.membership.members import (
    LINKS,
    NODE,
    ONLY_ROW,
    LinksRecord,
    NodeRecord,
    links_to_row,
    node_to_row,
)
from meshnode.core.sessions.registry import REGISTRY, Birth, registry_key, registry_row, specialist
from meshnode.core.sessions.sessions import SESSIONS, SessionRecord, State, session_to_row

chance = Random(15).randbytes
KEYS = sorted((Key.new(chance) for _ in range(4)), key=lambda key: node_id_of(key.public))
IDS = [node_id_of(key.public) for key in KEYS]
GENESIS = Genesis((KEYS[0].public,), 1, "test", bytes(16))
SPECS = ("docs", "code")


class OnePrice:
    """A thousand pico-dollars an input token of any model but one."""

    def rates(self, model, provider, tier, at_s):
        return None if model == "free" else Priced(Rates(input_pusd=1000), "table", model)

    def is_steady(self, *_):
        return False

    def source_text(self):
        return "table"


class Seen:
    """A node of a mesh of four: what it is told goes through the mesh's own announcements."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        steady_s = self.clock.steady_s()
        me = Self(KEYS[0], 1, Random(1), lambda s: s - steady_s + self.clock.now_s)
        self.mesh = Mesh(GENESIS, me)
        self.queries = Queries(self.mesh, OnePrice(), self.clock)
        self.changes = Changes(self.mesh, OnePrice(), self.clock)
        self.feeds = {IDS[0]: self.mesh.own}
        self.given = []
        self._births = 0
        self._following = None  # costs, in pieces
        self.model = {}
        for key, peer in list(zip(KEYS, IDS, strict=True))[1:]:
            self.feeds[peer] = OwnFeed(key, GENESIS.mesh_id, GENESIS.limits, 1)
            self.mesh.replication.replicas[peer] = self.feeds[peer]
        self.mesh.linked(IDS[1], steady_s, dialled=True)
        for number in range(4):
            self.put(number, NODE, ONLY_ROW, node_to_row(NodeRecord(f"node{number}")))
        self.links({(0, 1), (1, 2)})
        self.take(self.changes.begin())

    def put(self, number, table, key, value) -> None:
        feed = self.feeds[IDS[number]]
        feed.write(table, key, value)
        change = feed.flush(self.clock.wall_s() - 60)
        if change is not None:
            self.noticed(change)

    def noticed(self, change: FeedChange) -> None:
        """Let the mesh take a change of a feed, and hand on what it announces."""
        now_s = self.clock.steady_s()
        effects = self.mesh._notice(change, now_s) + self.mesh._judge(now_s)
        for effect in effects:
            if isinstance(effect, Announce):
                self.take(self.changes.take(effect))

    def rewrite(self, number, table, key) -> None:
        """Write a row anew with the same value, as a snapshot of a later epoch has it."""
        feed = self.feeds[IDS[number]]
        before = feed.rows.get(table, key)
        feed.rows.put(table, key, replace(before, seq=before.seq + 1000, meaning=None))
        self.noticed(FeedChange(IDS[number], feed.header, None, {(table, key): before}))

    def links(self, edges) -> None:
        for number in range(4):
            peers = {b if a == number else a for a, b in edges if number in (a, b)}
            row = LinksRecord(frozenset(short_id_of(IDS[peer]) for peer in peers))
            self.put(number, LINKS, ONLY_ROW, links_to_row(row))

    def session(self, number, name, state=State.RUNNING, specs=(), **fields) -> None:
        fields["specializations"] = specs
        record = SessionRecord(SessionId(name), 1, f"agent-{name[0]}", state, 5.0, 5.0)
        ended = {"ended_at_s": 9.0} if record.ended else {}
        row = session_to_row(replace(record, **{**ended, **fields}))
        self.put(number, SESSIONS, name.encode(), row)

    def spend(self, number, session, tokens, model="m", slot=5) -> None:
        key = SlotKey(session, model, "standard", slot)
        self.put(number, LEDGER, key_to_row(key), slot_to_row(Slot(1, Buckets(input=tokens))))

    def register(self, number, agent, spec, load="0.5") -> None:
        entry = specialist(agent, spec, {"load": load})
        self._births += 1
        row = registry_row(entry, Birth(number + 1, self._births))
        self.put(number, REGISTRY, registry_key(entry.place), row)

    def replace(self, number) -> None:
        """Say that a whole feed has come anew."""
        self.take(self.changes.take(Announce(IDS[number], [], replaced=True)))

    def delete(self, number, name) -> None:
        self.put(number, SESSIONS, name.encode(), None)

    def name(self, number, name) -> None:
        self.put(number, NODE, ONLY_ROW, node_to_row(NodeRecord(name)))

    def follow(self) -> None:
        finished(self._following or iter(()))
        self._following = None
        if not self.changes.spending.followed:
            self.catch_up(stay=True)

    def catch_up(self, *, stay: bool) -> list:
        before = len(self.given)
        finished(self.changes.follow_spending(self.take, stay=stay))
        return self.given[before:]

    def begin_to_follow(self, stay: bool) -> None:
        if self._following is None and not self.changes.spending.followed:
            self._following = self.changes.follow_spending(self.take, stay=stay)

    def step(self, steps: int) -> None:
        """Go on for some pieces with following, or do not at all."""
        for _ in range(steps):
            if self._following is not None and next(self._following, "ended") == "ended":
                self._following = None
        if not steps and self._following is not None:
            self._following.close()
            self._following = None

    def stop(self) -> None:
        if self._following is None:
            self.changes.spending.stop()

    def wait(self) -> None:
        """Let enough time pass for members that cannot be reached to be called dead."""
        self.clock.now_s += 31
        for effect in self.mesh._judge(self.clock.steady_s()):
            if isinstance(effect, Announce):
                self.take(self.changes.take(effect))

    def take(self, changes) -> None:
        """Do what whoever watches does."""
        self.given += changes
        for change in changes:
            identity = identity_of(change.kind, change.view)
            if change.op is Op.REMOVED:
                assert self.model.pop(identity)
            else:
                assert (change.op is Op.ADDED) <= (identity not in self.model)
                self.model[identity] = bare(change.view)

    def settle(self) -> list:
        before = len(self.given)
        self.take(self.changes.settle(costs=True))
        while self.changes.busy:
            self.take(self.changes.settle(costs=True))
        return self.given[before:]

    def afresh(self) -> dict:
        views = [(Kind.NODE, view) for view in self.queries.nodes({})]
        sessions, _ = page_of(self.queries, Selection(filter="all", limit=1000))
        views += [(Kind.SESSION, view) for view in sessions]
        specialists = Specialists(self.queries)
        views += [(Kind.AGENT, view) for spec in SPECS for view in specialists.find(spec)]
        return {identity_of(kind, view): bare(view) for kind, view in views}

    def shown(self) -> dict:
        held = [(kind, view) for kind in KINDS for view in self.changes.shown([kind])]
        return {identity_of(kind, view): bare(view) for kind, view in held}


def bare(view):
    if isinstance(view, SessionView):
        return replace(view, observed_at_s=0.0)
    return replace(view, last_heard_s=None) if isinstance(view, NodeView) else view


def kinds_and_ops(changes) -> list[tuple[str, str]]:
    return [(change.kind, change.op) for change in changes]


ACTS = st.one_of(
    st.tuples(
        st.just("session"),
        st.integers(0, 3),
        st.sampled_from(["alpha", "beta", "again"]),
        st.sampled_from([State.RUNNING, State.IDLE, State.CLOSED]),
        st.sampled_from([(), ("docs",), ("docs", "code")]),
    ),
    st.tuples(st.just("delete"), st.integers(0, 3), st.sampled_from(["alpha", "beta"])),
    st.tuples(
        st.just("links"),
        st.sets(st.sampled_from([(0, 1), (1, 2), (2, 3), (0, 3)]), max_size=4),
    ),
    st.tuples(st.just("name"), st.integers(0, 3), st.sampled_from(["node0", "other", "third"])),
    st.tuples(
        st.just("register"),
        st.integers(0, 3),
        st.sampled_from(["agent-a", "agent-b", "smith"]),
        st.sampled_from(SPECS),
        st.sampled_from(["0.1", "0.9"]),
    ),
    st.tuples(
        st.just("spend"),
        st.integers(0, 3),
        st.sampled_from(["alpha", "beta", ""]),
        st.integers(1, 9),
        st.sampled_from(["m", "free"]),
    ),
    st.tuples(st.sampled_from(["follow", "stop", "settle", "wait"])),
    st.tuples(st.just("begin_to_follow"), st.booleans()),
    st.tuples(st.just("step"), st.integers(0, 9)),
    st.tuples(st.just("replace"), st.integers(0, 3)),
)


def act(seen: Seen, what: tuple) -> None:
    """Do one of ACTS."""
    name, *args = what
    getattr(seen, name)(*args)
