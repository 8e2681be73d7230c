"""What a status line tells of this machine: the ledger of a home, with a little of one transcript.

Claude Code asks several times a second, from many processes on one home. Invariant: nobody is
waited for, at most READ_BYTES_MAX are read, and of logs that nobody has ever read nothing is: a
first reading is `usage`'s, or a node's. What cannot be had now is told as unknown.
"""

from __future__ import annotations

import os
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from meshnode.app.cost.cost import OwnedSlot, cost
from meshnode.app.cost.cutting import CostQuery
from meshnode.client.holding import check_steps
from meshnode.core.errors import MeshError
from meshnode.core.ledger.ledger import slot_number
from meshnode.core.ledger.marks import names_in
from meshnode.core.ledger.prices import usd_text
from meshnode.ingest.claude import MARKS, SOURCE, OneSession, Transcripts
from meshnode.ingest.reading import is_news
from meshnode.ingest.tree import TreeReader
from meshnode.node.configuration.pricing import charging, prices_of
from meshnode.store import counters, ledger, usage_log
from meshnode.store.database import Database
from meshnode.store.frozen import read_frozen
from meshnode.store.turns import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from meshnode.app.cost.tally import Prices
    from meshnode.client.home import Home
    from meshnode.core.ledger.ledger import CounterKey, Slot, StoredReader

    Plain = dict[str, Any]

READ_BYTES_MAX = 4 << 20  # of a transcript at a time; of more the next call reads on
PATIENCE_MS = 50  # with who writes just now; then what is kept is told
Result = TypeVar("Result")
_HERE = ""  # the node of all rows


def of_home(home: Home, named: tuple[str, str], since_s: float, now_s: float) -> Plain | None:
    """Return `usage_read, today` and perhaps the session's cost, as far as the ledger knows them.

    `named` are the session's id and the path of its transcript, whose cost is told once that is
    read to its end; today is what was used since a moment. None while others write, or what is
    there cannot be read.
    """
    try:
        if not home.database.exists():
            return {"usage_read": False, "today": None}
        prices = prices_of(home)
        session, transcript = named
        is_read = _read_on(home, transcript, now_s, prices)
        known = session if is_read else ""
        return _read(home, lambda database: _sums(database, known, since_s, prices))
    except (_Busy, MeshError, OSError, ValueError):  # the last: of an id that cannot be one
        return None


class _Busy(Exception):  # noqa: N818 - nothing is wrong
    """Another process is about to write into the ledger."""


class _Ledger(Database):
    """The ledger, to be read; one of an older version is not copied for that, and fails."""

    copy_bytes_max = 0


def _read(home: Home, reading: Callable[[Database], Result]) -> Result:
    path = home.database
    opened = partial(_Ledger, path, checked=False, patience_ms=PATIENCE_MS, frozen=True)
    return read_frozen(reading, opened, path)


def _read_on(home: Home, transcript: str, now_s: float, prices: Prices) -> bool:
    """Read what is new of a session; True if all of it is counted by now."""
    found = _read(home, lambda database: _reader_of(database, transcript))
    if found is None:
        return False
    reader, stored = found
    with Turn(home.database.with_name(f"{home.database.name}-turn"), 0).tried() as is_free:
        if not is_free:
            raise _Busy
    reading = reader.read(stored.places, READ_BYTES_MAX)
    tail_bytes = stored.diagnostics.partial_tail_bytes  # of all files: we have seen one
    counts = replace(reading.batch.diagnostics, partial_tail_bytes=tail_bytes)
    batch = replace(reading.batch, diagnostics=counts, began=stored.places)
    if is_news(batch, stored):
        beside = partial(check_steps, home)
        with closing(
            Database(home.database, checked=False, patience_ms=PATIENCE_MS, before_steps=beside)
        ) as writable:
            writable.run_now(ledger.commit, batch, int(now_s * 1000), charging(prices))
    return not reading.more


def _reader_of(database: Database, transcript: str) -> tuple[TreeReader, StoredReader] | None:
    """Return what reads a transcript on where `usage` or a node has left it, if one ever has."""
    if os.path.normpath(transcript) != transcript:  # also none: it would be "."
        return None
    for source, path, _ in database.run_now(ledger.readers):
        found = _found_in(path, transcript) if source == SOURCE else None
        if found is not None:
            reader = TreeReader(OneSession(found), path, marks=MARKS)
            stored = database.run_now(ledger.load, reader.key)
            if stored is not None:
                return reader, stored
    return None


def _found_in(root: str, transcript: str) -> str | None:
    """Return what `usage` calls a transcript below a root; None if it would not read it there."""
    try:
        if os.path.isfile(root):  # noqa: PTH113 - a path may be one that cannot be
            return root if os.path.realpath(root) == os.path.realpath(transcript) else None
        return Transcripts().session_at(Path(root), Path(transcript))
    except ValueError:
        return None


def _sums(database: Database, session: str, since_s: float, prices: Prices) -> Plain:
    run = database.run_now
    if not run(ledger.readers):
        return {"usage_read": False, "today": None}
    seq = run(usage_log.last_before, int(since_s * 1000))
    rows = run(counters.counted_since, slot_number(since_s), seq)
    figures = {"usage_read": True, "today": _sum(rows, since_s, prices)}
    if session:
        spent = _sum(_of(session, run(counters.of_session, session)), None, prices)
        if spent["records"] and spent["cost_usd"] is not None:
            figures |= {"session_cost_usd": spent["cost_usd"], "session_cost_source": "ledger"}
    return figures


def _of(session: str, rows: Iterable[tuple[CounterKey, Slot]]) -> list[tuple[CounterKey, Slot]]:
    return [(key, slot) for key, slot in rows if session in names_in(key.session, key.tier)]


def _sum(rows: Iterable[tuple[CounterKey, Slot]], since_s: float | None, prices: Prices) -> Plain:
    owned = [OwnedSlot(_HERE, _HERE, key, slot) for key, slot in rows if slot.records]
    answer = cost(owned, [], CostQuery(since_s=since_s), prices)
    usd = None if answer.cost_nusd is None else usd_text(answer.cost_nusd)
    return {"records": answer.records, "cost_usd": usd, "unpriced": bool(answer.unpriced)}
