"""What a core asks of the world: it never acts, it returns these."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from meshnode.core.feeds.feed import Change
    from meshnode.core.feeds.forks import Proof
    from meshnode.core.feeds.messages import Message, Order, Reply
    from meshnode.core.feeds.rows import Place, Row
    from meshnode.core.ids import NodeId
    from meshnode.core.keys import Signed


STATES = "states"  # named beside tables: the state of a member has changed


class Send(msgspec.Struct, frozen=True):
    """Hand a message to the link with a neighbour; never waits. Without a link nothing happens."""

    peer: NodeId
    message: Message


class Dial(msgspec.Struct, frozen=True):
    """Try to open a link; the world answers with `linked` or `dial_failed`."""

    peer: NodeId
    addresses: tuple[str, ...]


class HangUp(msgspec.Struct, frozen=True):
    """End the link with a neighbour; when `parting`, what waits for it is written out first."""

    peer: NodeId
    reason: str
    parting: bool = False


class Wake(msgspec.Struct, frozen=True):
    """Call the core back at a time, with the same name."""

    at_s: float
    name: str


class Persist(msgspec.Struct, frozen=True):
    """Write a change of a feed to disk; if `ours`, answer with `persisted` once it is synced."""

    change: Change
    ours: bool


class PersistControl(msgspec.Struct, frozen=True):
    """Write an entry of the control set to disk."""

    entry: Signed


class PersistFork(msgspec.Struct, frozen=True):
    """Write to disk why an epoch is in quarantine."""

    proof: Proof


class DropControl(msgspec.Struct, frozen=True):
    """Delete entries of the control set from disk, by id."""

    entry_ids: tuple[bytes, ...]


class Announce(msgspec.Struct, frozen=True):
    """Tell whoever waits which rows of one feed, or whose states, have changed.

    `replaced` if a snapshot took the place of all rows: those it does not have are gone unnamed.
    """

    origin: NodeId | None = None
    places: Collection[Place] = ()
    replaced: bool = False
    members: Collection[NodeId] = ()  # whose states changed
    written: Mapping[Place, tuple[Row | None, Row | None]] = msgspec.field(
        default_factory=dict
    )  # before and after, of the places, unless all was replaced

    @property
    def tables(self) -> frozenset[str]:
        """Name the tables, and STATES if states changed."""
        named = {table for table, _ in self.places}
        return frozenset(named | {STATES} if self.members else named)


class Report(msgspec.Struct, frozen=True):
    """Put something into the node's log: a refused frame, a lost edge, a raised epoch."""

    event: str
    peer: NodeId | None
    detail: str


class Obey(msgspec.Struct, frozen=True):
    """Judge what came sealed over links, and answer along `route`, which ends at its sender."""

    order: Order
    route: tuple[NodeId, ...]


class Answered(msgspec.Struct, frozen=True):
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
