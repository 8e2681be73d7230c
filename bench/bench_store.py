"""What a restart costs: opening, reading and proving the feeds of a whole mesh from the disk.

`bench_store.py [ORIGINS [ROWS]]`: 1,000 feeds of 50 rows unless told otherwise.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, TypeVar

from report import Figure, table

from meshnode.core.feeds.feed import Change
from meshnode.core.feeds.headers import FLUSH, parse_header
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.rows import Row, all_rows
from meshnode.core.ids import NodeId, node_key_of
from meshnode.core.keys import Key, Signed, verify
from meshnode.core.membership.genesis import Genesis
from meshnode.store import feeds
from meshnode.store.database import Database

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

CHANCE = Random(1).randbytes
GENESIS = Genesis((bytes(32),), 1, "bench", bytes(16))
VALUE_BYTES = 160  # about a slot of the ledger
Value = TypeVar("Value")
LIMIT_S = 5.0  # to join against 1,000 origins x 50 rows, the network included


def main(origins: int = 1000, rows: int = 50) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "state.db"
        written_s = _timed(lambda: _write(path, origins, rows))
        size_mib = path.stat().st_size / (1 << 20)
        before_mib = _resident_mib()
        opened_s, database = _timed_value(lambda: Database(path))
        began_s = time.process_time()
        loaded_s, held = _timed_value(lambda: database.run_now(feeds.load))
        busy_s = time.process_time() - began_s
        if len(held.feeds) != origins or held.damaged:
            raise SystemExit("not all feeds were proved")
        resident_mib = _resident_mib() - before_mib
        del held
        read_s = _timed(lambda: database.run_now(_read_only))
        signatures_s = _timed(lambda: database.run_now(_verify_only))
        own_s = _timed(lambda: database.run_now(feeds.load_own, _some_origin(database)))
        database.close()
    table(
        f"{origins:,} feeds of {rows:,} rows, {size_mib:.0f} MiB on disk",
        [
            Figure("opened, every page checked (quick_check)", opened_s, "s"),
            Figure(
                "read and proved", loaded_s, "s", LIMIT_S if (origins, rows) == (1000, 50) else None
            ),
            Figure("of which processor time", busy_s, "s"),
            Figure("of which reading rows from SQLite, no more", read_s, "s"),
            Figure("of which verifying signatures", signatures_s, "s"),
            Figure("memory of what was read", resident_mib, "MiB"),
            Figure("one feed alone", own_s * 1000, "ms"),
            Figure("written, each feed a snapshot", written_s, "s"),
        ],
    )


def _write(path: Path, origins: int, rows: int) -> None:
    database = Database(path)
    for _ in range(origins):
        database.run_now(feeds.save, [_feed(rows)], [])
    database.close()


def _feed(rows: int) -> Change:
    feed = OwnFeed(Key.new(CHANCE), GENESIS.mesh_id, GENESIS.limits, 1)
    for number in range(rows):
        feed.write("ledger", b"key %d" % number, CHANCE(VALUE_BYTES))
    change = None
    while feed.waiting:
        change = feed.flush(1.0)
    if change is None:
        raise SystemExit("a feed without rows")
    return Change(feed.origin, change.header, None, all_rows(feed.rows))


def _read_only(connection: sqlite3.Connection) -> None:
    rows: dict[str, dict[tuple[str, bytes], Row]] = {}
    found = connection.execute("SELECT origin, tab, key, epoch, seq, value FROM rows")
    for origin, tab, key, epoch, seq, value in found:
        rows.setdefault(origin, {})[tab, key] = Row(epoch, seq, value)


def _verify_only(connection: sqlite3.Connection) -> None:
    for payload, signature in connection.execute("SELECT payload, signature FROM feeds"):
        signed = Signed(FLUSH, payload, signature)
        verify(signed, FLUSH, node_key_of(parse_header(signed).origin))


def _some_origin(database: Database) -> NodeId:
    found = database.run_now(lambda c: c.execute("SELECT origin FROM feeds LIMIT 1").fetchone())
    return NodeId(found[0])


def _timed(work: Callable[[], object]) -> float:
    return _timed_value(work)[0]


def _timed_value(work: Callable[[], Value]) -> tuple[float, Value]:
    begin = time.perf_counter()
    value = work()
    return time.perf_counter() - begin, value


def _resident_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
