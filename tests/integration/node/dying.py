"""A process that writes as a node does, and is killed in the midst of it.

Called as `python dying.py HOME WAY [POINT ...]`: for each point one child works in HOME/POINT.db.
It ends by SIGKILL before its POINTth SQLite statement (way `statement`), or by SIGXFSZ within the
write that would make a file longer than POINT bytes (`bytes`; `checkpoint`, where the WAL is
written back all the time). Without a point a child works till the end (`statement`; it prints how
many statements that took) or for ever (`on`). What it was told to be on disk it appends to
HOME/POINT.told, a JSON list a line.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import resource
import signal
import sqlite3
import sys
from itertools import count
from pathlib import Path
from random import Random

from meshnode.app.audit.alarms import Alarms
from meshnode.app.ports import JournalEntry
from meshnode.core.commands.commands import RECEIPT
from meshnode.core.feeds.feed import Change, Replica
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.rows import Rows, all_rows
from meshnode.core.keys import Key
from meshnode.core.membership.genesis import Genesis
from meshnode.node.homes.books import StoredJournal
from meshnode.node.homes.persistence import FeedWriter
from meshnode.store import audit
from meshnode.store.database import LOG_PAGES, Database

CHANCE = Random(77).randbytes
KEYS = [Key.new(CHANCE) for _ in range(4)]
GENESIS = Genesis((KEYS[0].public,), 1, "lab", bytes(16))
ROUNDS = 12
_connect = sqlite3.connect


async def work(database: Database, told: int, rounds: range | count[int]) -> None:
    """Write flushes of ours and of others, snapshots, control entries and commands."""
    feeds = [OwnFeed(key, GENESIS.mesh_id, GENESIS.limits, 1) for key in KEYS]
    ours, *others = feeds
    published = asyncio.Queue[Change]()
    replicas = {feed.origin: feed for feed in feeds}
    alarms = Alarms(lambda: 0.0, lambda _alarm, _raised: None)
    writer = FeedWriter(database, replicas.__getitem__, published.put_nowait, alarms)
    running = asyncio.get_running_loop().create_task(writer.run())
    journal = StoredJournal(database)
    rider = audit.AuditRider(database.run_now(audit.begin, KEYS[0].public, 7))
    rider.on_arrived = lambda tail: _tell(told, "audited", tail.seq, tail.hash.hex())
    database.carry(rider)
    for number in rounds:
        for feed in feeds:
            feed.write("sessions", b"%d" % number, b"%d" % number * 600)
            feed.write("node", b"", b"%d" % number)
            if number % 3 == 2:
                feed.write("sessions", b"%d" % (number - 1), None)
            writer.put(_flushed(feed), ours=feed is ours)
        replaced = others[number % len(others)]
        writer.put(_replaced(replaced), ours=False)
        entry = KEYS[0].sign("control", {"number": number})
        writer.put_entry(entry)
        change = await published.get()
        _tell(told, "head", change.header.epoch, change.header.last_seq)
        _tell(told, "entry", entry.hash.hex())  # they travelled in the same transaction
        command_id = number.to_bytes(16, "big")
        rider.put(audit.Noted(number, {"kind": "command_accepted"}))
        await journal.begin(JournalEntry(command_id, bytes(32), 1 << 40), 0.0)
        _tell(told, "begun", command_id.hex())
        rider.put(audit.Noted(number, {"kind": "command_executed"}))
        await journal.finish(command_id, KEYS[0].sign(RECEIPT, {"number": number}))
        _tell(told, "finished", command_id.hex())
    await writer.drained()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    database.close()


def _say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _flushed(feed: OwnFeed) -> Change:
    change = feed.flush(1.0)
    if change is None:
        raise AssertionError("nothing was written")
    return change


def _replaced(feed: OwnFeed) -> Change:
    """Replace a feed by a snapshot of what it is after one more write."""
    feed.write("node", b"", b"snapshot")
    header = _flushed(feed).header
    rows = Rows()
    for (table, key), row in all_rows(feed.rows).items():
        rows.put(table, key, row)
    return Replica(feed.origin, GENESIS.limits).replace(header, rows)


def _tell(told: int, *words: object) -> None:
    os.write(told, json.dumps(words).encode() + b"\n")


def _die_at_statement(point: int | None) -> None:
    """Count the statements of every connection; the POINTth does not begin."""
    statements = count(1)

    def note(_statement: str) -> None:
        if next(statements) == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def connect(*args, **kwargs) -> sqlite3.Connection:
        connection = _connect(*args, **kwargs)
        connection.set_trace_callback(note)
        return connection

    sqlite3.connect = connect
    if point is None:
        atexit.register(lambda: _say(next(statements) - 1))


def _die_at_byte(point: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (point, point))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


def _child(home: Path, way: str, point: int | None) -> None:
    name = "end" if point is None else str(point)
    told = os.open(home / f"{name}.told", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    if way == "statement":
        _die_at_statement(point)
    elif point is not None:
        _die_at_byte(point)
    rounds = count() if way == "on" else range(ROUNDS)
    log_pages = 4 if way == "checkpoint" else LOG_PAGES
    asyncio.run(work(Database(home / f"{name}.db", log_pages=log_pages), told, rounds))


def main(home: str, way: str, *points: str) -> None:
    """Run one child a point, one after the other."""
    if not points:
        _child(Path(home), way, None)
    for point in points:
        pid = os.fork()
        if pid == 0:
            _child(Path(home), way, int(point))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        _say([int(point), os.waitstatus_to_exitcode(status)])


if __name__ == "__main__":
    main(*sys.argv[1:])
