"""One node's part in the mesh: all protocol cores joined, still without I/O, clock or chance.

Invariant: every event enters through one method, on one thread, and leaves as effects; our own feed
is on disk before any neighbour hears of it. The node and the simulator run this same class.

`now_s` is a steady clock in seconds; `wall` turns it into seconds since 1970.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from meshnode.app.mesh.controls import Controls
from meshnode.app.mesh.incoming import Incoming
from meshnode.app.mesh.neighbours import STALLED, Neighbours
from meshnode.app.mesh.pace import LAG_PAUSE_S, FlushPace
from meshnode.core.control.control import ControlSet
from meshnode.core.effects import Announce, Effect, Persist, PersistFork, Report, Send, Wake
from meshnode.core.errors import PeerError
from meshnode.core.feeds.feed import Change, Replica
from meshnode.core.feeds.messages import Fork, Known, Message, Reply
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.reconcile import Replication
from meshnode.core.feeds.rows import all_rows
from meshnode.core.ledger.regained import joined_rows
from meshnode.core.links.broadcast import HAVE_DELAY_S, HAVE_SPREAD, Broadcast, spread
from meshnode.core.links.linkgraph import NOBODY, standing_of
from meshnode.core.links.liveness import Liveness
from meshnode.core.links.silence import PULSE_S
from meshnode.core.membership.members import LINKS, NODE, ONLY_ROW
from meshnode.core.tables.roster import Roster
from meshnode.core.tables.tables import Tables

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from meshnode.core.feeds.forks import Proof
    from meshnode.core.feeds.intake import Outcome
    from meshnode.core.feeds.own_feed import Values
    from meshnode.core.feeds.rows import Rows
    from meshnode.core.ids import NodeId
    from meshnode.core.keys import Key, Signed
    from meshnode.core.membership.genesis import Genesis, Limits

LIVENESS_DELAY_S = 0.02
TICK_S = 0.25  # how often links are judged, and dials considered
RECONCILE_S = 10.0
COMPARE_S = 1.0  # within this a new neighbour's holdings are compared with ours
FIRST_LINKS = 2  # whose holdings are compared at once
ASKED_OWN_MAX = 16  # neighbours asked, after a start, what they hold of our own feed


class Self(msgspec.Struct, frozen=True):
    """What a node brings into the mesh."""

    key: Key
    boot: int
    rng: Random
    wall: Callable[[float], float] = msgspec.field(default=lambda now_s: now_s)
    replica: Callable[[NodeId, Limits], Replica] = Replica  # a simulator shares equal ones
    admits: Callable[[NodeId, Rows], bool] = lambda _origin, _rows: True  # whose feeds are taken


class Mesh:
    """The cores of one node, and the timers between them."""

    def __init__(self, genesis: Genesis, me: Self) -> None:
        self.genesis = genesis
        self.control = ControlSet(genesis)
        self.own = OwnFeed(me.key, genesis.mesh_id, genesis.limits, me.boot, joined_rows)
        self.self_id = self.own.origin
        self.replication = Replication(genesis, self.own, self.control, me.replica, me.admits)
        replicas = self.replication.replicas
        self.tables = Tables(replicas, self.replication.forks, self.control.forgotten)
        self.roster = Roster(self.tables, replicas, self.own, me.boot)
        self.liveness = Liveness(self.self_id)
        self.neighbours = Neighbours(self.self_id, me.rng, self.liveness)
        self.overlay = self.neighbours.overlay
        self._controls = Controls(self.control, self.own, self.tables, self.overlay)
        self.revoked = self._controls.revoked
        self._late_s = 0.0  # the last pulse
        self.lag_s = 0.0  # how late timers have been, the worst fading by a tenth a pulse
        self._rng = me.rng
        self._wall = me.wall
        self._broadcast = Broadcast(self.self_id, self.replication.head_of)
        self._incoming = Incoming(self.replication, self.neighbours, self._broadcast, me.wall)
        self._asked_own = 0
        self._to_compare: list[NodeId] = []  # new neighbours, as many as there are links at most
        self._wakes: dict[str, float] = {}  # the earliest time that each timer is set for
        self._persisting = False
        self._flush_pace = FlushPace(self.own)

    def start(self, now_s: float) -> list[Effect]:
        """Begin: write our links anew (there are none yet), and set the timers going."""
        self._controls.say_again()
        tended = self.roster.tend_all()  # what was seen before an end that was too sudden for it
        effects = [*tended, *self._write_links(now_s), *self.recall(now_s)]
        effects += self._wake("tick", now_s) + self._wake("pulse", now_s + PULSE_S)
        return effects + self._wake("reconcile", now_s + RECONCILE_S * self._rng.random())

    def recall(self, now_s: float) -> list[Effect]:
        """Take what our own disk says about all members."""
        _, effects = self._controls.shun()
        for origin in self.tables.origins():
            self._learn_member(origin, now_s, live=False)
        return effects + self._judge(now_s)

    def write(
        self, table: str, key: bytes, value: bytes | None, now_s: float, *, patient: bool = False
    ) -> list[Effect]:
        """Put a row into our feed; it is visible and on its way after the next flush.

        A `patient` one waits a while for others to travel with.
        """
        self.own.write(table, key, value)
        self._flush_pace.wrote((table, key), now_s, patient=patient)
        return self._plan_flush(now_s)

    def write_together(self, table: str, values: Values, now_s: float) -> list[Effect]:
        """Put rows into our feed that leave in one flush; they must fit one."""
        self.own.write_together(table, values)
        return self._plan_flush(now_s)

    def persisted(self, change: Change, now_s: float) -> list[Effect]:
        """Tell the neighbours what is now safely on our disk."""
        self._persisting = False
        effects: list[Effect] = []
        if change.flush is not None:
            self.replication.remember(change.flush)
            lost = (LINKS, ONLY_ROW) in change.rows and self.neighbours.take_lost()
            if lost or (NODE, ONLY_ROW) in change.rows:  # perhaps our last words
                change = replace(change, flush=replace(change.flush, flooded=True))
            effects += self._pass_on(change, None, now_s) + self.replication.pay()
        return effects + (self._plan_flush(now_s) if self.own.waiting else [])

    def add_control(self, entry: Signed, now_s: float) -> list[Effect]:
        """Put an entry of our own into the control set; raises PeerError if it has no place."""
        added = self.control.add(entry, self._wall(now_s), ours=True)
        return self._take_entries([entry] if added else [], None, now_s)

    def learn(self, peer: NodeId, addresses: tuple[str, ...], now_s: float) -> list[Effect]:
        """Take a hint where a member may listen; TLS will decide who is there."""
        self.overlay.learn(peer, addresses, now_s)
        return self.overlay.dials(now_s)

    def linked(self, peer: NodeId, now_s: float, *, dialled: bool) -> list[Effect]:
        """Take a working link into use."""
        spare = self.neighbours.is_spare(peer) and peer in self.liveness.graph.reached
        refused = self.neighbours.linked(peer, now_s, dialled=dialled)
        effects = self._write_links(now_s, spare=spare) + refused + self._broadcast.linked(peer)
        if len(self.overlay.links) <= FIRST_LINKS:
            effects.append(Send(peer, self.replication.digest()))
        elif dialled:
            self._to_compare.append(peer)
            effects += self._wake("compare", now_s + COMPARE_S * self._rng.random())
        if self._asked_own < ASKED_OWN_MAX:
            self._asked_own += 1
            effects.append(Send(peer, self.replication.ask_for_own()))
        return effects

    def unlinked(self, peer: NodeId, reason: str, now_s: float) -> list[Effect]:
        """Let go of a link that broke: its edge goes at once."""
        self.neighbours.unlinked(peer, reason, now_s)
        self.replication.forget_peer(peer)
        return self._write_links(now_s) + self._broadcast.unlinked(peer)

    def dial_failed(self, peer: NodeId, now_s: float, *, stalled: bool = False) -> list[Effect]:
        """Note that a member did not answer; it is tried again later.

        `stalled` if its machine accepted the connection and nothing more came.
        """
        news = self.neighbours.dial_failed(peer, now_s, stalled=stalled)
        return self._write_links(now_s) if news else []

    def caught_up(self, peer: NodeId) -> list[Effect]:
        """Repair what the outbox of a link has dropped when it was full."""
        return [Send(peer, self.replication.digest())]

    def answer(self, route: tuple[NodeId, ...], reply: Reply) -> list[Effect]:
        """Answer an order that came along links."""
        return self.neighbours.answer(route, reply)

    def received(self, peer: NodeId, message: Message | Known, now_s: float) -> list[Effect]:
        """Take a message from a neighbour. What breaks the protocol is reported, not believed."""
        if not self.neighbours.heard(peer, now_s):
            return []  # a frame that outlived its link
        try:
            outcome = self._incoming(peer, message, now_s)
        except PeerError as error:
            return [Report("frame_refused", peer, error.message)]
        return self._take(outcome, peer, now_s)

    def woken(  # noqa: C901, PLR0911 - one case a timer
        self, name: str, now_s: float
    ) -> list[Effect]:
        """Do what a timer was set for."""
        late_s = now_s - self._wakes.pop(name, now_s)
        match name:
            case "flush":
                return [] if self._persisting else self._flush(now_s)
            case "liveness" | "fading":
                return self._judge(now_s)
            case "haves":
                return self._broadcast.soon(self._rng)
            case "grafts":
                return self._graft(now_s)
            case "tick":
                due = self.neighbours.tick(now_s, late_s) + self.replication.tick(now_s)
                if self.neighbours.age_links(now_s - late_s):  # rows may wait at the door
                    due += self._wake("liveness", now_s + LIVENESS_DELAY_S)
                due += self._controls.expire(self._wall(now_s))
                return due + self._wake("tick", now_s + TICK_S)
            case "pulse":
                self._late_s, self.lag_s = late_s, max(late_s, self.lag_s * 0.9)
                hurried = self._reconcile() if self.replication.hurry() else []
                pulses = self.neighbours.pulses() + self._broadcast.take_queued()
                return pulses + hurried + self._wake("pulse", now_s + PULSE_S)
            case "compare":
                return self._compare()
            case "reconcile":
                next_s = now_s + RECONCILE_S * self._rng.uniform(0.8, 1.2)
                return self._reconcile() + self._wake("reconcile", next_s)
            case _:
                raise ValueError(f"no timer is called {name}")

    def _take(self, outcome: Outcome, source: NodeId, now_s: float) -> list[Effect]:
        effects = outcome.effects
        if outcome.entries or self._controls.stirred():
            effects += self._take_entries(outcome.entries, source, now_s)
        first = {change.origin: change for change in reversed(outcome.changes)}
        for change in outcome.changes:
            effects.append(Persist(change, ours=False))
            waited = change is not first[change.origin]  # here, for the one before it
            effects += self._pass_on(change, source, now_s, waited=waited)
            effects += self._notice(change, now_s)
            outcome.missing.update(self.roster.behind(change))
        for proof in outcome.forks:
            effects += self._shun(proof, source, now_s)
        if outcome.theirs:
            self._broadcast.told(source, outcome.theirs)
        if outcome.duplicate_of is not None:
            effects += self._broadcast.duplicate(source, outcome.duplicate_of)
        if outcome.missing:
            self._broadcast.announced(source, outcome.missing, now_s)
            effects += self._plan_grafts()
        return effects + (self._plan_flush(now_s) if self.own.waiting else [])

    def _take_entries(
        self, entries: list[Signed], source: NodeId | None, now_s: float
    ) -> list[Effect]:
        effects = self._controls.taken(entries, source)
        moved, partings = self._controls.shun()
        effects += partings
        reconsidered = self.control.take_reconsidered() | moved
        if not reconsidered:
            return effects
        if self.self_id in reconsidered:
            self._controls.say_again()
            effects += self._plan_flush(now_s)
        for origin in sorted(reconsidered):
            self._learn_member(origin, now_s)
        effects += self._judge(now_s)
        for origin in sorted(reconsidered & self.replication.replicas.keys()):
            effects.append(self._all_rows_of(origin))
        return [*effects, Announce(members=reconsidered)]

    def _pass_on(
        self, change: Change, source: NodeId | None, now_s: float, *, waited: bool = False
    ) -> list[Effect]:
        origin, head = change.origin, change.header.head
        flush = change.flush
        asked_for = source is not None and flush and not (flush.eager or flush.flooded)
        if flush is None or asked_for:  # others may well have it: it is offered, not sent
            self._broadcast.offer(origin, head, source)
            effects: list[Effect] = []
        elif flush.flooded:
            return spread(flush, self.overlay.links, source)
        else:
            news = replace(flush, eager=True)
            effects = self._broadcast.forward(news, origin, head, source, waited=waited)
        if self._broadcast.queued and "haves" not in self._wakes:
            pause_s = HAVE_DELAY_S * self._rng.uniform(1 - HAVE_SPREAD, 1 + HAVE_SPREAD)
            effects += self._wake("haves", now_s + pause_s + min(self._late_s, LAG_PAUSE_S))
        return effects

    def _shun(self, proof: Proof, source: NodeId, now_s: float) -> list[Effect]:
        """Show nothing more of an epoch with two histories; everybody shall know why."""
        origin = proof[0].origin
        detail = f"{origin[:12]} has published two histories of its epoch {proof[0].epoch}"
        self._learn_member(origin, now_s)
        return [
            PersistFork(proof),
            Report("feed_quarantined", origin, detail),
            self._all_rows_of(origin),
            *spread(Fork(proof), self.overlay.links, source),
            *self._wake("liveness", now_s + LIVENESS_DELAY_S),
        ]

    def _all_rows_of(self, origin: NodeId) -> Announce:
        rows = all_rows(self.replication.replicas[origin].rows)
        return Announce(origin, rows.keys(), replaced=True)

    def _plan_grafts(self) -> list[Effect]:
        at_s = self._broadcast.next_graft_s()
        return [] if at_s is None else self._wake("grafts", at_s)

    def _graft(self, now_s: float) -> list[Effect]:
        asks = self._broadcast.grafts(now_s).items()
        sends = [Send(peer, self.replication.graft(origins)) for peer, origins in asks]
        return [*sends, *self._plan_grafts()]

    def _notice(self, change: Change, now_s: float) -> list[Effect]:
        replaced, written = change.flush is None, change.written
        news = Announce(change.origin, change.rows.keys(), replaced, written=written)
        effects: list[Effect] = [news, *self.roster.tend(change)]
        if news.tables & {NODE, LINKS}:
            new = self.liveness.graph.standing(change.origin) is None
            self._learn_member(change.origin, now_s)
            if new:  # whose rows are shown must be counted as known
                effects += self._judge(now_s)
            effects += self._wake("liveness", now_s + LIVENESS_DELAY_S)
        return effects

    def _learn_member(self, origin: NodeId, now_s: float, *, live: bool = True) -> None:
        record, links = self.tables.node(origin), self.tables.links(origin)
        if record is None:
            self._controls.dismiss(origin, self.liveness)
            return
        if self.revoked.consider(origin) and origin != self.self_id:
            self._controls.disown(origin, self.liveness)
            return
        peers, lost = (links.peers, links.lost) if links else (NOBODY, {})
        stalled = frozenset(peer for peer, reason in lost.items() if reason == STALLED)
        self.liveness.hear(origin, standing_of(record.standing, peers, stalled))
        if origin == self.self_id:
            return
        if record.standing == "left":
            self.overlay.retire(origin)
        elif not live:
            self.overlay.remember(origin, record.addresses)
        else:
            self.overlay.learn(origin, record.addresses, now_s, said=True)

    def _plan_flush(self, now_s: float) -> list[Effect]:
        members = len(self.liveness.alive)
        return self._wake("flush", self._flush_pace.due_s(now_s, members, self._late_s))

    def _flush(self, now_s: float) -> list[Effect]:
        change = self.own.flush(self._wall(now_s))
        if change is None:
            return []
        self._persisting = True
        self._flush_pace.flushed(change, now_s)
        return [Persist(change, ours=True), *self._notice(change, now_s)]

    def _write_links(self, now_s: float, *, spare: bool = False) -> list[Effect]:
        if not self.own.cloned:
            self.own.write(LINKS, ONLY_ROW, self.neighbours.row())
            self._flush_pace.wrote_links(now_s, spare=spare)
        return self._plan_flush(now_s) + self._wake("liveness", now_s + LIVENESS_DELAY_S)

    def _judge(self, now_s: float) -> list[Effect]:
        """Take what is new about who is reachable."""
        changed = self.liveness.judge(now_s)
        self.overlay.seen(changed)
        effects: list[Effect] = [Announce(members=changed)] if changed else []
        if self.own.is_pending(LINKS, ONLY_ROW) and self.neighbours.has_only_way():
            self._flush_pace.wrote_links(now_s, spare=False)
            effects += self._plan_flush(now_s)
        next_s = self.liveness.next_change_s(now_s)
        # A timer of its own: a distant one must not swallow the next piece of news.
        return effects if next_s is None else effects + self._wake("fading", next_s)

    def _compare(self) -> list[Effect]:
        """Begin a reconciliation with each new neighbour."""
        links, waiting, self._to_compare = self.overlay.links, self._to_compare, []
        return [Send(peer, self.replication.digest()) for peer in waiting if peer in links]

    def _reconcile(self) -> list[Effect]:
        """Begin a reconciliation with any neighbour."""
        links = sorted(self.overlay.links)
        return [Send(self._rng.choice(links), self.replication.digest())] if links else []

    def _wake(self, name: str, at_s: float) -> list[Effect]:
        if self._wakes.get(name, math.inf) <= at_s:
            return []
        self._wakes[name] = at_s
        return [Wake(at_s, name)]
