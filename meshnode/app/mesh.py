"""One node's part in the mesh: all protocol cores joined, still without I/O, clock or chance.

Invariant: every event enters through one method, on one thread, and leaves as effects; our own feed
is on disk before any neighbour hears of it. The node and the simulator run this same class.

`now_s` is a steady clock in seconds; `wall` turns it into seconds since 1970.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

from meshnode.core.broadcast import spread
from meshnode.core.control import ControlSet
from meshnode.core.effects import (
    Announce,
    Effect,
    HangUp,
    Persist,
    PersistControl,
    Report,
    Send,
    Wake,
)
from meshnode.core.errors import PeerError
from meshnode.core.feed import Change, Flush, OwnFeed, Replica
from meshnode.core.ids import NodeId, short_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.liveness import Liveness, Standing
from meshnode.core.members import LINKS, NODE, ONLY_ROW, LinksRecord, links_to_row
from meshnode.core.messages import (
    Digest,
    Farewell,
    Members,
    Message,
    Pull,
    Pulse,
    SnapshotChunk,
    Vector,
)
from meshnode.core.overlay import Overlay
from meshnode.core.reconcile import Outcome, Replication
from meshnode.core.silence import PULSE_S, Silence
from meshnode.core.tables import Tables

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from meshnode.core.genesis import Genesis, Limits

FLUSH_DELAY_S = 0.01  # writes that come together travel together
LIVENESS_DELAY_S = 0.02
DIAL_TICK_S = 0.25
RECONCILE_S = 10.0
INTRODUCED_MAX = 8
ASKED_OWN_MAX = 16  # neighbours asked, after a start, what they hold of our own feed
LOST_MAX = 16  # peers whose end is told in our links row; the longest lost is dropped
REASON_CHARS_MAX = 80
STATES = "states"  # announced beside table names: the state of a member has changed


@dataclass(frozen=True, slots=True)
class Self:
    """What a node brings into the mesh."""

    key: Key
    boot: int
    rng: Random
    wall: Callable[[float], float] = field(default=lambda now_s: now_s)
    replica: Callable[[NodeId, Limits], Replica] = Replica  # a simulator shares equal ones


class Mesh:
    """The cores of one node, and the timers between them."""

    def __init__(self, genesis: Genesis, me: Self) -> None:
        self.genesis = genesis
        self.control = ControlSet(genesis)
        self.own = OwnFeed(me.key, genesis.mesh_id, genesis.limits, me.boot)
        self.self_id = self.own.origin
        self.replication = Replication(genesis, self.own, self.control, me.replica)
        self.tables = Tables(self.replication.replicas)
        self.liveness = Liveness(self.self_id)
        self.overlay = Overlay(self.self_id, me.rng)
        self._rng = me.rng
        self._wall = me.wall
        self._silences: dict[NodeId, Silence] = {}
        self._lost: dict[bytes, str] = {}
        self._asked_own = 0
        self._wakes: dict[str, float] = {}  # the earliest time that each timer is set for
        self._persisting = False

    def start(self, now_s: float) -> list[Effect]:
        """Begin: write our links anew (there are none yet), and set the timers going."""
        effects = self._write_links(now_s)
        for origin in self.tables.origins():
            self._learn_member(origin, now_s)
        effects += self.judge(now_s)
        effects += self._wake("dial", now_s)
        effects += self._wake("pulse", now_s + PULSE_S)
        return effects + self._wake("reconcile", now_s + RECONCILE_S * self._rng.random())

    def write(self, table: str, key: bytes, value: bytes | None, now_s: float) -> list[Effect]:
        """Put a row into our feed; it is visible and on its way after the next flush."""
        self.own.write(table, key, value)
        return self._plan_flush(now_s)

    def persisted(self, change: Change, now_s: float) -> list[Effect]:
        """Tell the neighbours what is now safely on our disk."""
        self._persisting = False
        effects: list[Effect] = []
        if change.flush is not None:
            self.replication.remember(change.flush)
            effects += spread(change.flush, self.overlay.links, None)
        if self.own.waiting:
            effects += self._flush(now_s)
        return effects

    def add_control(self, entry: Signed) -> list[Effect]:
        """Put an entry of our own into the control set."""
        if not self.control.add(entry):
            return []
        return [PersistControl(entry), *spread(entry, self.overlay.links, None)]

    def learn(self, peer: NodeId, addresses: tuple[str, ...], now_s: float) -> list[Effect]:
        """Take a hint where a member may listen; TLS will decide who is there."""
        self.overlay.learn(peer, addresses, now_s)
        return self._dial(now_s)

    def linked(self, peer: NodeId, now_s: float, *, dialled: bool) -> list[Effect]:
        """Take a working link into use."""
        self.overlay.linked(peer)
        self._silences[peer] = Silence(now_s)
        self._lost.pop(short_id_of(peer), None)
        effects = self._write_links(now_s)
        excess = self.overlay.excess(peer, self.liveness.alive())
        if excess and not dialled:
            return [*effects, Send(peer, self._introductions(peer)), *excess]
        if dialled:
            effects.append(Send(peer, self.replication.digest()))
        if self._asked_own < ASKED_OWN_MAX:
            self._asked_own += 1
            effects.append(Send(peer, self.replication.ask_for_own()))
        return effects

    def unlinked(self, peer: NodeId, reason: str, now_s: float) -> list[Effect]:
        """Let go of a link that broke: its edge goes at once."""
        self.overlay.unlinked(peer, now_s)
        self._silences.pop(peer, None)
        self.replication.forget_peer(peer)
        self._lost.pop(short_id_of(peer), None)
        self._lost[short_id_of(peer)] = reason[:REASON_CHARS_MAX]
        while len(self._lost) > LOST_MAX:
            del self._lost[next(iter(self._lost))]
        return self._write_links(now_s)

    def dial_failed(self, peer: NodeId, now_s: float) -> list[Effect]:
        """Note that a member did not answer; it is tried again later."""
        if peer not in self.overlay.links:  # it may have dialled us meanwhile
            self.overlay.unlinked(peer, now_s)
        return []

    def received(self, peer: NodeId, message: Message, now_s: float) -> list[Effect]:
        """Take a message from a neighbour. What breaks the protocol is reported, not believed."""
        silence = self._silences.get(peer)
        if silence is None:
            return []  # a frame that outlived its link
        silence.heard(now_s)
        try:
            outcome = self._outcome(peer, message, now_s)
        except PeerError as error:
            return [Report("frame_refused", peer, error.message)]
        return self._take(outcome, peer, now_s)

    def woken(self, name: str, now_s: float) -> list[Effect]:
        """Do what a timer was set for."""
        self._wakes.pop(name, None)
        match name:
            case "flush":
                return [] if self._persisting else self._flush(now_s)
            case "liveness" | "fading":
                return self.judge(now_s)
            case "dial":
                surplus = self.overlay.surplus(self.liveness.alive())
                return surplus + self._dial(now_s) + self._wake("dial", now_s + DIAL_TICK_S)
            case "pulse":
                return self._pulse(now_s) + self._wake("pulse", now_s + PULSE_S)
            case "reconcile":
                next_s = now_s + RECONCILE_S * self._rng.uniform(0.8, 1.2)
                return self._reconcile() + self._wake("reconcile", next_s)
            case _:
                raise ValueError(f"no timer is called {name}")

    def _outcome(  # noqa: C901, PLR0911 - one case a message
        self, peer: NodeId, message: Message, now_s: float
    ) -> Outcome:
        match message:
            case Flush():
                return self.replication.on_flush(peer, message, now_s)
            case SnapshotChunk():
                return self.replication.on_snapshot_chunk(peer, message)
            case Digest():
                return self.replication.on_digest(peer, message)
            case Vector():
                return self.replication.on_vector(peer, message, now_s)
            case Pull():
                return self.replication.on_pull(peer, message)
            case Signed():
                return self.replication.on_control(message)
            case Members():
                return self._introduced(message, now_s)
            case Farewell():
                return Outcome([HangUp(peer, message.reason)])
            case Pulse():
                return Outcome()  # being heard is all it is for
            case _:
                assert_never(message)

    def _take(self, outcome: Outcome, source: NodeId, now_s: float) -> list[Effect]:
        effects = list(outcome.effects)
        for entry in outcome.entries:
            effects.append(PersistControl(entry))
            effects += spread(entry, self.overlay.links, source)
        for change in outcome.changes:
            effects.append(Persist(change, ours=False))
            news = change.flush or Vector({change.origin: change.header.head})
            effects += spread(news, self.overlay.links, source)
            effects += self._notice(change, now_s)
        if self.own.waiting:
            effects += self._plan_flush(now_s)
        return effects

    def _notice(self, change: Change, now_s: float) -> list[Effect]:
        tables = frozenset(table for table, _ in change.rows)
        effects: list[Effect] = [Announce(tables)]
        if NODE in tables:
            self._learn_member(change.origin, now_s)
        if tables & {NODE, LINKS}:
            effects += self._wake("liveness", now_s + LIVENESS_DELAY_S)
        return effects

    def _learn_member(self, origin: NodeId, now_s: float) -> None:
        record = self.tables.node(origin)
        if record is None or origin == self.self_id:
            return
        if record.standing == "left":
            self.overlay.retire(origin)
        else:
            self.overlay.learn(origin, record.addresses, now_s, said=True)

    def _plan_flush(self, now_s: float) -> list[Effect]:
        return self._wake("flush", now_s + FLUSH_DELAY_S)

    def _flush(self, now_s: float) -> list[Effect]:
        change = self.own.flush(self._wall(now_s))
        if change is None:
            return []
        self._persisting = True
        return [Persist(change, ours=True), *self._notice(change, now_s)]

    def _write_links(self, now_s: float) -> list[Effect]:
        peers = frozenset(short_id_of(peer) for peer in self.overlay.links)
        row = links_to_row(LinksRecord(peers, self._lost))
        return [
            *self.write(LINKS, ONLY_ROW, row, now_s),
            *self._wake("liveness", now_s + LIVENESS_DELAY_S),
        ]

    def judge(self, now_s: float) -> list[Effect]:
        """Work out anew who is reachable."""
        standings = {}
        for origin in self.tables.origins():
            record, links = self.tables.node(origin), self.tables.links(origin)
            if record is not None:
                standings[origin] = Standing(record.standing, links.peers if links else frozenset())
        changed = self.liveness.update(standings, self.overlay.links, now_s)
        effects: list[Effect] = [Announce(frozenset({STATES}))] if changed else []
        next_s = self.liveness.next_change_s(now_s)
        # A timer of its own: a distant one must not swallow the next piece of news.
        return effects if next_s is None else effects + self._wake("fading", next_s)

    def _dial(self, now_s: float) -> list[Effect]:
        return self.overlay.dials(now_s, self.liveness.alive())

    def _pulse(self, now_s: float) -> list[Effect]:
        effects: list[Effect] = []
        for peer, silence in self._silences.items():
            if silence.is_silent(now_s):
                effects.append(HangUp(peer, "silent"))
            else:
                effects.append(Send(peer, Pulse(silence.next_pulse())))
        return effects

    def _reconcile(self) -> list[Effect]:
        if not self.overlay.links:
            return []
        peer = self._rng.choice(sorted(self.overlay.links))
        return [Send(peer, self.replication.digest())]

    def _introductions(self, peer: NodeId) -> Members:
        others = sorted(self.overlay.links - {peer})
        chosen = self._rng.sample(others, min(INTRODUCED_MAX, len(others)))
        return Members({other: self.overlay.addresses_of(other) for other in chosen})

    def _introduced(self, message: Members, now_s: float) -> Outcome:
        for peer, addresses in message.addresses.items():
            self.overlay.learn(peer, addresses, now_s)
        return Outcome(self._dial(now_s))

    def _wake(self, name: str, at_s: float) -> list[Effect]:
        if self._wakes.get(name, math.inf) <= at_s:
            return []
        self._wakes[name] = at_s
        return [Wake(at_s, name)]
