"""The ledger of a home, read into and asked without a node.

Invariant: what was counted stays, whatever becomes of the logs; a node that runs on the same home
may read the same logs meanwhile, and nothing is counted twice. Nothing here opens a socket.
"""

from __future__ import annotations

from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec
from msgspec.structs import replace

from meshnode.client.durations import rfc3339, seconds_of
from meshnode.client.holding import check_steps
from meshnode.client.home import make_private
from meshnode.core.errors import ConflictError, DamagedError, StorageError
from meshnode.core.ledger.ledger import Diagnostics, StoredReader
from meshnode.core.ledger.marks import names_in
from meshnode.ingest.ahead import Pieces, alone, readings
from meshnode.ingest.lenient import file_text
from meshnode.ingest.reading import SourceState, is_news, moved_on, together
from meshnode.ingest.sources import SOURCES, reader_of
from meshnode.node.configuration.pricing import charging, prices_of
from meshnode.node.ledger.answers import plain
from meshnode.store import counters, ledger, rounds, usage_log
from meshnode.store.database import Database
from meshnode.store.frozen import read_home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from meshnode.client.home import Home
    from meshnode.core.ledger.ledger import Batch, CounterKey, LedgerRow, Slot
    from meshnode.ingest.reading import Reader, Remark, SourceConfig

READ_BYTES_MAX = 8 << 20  # read at a time; what is more is read ahead
PIECES_TOGETHER, RECORDS_TOGETHER = 8, 8192  # kept in one transaction, whichever comes first
CACHE_KIB = 16 << 10  # of pages: new records go to all places of an index
LOG_PAGES = 8192  # so that a page that changes with each transaction is put into place once
PATIENCE_MS = 60_000  # with others that read logs: a piece is written in seconds
REMARKS_MAX = 1000  # of one call; the counts are of all
Answer = TypeVar("Answer")
UNREAD = "not read: what it says could not be kept"
HERE = "here"  # the one node that is heard
DROPPED = (
    "what was recorded before {} may be missing: records are kept for 90 days, and sources and"
    " paths are told apart by them alone (usage without --source and --path has all)"
)
BLOCKS_DROPPED = (
    "what was recorded before {} may be missing, and the first block may have begun before it does"
    " here: records are kept for 90 days"
)


class Read(msgspec.Struct, frozen=True):
    """What became of one source: its state, and where something was left out, and why.

    `again` lines, since ever, told of responses that were counted already.
    """

    state: SourceState
    remarks: tuple[Remark, ...]
    again: int = 0


class Wanted(msgspec.Struct, frozen=True):
    """Which usage: of some sources, below some paths, of one session; empty means all."""

    sources: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    session: str | None = None

    @property
    def is_all_sources(self) -> bool:
        """Whether the slots, which do not tell sources apart, can answer."""
        return not self.sources and not self.paths


class Asked(msgspec.Struct, frozen=True):
    """How to sum it: groups, both ends in RFC 3339 or None, and the zone of days."""

    by: tuple[str, ...] = ()
    since: str | None = None
    until: str | None = None
    tz: str = "UTC"
    prices_at: str | None = None  # of which moment prices are; None: each use's own
    most: int = 0  # groups shown, the rest as one; 0: too many are refused


class Usage:
    """The ledger of one home; enter it."""

    def __init__(self, home: Home, now_s: Callable[[], float], prices: str = "") -> None:
        """Answer with the prices of a file, if one is named; what is kept has the home's own."""
        self._home = home
        self._now_s = now_s
        self._is_frozen = False
        self._held: dict[SourceConfig, Reader] | None = None  # by whoever follows logs
        self._files: set[tuple[str, str]] | None = None  # of all records, since it was read last
        self._lasting: list[str] = []  # what is off and stays so: the configuration, the disk
        self._own = prices_of(home, "", self._lasting)
        self._charge = charging(self._own)
        self._prices = prices_of(home, prices) if prices else self._own

    def __enter__(self) -> Self:
        """Open the ledger, of a new home if need be; one that cannot be written as it is.

        Raises what a home or a disk may, and ConflictError beside a node of an older version.
        """
        make_private(self._home.path)
        path = self._home.database
        try:
            self._database = Database(
                path,
                checked=False,
                cache_kib=CACHE_KIB,
                log_pages=LOG_PAGES,
                patience_ms=PATIENCE_MS,
                before_steps=partial(check_steps, self._home),
            )
        except StorageError as trouble:
            try:
                self._database = Database(path, checked=False, frozen=True)
            except (StorageError, DamagedError):
                raise trouble from None
            self._lasting.append(f"{trouble.message}: this is what was known")
            self._is_frozen = True
        return self

    @classmethod
    def looked_at(
        cls, home: Home, now_s: Callable[[], float], asking: Callable[[Self], Answer]
    ) -> Answer:
        """Ask the ledger of a home and change nothing, not even one of an older version."""

        def reading(database: Database) -> Answer:
            ledger = cls(home, now_s)
            ledger._database, ledger._is_frozen = database, True
            return asking(ledger)

        return read_home(home.database, reading, checked=False)

    def __exit__(self, *_: object) -> None:
        """Close the ledger, and the logs that were followed."""
        for reader in (self._held or {}).values():
            reader.close()
        self._database.close()

    @property
    def faults(self) -> list[str]:
        """What is off with the user's prices as they are by now, the configuration or the disk."""
        return list(dict.fromkeys([*self._lasting, *self._own.faults, *self._prices.faults]))

    def forget_places(self, sources: Iterable[SourceConfig]) -> None:
        """Let sources be read once more from their start: no record is forgotten."""
        for source in sources:
            reader = reader_of(source)
            self._database.run_now(ledger.forget_places, reader.key)

    def read(
        self,
        source: SourceConfig,
        progress: Callable[[int], None] = lambda _records: None,
    ) -> Read:
        """Read what is new in a source, and keep it; tell how many records there are meanwhile."""
        self._files = None
        reader = (self._held or {}).get(source) or reader_of(source)
        run = self._database.run_now
        stored = run(ledger.load, reader.key) or StoredReader({}, Diagnostics())
        if self._is_frozen:
            known = stored.diagnostics.records
            return Read(source.state(known, UNREAD), ())
        remarks: list[Remark] = []
        with self._pieces(source, reader, stored.places) as pieces:
            self._load()  # a second process may be reading already
            found, is_ready = pieces.readings, pieces.is_ready
            for reading in together(found, PIECES_TOGETHER, RECORDS_TOGETHER, is_ready):
                remarks += reading.remarks[: REMARKS_MAX - len(remarks)]
                if is_news(reading.batch, stored):
                    rows = self._keep(replace(reading.batch, began=stored.places))
                    stored = moved_on(stored, reading.batch, rows)
                progress(stored.diagnostics.records)
        while source.messages and run(rounds.prune):
            pass
        records = stored.diagnostics.records
        state = source.state(records, reading.detail)
        return Read(state, tuple(remarks), stored.diagnostics.duplicates_ignored)

    def _keep(self, batch: Batch) -> list[LedgerRow]:
        """Keep what was read; of what another process has read meanwhile, the records alone.

        Its place is then where the next call goes on, so what is left out beyond is counted there.
        """
        run, now_ms = self._database.run_now, int(self._now_s() * 1000)
        try:
            return run(ledger.commit, batch, now_ms, self._charge)
        except ConflictError:
            tail = Diagnostics(partial_tail_bytes=batch.diagnostics.partial_tail_bytes)
            records = replace(batch, places={}, diagnostics=tail)
            return run(ledger.commit, records, now_ms, self._charge)

    def follow(self) -> None:
        """Keep what is read from now on open, so that a log that is renamed is read to its end."""
        self._held = {}

    @contextmanager
    def _pieces(
        self, source: SourceConfig, reader: Reader, places: Mapping[bytes, bytes]
    ) -> Iterator[Pieces]:
        if self._held is None:
            with closing(reader), readings(reader, places, READ_BYTES_MAX, self._charge) as pieces:
                yield pieces
        else:  # a second process would move on in files that stay open
            self._held[source] = reader
            yield alone(reader, places, READ_BYTES_MAX)

    def _load(self) -> None:
        """Load what prices and sums usage, before there is any; prices as they are by now."""
        import meshnode.app.cost.cost  # noqa: F401, PLC0415 - loaded for later; a log may be read meanwhile

        self._own.source_text()
        self._prices.source_text()

    def has(self, source: str) -> bool:
        """Tell whether anything was ever recorded of a source."""
        return any(name == source for name, _ in self._all_files())

    def may_be_counted_elsewhere(self, source: SourceConfig, wanted: Wanted) -> bool:
        """Tell whether a source looks like a copy of what was read beyond the paths wanted.

        Transcripts keep their names; a log that tells of what is counted is enough of a copy.
        """
        described = SOURCES[source.source]
        is_owned = described.owns(wanted.paths)
        names = {
            PurePath(file).name
            for name, file in self._all_files()
            if name == source.source and file and not is_owned(file)
        }
        if not (described.is_tree and names):
            return bool(names)
        with suppress(OSError):  # what cannot be listed was told when it was read
            return any(file_text(path.name) in names for path in described.files(source.path))
        return False

    def answer(self, wanted: Wanted, asked: Asked) -> dict[str, Any]:
        """Sum what was read, as `cost` does; raises UsageError for an unknown grouping or zone."""
        from meshnode.app.cost.cost import OwnedSlot, are_priced_alike, cost  # noqa: PLC0415 - see `_load`
        from meshnode.app.cost.cutting import BLOCK, CostQuery  # noqa: PLC0415 - as above

        since_s, until_s = _seconds(asked.since), _seconds(asked.until)
        query = CostQuery(
            asked.by,
            since_s,
            until_s,
            asked.tz,
            prices_at_s=_seconds(asked.prices_at),
            most=asked.most,
        )

        def owned(slots: Iterable[tuple[CounterKey, Slot]]) -> list[OwnedSlot]:
            session = wanted.session
            return [
                OwnedSlot(HERE, HERE, key, slot)
                for key, slot in slots
                if slot.records and (session is None or session in names_in(key.session, key.tier))
            ]

        may_be_coarse = BLOCK not in asked.by and self._is_all_there_is(wanted)
        is_counted = wanted.is_all_sources or may_be_coarse
        rows = owned(self._all_slots() if is_counted else self._slots_of(wanted))
        blocks = None
        if BLOCK in asked.by:
            from meshnode.node.ledger.blocks import Blocks  # noqa: PLC0415 - rarely needed

            blocks = Blocks(query, rows)
            query = blocks.query
        diagnostics = self._diagnostics(wanted)
        found = cost(rows, diagnostics, query, self._prices)
        if may_be_coarse and not (found.tz_exact and are_priced_alike(rows, self._prices)):
            found = cost(owned(self._slots_of(wanted)), diagnostics, query, self._prices)
        answer = plain(found)
        if blocks:
            answer |= blocks.told(found, answer, self._now_s(), partial(self._ends, wanted))
        if not wanted.is_all_sources:
            answer["notes"] += self._dropped(since_s, BLOCKS_DROPPED if blocks else DROPPED)
        return answer

    def _is_all_there_is(self, wanted: Wanted) -> bool:
        """Whether what sources or paths name is all that was ever recorded: counters tell of it."""
        if wanted.is_all_sources:
            return False  # none is named
        is_wanted = self._is_wanted(wanted)
        return all(is_wanted(*one) for one in self._all_files()) and not self._dropped(
            None, DROPPED
        )

    def _dropped(self, since_s: float | None, said: str) -> list[str]:
        """Say from when records are kept, if what was asked for may begin before."""
        first = self._database.run_now(usage_log.page, 0, 1)
        if not first or first[0][0].seq == 1:
            return []
        kept_s = first[0][0].recorded_ms / 1000
        is_before = since_s is None or since_s < kept_s
        return [said.format(rfc3339(kept_s))] if is_before else []

    def explain(self, name: str) -> dict[str, Any]:
        """Say which lines and rates made a figure, by the id of a response or of a session."""
        from meshnode.node.ledger.explaining import explain  # noqa: PLC0415 - rarely needed

        value = explain(self._database, name, self._prices)
        if value["kind"] == "session":
            answer = self.answer(Wanted(session=name), Asked())
            value["total"] = {
                part: answer[part] for part in ("records", "totals", "cost_usd", "unpriced")
            }
        return value

    def session(self, name: str) -> dict[str, Any] | None:
        """Sum up one session as `show` tells of it, also by the start of its id; None if unknown.

        Raises ConflictError if it fits several.
        """
        from meshnode.client.records.counted import begun  # noqa: PLC0415 - for `show`
        from meshnode.client.records.logged import BY, summed  # noqa: PLC0415 - as above

        known = {name for k, _ in self._all_slots() for name in names_in(k.session, k.tier)}
        session = name if name in known else begun(name, known)
        answer = self.answer(Wanted(session=session), Asked(by=BY))
        if not answer["records"]:
            return None
        return summed(session, answer) | {"nodes": {HERE: None}}

    def rounds(self, session: str, *, messages: bool) -> dict[str, Any]:
        """Return `rounds` and `rounds_total` of a session, as its owner has them."""
        from meshnode.client.records.logged import plain  # noqa: PLC0415 - for `show`
        from meshnode.node.ledger.rounds import rounds_of  # noqa: PLC0415 - as above

        return plain(*rounds_of(self._database, session, with_texts=messages))

    def _all_files(self) -> set[tuple[str, str]]:
        if self._files is None:
            self._files = self._database.run_now(usage_log.files)
        return self._files

    def _all_slots(self) -> list[tuple[CounterKey, Slot]]:
        return self._database.run_now(counters.counted)

    def _slots_of(self, wanted: Wanted) -> list[tuple[CounterKey, Slot]]:
        return self._database.run_now(usage_log.slots_where, self._is_wanted(wanted))

    def _ends(self, wanted: Wanted, since_s: float, until_s: float) -> tuple[float, float] | None:
        is_wanted = self._is_wanted(wanted)
        return self._database.run_now(usage_log.ends_where, is_wanted, since_s, until_s)

    def _is_wanted(self, wanted: Wanted) -> Callable[[str, str], bool]:
        named = wanted.sources or tuple(SOURCES)  # what agents report is in no log
        owned = {name: SOURCES[name].owns(wanted.paths) for name in named}

        def is_wanted(source: str, file: str) -> bool:
            return source in owned and (not wanted.paths or owned[source](file))

        return is_wanted

    def _diagnostics(self, wanted: Wanted) -> list[Diagnostics]:
        readers = self._database.run_now(ledger.readers)
        return [
            diagnostics
            for source, path, diagnostics in readers
            if source in (wanted.sources or (source,)) and path in (wanted.paths or (path,))
        ]


def _seconds(moment: str | None) -> float | None:
    return None if moment is None else seconds_of(moment)
