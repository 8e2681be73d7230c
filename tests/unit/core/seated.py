"""A node's roster, and feeds of others that tests write as they like."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from msgspec.structs import replace
from removed import removals_of

from meshnode.core.feeds.headers import Header, sign_header
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.ids import NodeId, node_id_of
from meshnode.core.keys import Key
from meshnode.core.membership.genesis import Genesis, Limits
from meshnode.core.sessions.registry import (
    REGISTRY,
    Birth,
    Place,
    Specialist,
    registry_key,
    registry_row,
)
from meshnode.core.tables.removals import (
    Dot,
)
from meshnode.core.tables.roster import Roster
from meshnode.core.tables.tables import Tables

if TYPE_CHECKING:
    from meshnode.core.feeds.feed import Change, Replica

chance = Random(29).randbytes
KEYS = [Key.new(chance) for _ in range(3)]
ME, PEER, OTHER = (node_id_of(key.public) for key in KEYS)
PLACE = Place("agent", "docs")
BOOT = 5


class Seat:
    """One node's roster, and the feeds of two others that tests write as they like."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 - frozen
        genesis = Genesis((KEYS[0].public,), 1, "test", bytes(16), limits)
        self.feeds = {
            node_id_of(key.public): OwnFeed(key, genesis.mesh_id, limits, BOOT) for key in KEYS
        }
        self.own = self.feeds[ME]
        replicas: dict[NodeId, Replica] = dict(self.feeds)
        self.tables = Tables(replicas)
        self.roster = Roster(self.tables, replicas, self.own, BOOT)

    def put(self, origin: NodeId, table: str, key: bytes, value: bytes | None) -> None:
        """Let a node publish a row, and this one tend to it and to what follows from that."""
        self.feeds[origin].write(table, key, value)
        self.flush(origin)

    def flush(self, origin: NodeId = ME) -> None:
        while (change := self.feeds[origin].flush(1.0)) is not None:
            self.tend(change)

    def tend(self, change: Change) -> None:
        assert self.roster.tend(change) == []
        while (own := self.own.flush(1.0)) is not None:
            assert self.roster.tend(own) == []

    def enter(self, origin: NodeId, number: int = 1, place: Place = PLACE) -> Dot:
        entry = Specialist(place.agent_id, place.specialization)
        birth = Birth(BOOT, number)
        self.put(origin, REGISTRY, registry_key(place), registry_row(entry, birth))
        return Dot(origin, self.feeds[origin].head, birth)

    def signed_later(self) -> Header:
        """Return a header that PEER signs for the write after its newest."""
        header = self.feeds[PEER].header
        assert header is not None
        seq = header.last_seq + 1
        return sign_header(KEYS[1], replace(header, first_seq=seq, last_seq=seq))

    def shown(self) -> set[NodeId]:
        return {origin for origin, _ in self.roster.entries()}

    def rows(self, kind: type) -> list[object]:
        return [row for row in removals_of(self.tables, ME) if isinstance(row, kind)]
