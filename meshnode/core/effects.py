"""What a core asks of the world: it never acts, it returns these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from meshnode.core.feeds.feed import Change
    from meshnode.core.feeds.forks import Proof
    from meshnode.core.feeds.messages import Message, Order, Reply
    from meshnode.core.feeds.rows import Place, Row
    from meshnode.core.ids import NodeId
    from meshnode.core.keys import Signed


STATES = "states"  # named beside tables: the state of a member has changed


@dataclass(frozen=True, slots=True)
class Send:
    """Hand a message to the link with a neighbour; never waits. Without a link nothing happens."""

    peer: NodeId
    message: Message


@dataclass(frozen=True, slots=True)
class Dial:
    """Try to open a link; the world answers with `linked` or `dial_failed`."""

    peer: NodeId
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HangUp:
    """End the link with a neighbour; when `parting`, what waits for it is written out first."""

    peer: NodeId
    reason: str
    parting: bool = False


@dataclass(frozen=True, slots=True)
class Wake:
    """Call the core back at a time, with the same name."""

    at_s: float
    name: str


@dataclass(frozen=True, slots=True)
class Persist:
    """Write a change of a feed to disk; if `ours`, answer with `persisted` once it is synced."""

    change: Change
    ours: bool


@dataclass(frozen=True, slots=True)
class PersistControl:
    """Write an entry of the control set to disk."""

    entry: Signed


@dataclass(frozen=True, slots=True)
class PersistFork:
    """Write to disk why an epoch is in quarantine."""

    proof: Proof


@dataclass(frozen=True, slots=True)
class DropControl:
    """Delete entries of the control set from disk, by id."""

    entry_ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell whoever waits which rows of one feed, or whose states, have changed.

    `replaced` if a snapshot took the place of all rows: those it does not have are gone unnamed.
    """

    origin: NodeId | None = None
    places: Collection[Place] = ()
    replaced: bool = False
    members: Collection[NodeId] = ()  # whose states changed
    written: Mapping[Place, tuple[Row | None, Row | None]] = field(
        default_factory=dict
    )  # before and after, of the places, unless all was replaced

    @property
    def tables(self) -> frozenset[str]:
        """Name the tables, and STATES if states changed."""
        named = {table for table, _ in self.places}
        return frozenset(named | {STATES} if self.members else named)


@dataclass(frozen=True, slots=True)
class Report:
    """Put something into the node's log: a refused frame, a lost edge, a raised epoch."""

    event: str
    peer: NodeId | None
    detail: str


@dataclass(frozen=True, slots=True)
class Obey:
    """Judge what came sealed over links, and answer along `route`, which ends at its sender."""

    order: Order
    route: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """What was sent over links was answered."""

    reply: Reply


Effect = (
    Send
    | Dial
    | HangUp
    | Wake
    | Persist
    | PersistControl
    | DropControl
    | PersistFork
    | Announce
    | Report
    | Obey
    | Answered
)
