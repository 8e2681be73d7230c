"""What queries answer with: sessions, members and agents as seen from one node.

Invariant: a view is a value; it never changes after it was given out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from meshnode.core.ledger.ledger import Buckets
from meshnode.core.sessions.registry import load_of
from meshnode.core.sessions.sessions import SessionRecord, State

if TYPE_CHECKING:
    from meshnode.app.audit.alarms import Alarm
    from meshnode.core.control.settings import Terms
    from meshnode.core.ids import NodeId
    from meshnode.core.links.liveness import MemberState


class Missing(msgspec.Struct, frozen=True):
    """A member that could not be heard."""

    node_name: str
    state: MemberState
    observed_at_s: float | None


class Coverage(msgspec.Struct, frozen=True):
    """How much of the mesh an answer speaks for."""

    nodes_known: int
    nodes_heard: int
    oldest_s: float | None
    missing: tuple[Missing, ...]
    missing_more: int


class SessionView(msgspec.Struct, frozen=True):
    """A session as seen from here."""

    record: SessionRecord
    node_id: NodeId
    node_name: str
    state: State
    observed_at_s: float
    usage: Buckets = msgspec.field(default_factory=Buckets)
    cost_nusd: int | None = None
    model: str | None = None

    @property
    def alive(self) -> bool:
        """Reachable and not ended."""
        return self.state is not State.UNREACHABLE and not self.record.ended

    @property
    def active(self) -> bool:
        """At work, and reachable."""
        return self.state in {State.RUNNING, State.WAITING_PERMISSION}


class NodeView(msgspec.Struct, frozen=True):
    """A member as seen from here."""

    node_id: NodeId
    name: str
    state: MemberState
    addresses: tuple[str, ...]
    epoch: int
    version: str
    labels: dict[str, str]
    sessions: int
    since_s: float
    last_heard_s: float | None
    links: tuple[NodeId, ...]
    is_self: bool
    journal_generation: int


class AgentView(msgspec.Struct, frozen=True):
    """An entry of the registry whose agent is alive."""

    agent_id: str
    session_id: str | None
    node_id: NodeId
    node_name: str
    specialization: str = ""
    attributes: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def load(self) -> float | None:
        """The attribute of that name, as a share from 0 to 1, if it is one."""
        return load_of(self.attributes.get("load", ""))


class Selection(msgspec.Struct, frozen=True):
    """Which sessions, in which order, and which page of them."""

    filter: str = ""
    node: str = ""
    specialization: str = ""
    owner: str = ""
    agent_id: str = ""
    session_id: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    sort: str = ""
    limit: int = 0
    next: str = ""


class Trouble(msgspec.Struct, frozen=True):
    """Why a peer is not linked."""

    peer: str
    reason: str
    at_s: float


class Source(msgspec.Struct, frozen=True):
    """How far a log is read."""

    source: str
    path: str
    records: int
    detail: str


class HeldSession(msgspec.Struct, frozen=True):
    """A session that stands still because of a budget, until somebody resumes it."""

    session_id: str
    agent_id: str
    node_id: NodeId
    node_name: str


class AheadBudget(msgspec.Struct, frozen=True):
    """What a key has said of a budget, dated ahead of this node's clock. It does not count yet."""

    name: str
    issuer: str  # a key id
    issued_s: int
    removes: bool


class BudgetView(msgspec.Struct, frozen=True):
    """A budget, and where it stands as seen from this node. Times are seconds since 1970."""

    budget_id: str
    name: str
    terms: Terms
    issuer: str  # a key id; empty: the configuration of this node
    issued_s: int
    state: str
    reason: str
    amount: int  # in the unit of the terms
    tokens: int
    percent: int
    start_s: int
    end_s: int
    nodes_heard: int
    nodes_known: int
    unpriced: tuple[tuple[str, int], ...] = ()  # models, and their tokens
    unpriced_more: int = 0  # models beside those
    unpriced_more_tokens: int = 0
    held: tuple[HeldSession, ...] = ()
    held_more: int = 0  # sessions beside those
    by_admin: bool = False


class Stopped(msgspec.Struct, frozen=True):
    """What a node that ends leaves behind: sessions, neighbours that heard it, other members."""

    kept: int
    closed: int
    links: int
    members: int


class Status(msgspec.Struct, frozen=True):
    """What a node says about itself. `role` is empty where this home may not command."""

    node_id: NodeId
    name: str
    mesh_id: str
    mesh_name: str
    version: str
    pid: int
    started_at_s: float
    listen: str
    enrolment: str
    nodes_alive: int
    links: int
    sessions: int
    mdns: str
    rss_bytes: int
    role: str
    troubles: tuple[Trouble, ...] = ()
    sources: tuple[Source, ...] = ()
    heard_by_mdns: int = 0
    seeds: tuple[str, ...] = ()
    loop_lag_s: float = 0.0
    feeds_held: int = 0
    feeds_wanted: int = 0  # known to be held elsewhere, and on their way
    other_meshes: str = ""  # that mDNS has heard here, in words
    build: str = ""  # of a wheel; none: a source tree
    schema: int = 0  # of its database
    alarms: tuple[Alarm, ...] = ()
