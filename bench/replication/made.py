"""A mesh as one node's disk has it: members that were admitted, and what they published."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from random import Random
from typing import TYPE_CHECKING

from meshnode.core.feeds.feed import Change
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.rows import all_rows
from meshnode.core.ids import SessionId, new_u64, node_id_of
from meshnode.core.keys import Key
from meshnode.core.ledger.ledger import LEDGER, Buckets, Slot, SlotKey
from meshnode.core.ledger.ledger_rows import key_to_row, slot_to_row
from meshnode.core.membership.certificates import from_pem, issue_node_ca
from meshnode.core.membership.members import NODE, ONLY_ROW, NodeRecord, node_to_row
from meshnode.core.sessions.sessions import SESSIONS, SessionRecord, State, session_to_row
from meshnode.node.clock import SystemClock
from meshnode.node.homes.founding import device_key, read_genesis
from meshnode.store import feeds

if TYPE_CHECKING:
    from meshnode.client.home import Home
    from meshnode.core.membership.genesis import Genesis

SESSIONS_EACH = 10
MODELS = ("claude-opus-4-1", "claude-sonnet-4-5", "gpt-5")


class Makers:
    """Makes members of the mesh that a home was initialised with, and their feeds."""

    def __init__(self, home: Home) -> None:
        self.genesis: Genesis = read_genesis(home)
        self._admitter = device_key(home)
        self._word = from_pem(home.certificates.read_bytes())[1]
        self._chance = Random(4).randbytes
        self._now_s = SystemClock().wall_s()

    def feed(self, number: int, rows: int, sessions: int = SESSIONS_EACH) -> OwnFeed:
        """Return the feed of a member: its record, some sessions, and ledger slots up to `rows`."""
        key = Key.new(self._chance)
        own = issue_node_ca(self._admitter, node_id_of(key.public), self._now_s, self._chance)
        feed = OwnFeed(key, self.genesis.mesh_id, self.genesis.limits, new_u64(self._chance))
        member = NodeRecord(
            f"n{number}", (), started_at_s=self._now_s, certificates=(own, self._word)
        )
        feed.write(NODE, ONLY_ROW, node_to_row(member))
        for place in range(min(sessions, rows - 1)):
            record = self.session(f"{number:05}x{place:07}")
            feed.write(SESSIONS, record.session_id.encode(), session_to_row(record))
        for place in range(rows - 1 - sessions):
            slot = SlotKey(
                f"s{number}-{place % 97}", MODELS[place % 3], "standard", 900_000 + place
            )
            usage = Buckets(1000 + place, 50_000, 0, 0, 700, 10, 0)
            feed.write(LEDGER, key_to_row(slot), slot_to_row(Slot(3, usage, "a", "o", "p", "x")))
        while feed.flush(self._now_s):
            pass
        return feed

    def session(self, name: str) -> SessionRecord:
        """Return a running session."""
        return SessionRecord(
            SessionId(name),
            new_u64(self._chance),
            f"agent-{name}",
            State.RUNNING,
            self._now_s,
            self._now_s,
            owner="bench",
            project="replication",
            cwd="/srv/work",
            labels={"site": "hall-4"},
        )

    def store(self, home: Home, count: int, rows: int, sessions: int = SESSIONS_EACH) -> int:
        """Put feeds on a stopped node's disk; return how many bytes of rows that is."""
        size = 0
        with closing(sqlite3.connect(home.database, isolation_level=None)) as connection:
            for number in range(count):
                feed = self.feed(number, rows, sessions)
                size += feed.rows.bytes
                if feed.header is None:
                    raise ValueError("a feed with rows has a header")
                change = Change(feed.origin, feed.header, None, all_rows(feed.rows))
                feeds.save(connection, [change], [])
        return size
