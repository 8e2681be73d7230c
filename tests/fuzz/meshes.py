"""All the way into a node: frames, rows and entries of a hostile member, taken by a real Mesh.

After each the timers run, every answer is encoded, and everything is asked that a user can ask.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING, Any

from doubles import ManualClock
from fuzz.values import (
    ADMIN_ROLE,
    CHANGE,
    FEED,
    GENESIS,
    NODE,
    NODE_ID,
    NODE_ROLE,
    RECORD,
    ROOT,
    SELF_ID,
    USER,
    WALL_S,
    WHOLE,
    chance,
)
from msgspec.structs import replace

from meshnode.app.events.changes import Changes
from meshnode.app.events.events import Event
from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.app.pieces import finished
from meshnode.app.queries.queries import Queries
from meshnode.client.messages import to_plain
from meshnode.core.commands.commands import COMMAND, Court
from meshnode.core.commands.envelopes import (
    REQUEST,
    SEALED_ANSWER,
    SEALED_REQUEST,
    Answer,
    Awaited,
    Correspondence,
)
from meshnode.core.control.entries import CONTROL
from meshnode.core.effects import Announce, Persist, Report, Send
from meshnode.core.errors import PeerError
from meshnode.core.feeds.feed import Flush, delta_from_bytes
from meshnode.core.feeds.headers import FLUSH, sign_header
from meshnode.core.feeds.messages import Order, Routed, Snapshot
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.rows import Row, Rows, all_rows
from meshnode.core.feeds.snapshots import _entries, whole
from meshnode.core.keys import Key, Signed
from meshnode.core.membership.members import NODE as NODE_TABLE
from meshnode.core.membership.members import ONLY_ROW, NodeRecord, is_admitted, node_to_row
from meshnode.core.packing import pack, typed, unpack
from meshnode.core.sealing import SealingKey, seal
from meshnode.ingest.prices import PriceBook
from meshnode.rpc.events import event_to_wire
from meshnode.rpc.local import find_agents, get_cost, list_nodes, list_sessions
from meshnode.v1 import link_service_pb2 as pb
from meshnode.v1 import local_service_pb2 as local
from meshnode.wire.links import message_from_wire, message_to_wire

if TYPE_CHECKING:
    from meshnode.core.effects import Effect
    from meshnode.core.feeds.messages import Message
    from meshnode.core.ids import NodeId

TIMERS = ("flush", "liveness", "haves", "grafts", "tick", "pulse", "compare", "reconcile")
FRAMES_MAX = 8  # of one conversation
prices = cache(PriceBook)


class Taking:
    """A node with one link, and what a hostile neighbour's words lead to there."""

    def __init__(self) -> None:
        self.clock = ManualClock(WALL_S)
        self.now_s = self.clock.steady_s()
        ahead_s = self.clock.wall_s() - self.now_s
        me = Self(ROOT, 6, Random(1), lambda s: s + ahead_s, admits=_admits)
        self.mesh = Mesh(GENESIS, me)
        self.changes = Changes(self.mesh, prices(), self.clock)
        self.seen: list[str] = []
        self.mesh.write(NODE_TABLE, ONLY_ROW, node_to_row(NodeRecord("me")), self.now_s)
        self.perform(self.mesh.start(self.now_s))
        self.mesh.control.add_all([ADMIN_ROLE, NODE_ROLE], WALL_S)
        self.changes.begin()
        finished(self.changes.follow_spending(len))
        self.perform(self.mesh.linked(NODE_ID, self.now_s, dialled=True))
        self.run_timers()
        self.seen.clear()

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    message_to_wire(effect.message).SerializeToString()
                    self.seen.append(type(effect.message).__name__)
                case Persist(change, ours=True):
                    self.perform(self.mesh.persisted(change, self.now_s))
                case Announce():
                    self.tell(self.changes.take(effect))
                case Report():
                    self.seen.append(effect.detail[:30])
                case _:
                    self.seen.append(type(effect).__name__)

    def tell(self, changes: list[Any]) -> None:
        for one in changes:
            names = self.changes.names_of(one.view)
            event = Event(1, self.now_s, one.kind, one.op, names, one.view)
            event_to_wire(event, "").SerializeToString()
            self.seen.append(f"{one.kind} {one.op}")

    def receive(self, message: Message) -> None:
        self.perform(self.mesh.received(NODE_ID, message, self.now_s))

    def run_timers(self) -> None:
        self.now_s += 1.0
        self.clock.now_s += 1.0
        for timer in TIMERS:
            self.perform(self.mesh.woken(timer, self.now_s))

    def answer(self) -> str:
        """Let time pass, then ask everything; returns what was seen meanwhile."""
        self.run_timers()
        self.tell(self.changes.settle(costs=True))
        queries = Queries(self.mesh, prices(), self.clock)
        times = ("month", "week", "day", "hour")
        everything = ("model", *times, "node", "owner", "agent", "session", "project")
        to_plain(list_sessions(queries, local.ListSessionsRequest(filter="all", sort="cost")))
        to_plain(list_nodes(queries, local.ListNodesRequest()))
        to_plain(find_agents(queries, local.FindAgentsRequest(specialization="b")))
        to_plain(get_cost(queries, local.GetCostRequest(by=everything)))
        return " ".join(dict.fromkeys(self.seen))[:190]


def _admits(origin: NodeId, rows: Rows) -> bool:
    """Judge a feed's certificates, and take it all the same: its rows are what is tried."""
    return is_admitted(origin, rows, GENESIS.root_keys) or bool(rows)


def resigned(kind: str, payload: bytes, key: Key = NODE) -> Signed:
    """Sign whatever it is with the key that it names: a hostile member can."""
    return Signed(kind, payload, key._private.sign(b"smesh/v1/" + kind.encode() + b"\0" + payload))


def frame(raw: bytes) -> str:
    return _talk([raw])


def conversation(raw: bytes) -> str:
    """Take several frames one after the other: MessagePack of a list of them."""
    try:
        frames = [typed(one, bytes) for one in typed(unpack(raw), list)[:FRAMES_MAX]]
    except TypeError as error:
        raise PeerError("no list of frames") from error
    return _talk(frames)


def _talk(frames: list[bytes]) -> str:
    taking = Taking()
    for one in frames:
        message = message_from_wire(
            pb.Frame.FromString(one), GENESIS.mesh_id, taking.mesh.replication.holds
        )
        if message is not None:
            taking.receive(message)
    return taking.answer()


def row(raw: bytes) -> str:
    """Take a row of a member's feed: MessagePack of its table, its key and its value."""
    try:
        table, key, value = unpack(raw)
        typed(table, str), typed(key, bytes), typed(value, bytes)
    except (TypeError, ValueError) as error:
        raise PeerError("no row") from error
    feed = OwnFeed(NODE, GENESIS.mesh_id, GENESIS.limits, 5)
    feed.write(NODE_TABLE, ONLY_ROW, node_to_row(NodeRecord("peer")))
    feed.write(table, key, value)
    change = feed.flush(1.0)
    if change is None:
        raise PeerError("nothing was written")
    taking = Taking()
    taking.receive(whole(change.header, feed.rows))
    return taking.answer()


def header(payload: bytes) -> str:
    """Take a flush whose header says whatever it is, signed by the neighbour."""
    if CHANGE.flush is None:
        raise ValueError("the flush is there")
    signed = resigned(FLUSH, payload)
    wire = message_to_wire(CHANGE.flush)
    wire.flush.header.payload, wire.flush.header.signature = payload, signed.signature
    return frame(wire.SerializeToString())


def entry(payload: bytes) -> str:
    """Take an entry of the control set, signed by an admin."""
    taking = Taking()
    taking.receive(resigned(CONTROL, payload, USER))
    held = len(taking.mesh.control.entries())
    return f"{held} {taking.answer()}"


def command(payload: bytes) -> str:
    """Take a command along a link, and judge it as its owner does."""
    taking = Taking()
    signed = resigned(COMMAND, payload, USER)
    taking.receive(Routed((NODE_ID, taking.mesh.self_id), 1, Order(7, payload)))
    court = Court(GENESIS.mesh_id, NODE_ID, taking.mesh.control, 1)
    court.judge(signed, RECORD, NODE_ID, 1.0)
    return taking.answer()


def request(payload: bytes) -> str:
    """Open what a hostile member has signed and sealed to us, and answer it."""
    about = pack([GENESIS.mesh_id, SELF_ID, NODE_ID, 7])
    inside = pack(resigned(REQUEST, payload).to_list())
    sealed = seal(SealingKey.of_node(ROOT, GENESIS.mesh_id).public, inside, SEALED_REQUEST + about)
    asked = Correspondence(ROOT, GENESIS.mesh_id, chance).hear(NODE_ID, 7, sealed)
    asked.answer(Answer(piece=b"said", last=True))
    return repr(asked)


def answer(value: bytes) -> str:
    """Open what the owner of a request answers, however hostile."""
    key = SealingKey(bytes(32))
    return repr(Awaited(key, b"").open(seal(key.public, value, SEALED_ANSWER)))


def flush(delta: bytes) -> str:
    """Take a delta that fits its header, whatever it holds, after a snapshot of the feed."""
    ops = delta_from_bytes(delta, GENESIS.limits)
    rows = Rows()
    for place, held in all_rows(FEED.rows).items():
        rows.put(*place, held)
    head = CHANGE.header.head
    for seq, op in enumerate(ops, head.seq + 1):
        rows.put(op.table, op.key, None if op.value is None else Row(head.epoch, seq, op.value))
    digest = sha256(delta).digest()
    fields = replace(
        CHANGE.header,
        first_seq=head.seq + 1,
        last_seq=head.seq + len(ops),
        delta_hash=digest,
        state_hash=rows.state_hash(),
    )
    taking = Taking()
    taking.receive(WHOLE)
    taking.receive(Flush(sign_header(NODE, fields), delta))
    return taking.answer()


def snapshot(raw: bytes) -> str:
    """Take rows that fit their header, whatever they are, from the neighbour."""
    rows = Rows()
    for table, key, held in _entries(raw, GENESIS.limits):
        rows.put(table, key, held)
    fields = replace(CHANGE.header, state_hash=rows.state_hash())
    taking = Taking()
    taking.receive(Snapshot(sign_header(NODE, fields), raw))
    return taking.answer()
