"""How much of what the genesis allows our feed takes, and who may take what is left.

Invariant: what is counted is the most that the feed may hold on its way, whatever leaves first: of
a row that waits, the larger of what is out and of what comes; of rows that leave together, what
they grow by together. So whatever was let in leads to states that every reader takes.

`node`, `links` and `audit`, a row each, always have room: without them a node can neither link nor
leave. What is used must not keep a session from being opened, nor a registration from being taken
back: rows of other tables leave a twentieth free for `sessions` and `removals`, and none of them
takes the last tenth from the others. Nor must sessions that are opened keep those that are there
from saying that they have ended: END_BYTES a row are left to that, half of the twentieth at most.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from meshnode.core.feeds.feed import BUCKET_BYTES_MAX, TABLES_MAX
from meshnode.core.feeds.rows import ROW_BYTES, bucket_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from meshnode.core.feeds.rows import Place, Rows
    from meshnode.core.membership.genesis import Limits

ALWAYS: frozenset[Place] = frozenset({("node", b""), ("links", b""), ("audit", b"")})
LAST = frozenset({"sessions", "removals"})  # tables that may take all that is left
OTHERS_PART = 10  # of the room, what no other table takes from the rest
LAST_PART = 20  # of the room, what is left to those
TABLES_LEFT = 8  # for tables of ours
SESSIONS = "sessions"
END_BYTES = 512  # what a session's row grows by until it has ended, rounded up

Move = tuple[bytes, "int | None", "int | None"]
"""A key, and the bytes of key and value before and after; None where there is no row."""


class Growth(msgspec.Struct, frozen=True):
    """By how much rows of one table grow; `buckets` as they travel."""

    rows: int = 0
    bytes: int = 0
    buckets: Mapping[int, int] = msgspec.field(default_factory=dict)

    def __sub__(self, other: Growth) -> Growth:
        """Return what this is more than another."""
        if other is NONE:
            return self
        buckets = dict(self.buckets)
        for number, size in other.buckets.items():
            buckets[number] = buckets.get(number, 0) - size
        return Growth(self.rows - other.rows, self.bytes - other.bytes, buckets)

    def at_least_nothing(self) -> Growth:
        """Leave out what shrinks: it may leave last."""
        if self is NONE:
            return self
        buckets = {number: size for number, size in self.buckets.items() if size > 0}
        return Growth(max(0, self.rows), max(0, self.bytes), buckets)


NONE = Growth()


def growth_of(table: str, moves: Iterable[Move]) -> Growth:
    """Add up what becomes of rows of one table; the rows that always have room count nothing."""
    rows = total = 0
    buckets: dict[int, int] = {}
    for key, before, after in moves:
        if before == after or (table, key) in ALWAYS:
            continue
        number = bucket_of(key)
        rows += (after is not None) - (before is not None)
        total += (after or 0) - (before or 0)
        buckets[number] = buckets.get(number, 0) + _sent(after) - _sent(before)
    return Growth(rows, total, buckets) if buckets else NONE


def _sent(size: int | None) -> int:
    return 0 if size is None else size + ROW_BYTES


class Share(NamedTuple):
    """How many rows a table has, how many bytes of keys and values, and how many it may have."""

    rows: int
    bytes: int
    rows_max: int
    bytes_max: int


class _Shares(msgspec.Struct, frozen=True):
    """What is there for all, for all tables but LAST, and for one of these."""

    all: int
    common: int
    one: int

    @classmethod
    def of(cls, most: int) -> _Shares:
        return cls(most, most - most // LAST_PART, most - most // OTHERS_PART)


class Room:
    """What one feed takes, as far as it is counted here."""

    def __init__(self, limits: Limits) -> None:
        self._of_rows = _Shares.of(max(0, limits.rows_max - len(ALWAYS)))
        self._of_bytes = _Shares.of(
            max(0, limits.feed_bytes_max - len(ALWAYS) * limits.row_bytes_max)
        )
        self._rows = Counter[str]()  # by table
        self._bytes = Counter[str]()
        self._buckets = Counter[tuple[str, int]]()

    def count(self, rows: Rows) -> None:
        """Count all that a feed holds."""
        for table, held in rows.tables.items():
            self.add(
                table,
                growth_of(table, ((k, None, len(k) + len(row.value)) for k, row in held.items())),
            )

    def add(self, table: str, growth: Growth) -> None:
        """Count what a table grows by, or shrinks."""
        if growth is NONE:
            return
        self._rows[table] += growth.rows
        self._bytes[table] += growth.bytes
        for number, size in growth.buckets.items():
            self._buckets[table, number] += size

    def refusal(self, table: str, more: Growth, *, at_all: bool = False) -> str:
        """Say why a table may not grow by so much; empty if it may.

        With `at_all` it may take what is left for others: only what no reader takes is refused.
        """
        if more is NONE:
            return ""
        is_last = at_all or table in LAST
        kept = 0 if at_all else self._kept_for_ends(table, more)
        total, most = self._rows.total(), self._of_rows
        if more.rows > 0 and total + more.rows > (most.all if is_last else most.common):
            return f"this node publishes {total} rows already"
        if more.rows > 0 and not is_last and self._rows[table] + more.rows > most.one:
            return f"this node publishes {self._rows[table]} rows of its table {table} already"
        if self._lacks_bytes(table, more, kept, is_last=is_last) or self._lacks_table(table, more):
            return "this node publishes as many bytes as the mesh allows"
        return ""

    def share(self, table: str) -> Share:
        """Return what a table has, and may have beside all others; not of one of LAST."""
        rows, bytes_ = (
            max(0, min(of.one, of.common - counted.total() + counted[table]))
            for of, counted in ((self._of_rows, self._rows), (self._of_bytes, self._bytes))
        )
        return Share(self._rows[table], self._bytes[table], rows, bytes_)

    def _kept_for_ends(self, table: str, more: Growth) -> int:
        """Return how many bytes are left to sessions that say what has become of them."""
        opened = more.rows if table == SESSIONS else 0
        if table == SESSIONS and opened <= 0:
            return 0
        rows = self._rows[SESSIONS] + opened
        return min(rows * END_BYTES, (self._of_bytes.all - self._of_bytes.common) // 2)

    def _lacks_bytes(self, table: str, more: Growth, kept: int, *, is_last: bool) -> bool:
        total, most = self._bytes.total() + more.bytes, self._of_bytes
        lacks = total + kept > most.all
        if more.rows > 0 and not is_last:
            lacks |= total > most.common or self._bytes[table] + more.bytes > most.one
        elif not is_last:  # what is out may grow into what others have not taken
            lacks |= _common(self._bytes) + more.bytes > most.common
        return (lacks and more.bytes > 0) or any(
            size > 0 and self._buckets[table, number] + size > BUCKET_BYTES_MAX
            for number, size in more.buckets.items()
        )

    def _lacks_table(self, table: str, more: Growth) -> bool:
        if more.rows <= 0 or self._rows[table] or table in LAST:
            return False
        return sum(count > 0 for count in self._rows.values()) >= TABLES_MAX - TABLES_LEFT

    def is_overfull(self) -> bool:
        """Whether more is counted than may be there, or what is left for LAST was taken."""
        return (
            self._rows.total() > self._of_rows.all
            or self._bytes.total() > self._of_bytes.all
            or _common(self._rows) > self._of_rows.common
            or _common(self._bytes) > self._of_bytes.common
            or any(size > BUCKET_BYTES_MAX for size in self._buckets.values())
        )


def _common(counted: Counter[str]) -> int:
    return counted.total() - sum(counted[table] for table in LAST)
