"""Why a figure of the ledger is what it is: the records behind it, and the lines they were read in.

Invariant: the records are those that count; what a file says now is read anew and changes nothing.
"""

from __future__ import annotations

import gzip
import re
import zlib
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec.structs import asdict, replace

from meshnode.app.sessions.reporting import SOURCE as REPORTS
from meshnode.client.durations import rfc3339
from meshnode.core.errors import NotFoundError
from meshnode.core.ledger import marks
from meshnode.core.ledger.ledger import SLOT_S, slot_number
from meshnode.core.ledger.prices import cost_nusd, fee_text, per_million_text, usd_text
from meshnode.ingest.claude import ADVICE
from meshnode.ingest.higress import DEFAULT_SESSION
from meshnode.ingest.lenient import file_named, file_text, is_there
from meshnode.ingest.reading import Findings, Reason, unmarked
from meshnode.ingest.sources import SOURCES
from meshnode.ingest.tree import CHUNK_BYTES, WHOLE_BYTES_MAX
from meshnode.store import ledger, reports, usage_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from meshnode.app.cost.tally import Prices
    from meshnode.core.ledger.ledger import Buckets, UsageRecord
    from meshnode.core.ledger.prices import Priced
    from meshnode.core.ledger.usage_log import Entry
    from meshnode.ingest.sources import Source
    from meshnode.store.database import Database

LINES_MAX = 1000  # told of; the rest is only counted
ENTRIES_MAX = 1000  # of one session, with their lines; the rest is only counted
COUNTED, AGAIN, WORSE = "counted", "the same response again", "another line of it counts"
MOVED = "counted, where it was before"  # its file was rotated, packed or archived since
_WORD = re.compile(r"\w")
_WHOLE = rb"(?<![\w:-])(?:%b)(?![\w:-])"  # names, and no parts of longer ones
FATES = {
    Reason.NO_USAGE: "a request without usage",
    Reason.UNPARSABLE: "cannot be read",
    Reason.QUARANTINED: "numbers that cannot be true",
    Reason.DUPLICATE: AGAIN,
}


class Line(msgspec.Struct, frozen=True):
    """A line that has to do with a figure; `line` counts from 1."""

    file: str
    line: int
    offset: int
    fate: str
    output: int | None = None


class _Found(NamedTuple):
    """A line, and what it says of which response, if it says anything."""

    line: Line
    key: str = ""
    offset: int = 0  # of the record, as the ledger has it


def explain(database: Database, name: str, prices: Prices) -> dict[str, Any]:
    """Explain a response, by its id or key, or a session; raises NotFoundError.

    Agents of several sessions may have reported the same id: then it is all of those. Also one that
    a gateway's logs, as far as they are still there, tell to be of that chat id.
    """
    entries, history, more = _response(database, name), True, 0
    if not entries:
        entries = database.run_now(usage_log.of_session, name, 0, ENTRIES_MAX)
        history = False
        if len(entries) == ENTRIES_MAX:
            more = len(database.run_now(usage_log.seqs_of_session, name)) - ENTRIES_MAX
    if not entries:
        entries, history = database.run_now(reports.of_id, name), True
        entries, more = entries[:ENTRIES_MAX], max(len(entries) - ENTRIES_MAX, 0)
    if not entries:
        entries, history = _chats(database, name), True
    if not entries:
        raise NotFoundError(
            f"nothing is counted under {name[:60]!r}",
            "name a response or a session: usage --by session lists those",
        )
    counting = {entry.record.idem_key: entry for entry in entries}
    texts = {name, *map(_ident, entries)} if history else set(map(_session, entries))
    needles = tuple(text.encode("utf-8", "replace") for text in texts if _WORD.search(text))
    lines = list(_told(list(_lines(database, counting, needles)), counting))
    gone = sorted({e.record.file for e in entries if e.record.file and not is_there(e.record.file)})
    return {
        "id": name,
        "kind": "response" if history else "session",
        "records": [_record(entry, counting, prices) for entry in entries],
        "records_more": more,
        "lines": [asdict(line) for line in lines[:LINES_MAX]],
        "lines_more": max(len(lines) - LINES_MAX, 0),
        "files_gone": gone,
    }


def _response(database: Database, name: str) -> list[Entry]:
    for key in (name, *(f"{source}:{name}" for source in (*SOURCES, REPORTS))):
        if found := database.run_now(usage_log.revisions, key):
            return found + database.run_now(usage_log.beside, key + ADVICE)
    return []


def _chats(database: Database, name: str) -> list[Entry]:
    """Look for a chat id: a gateway counts requests by its own ids, and keeps those alone."""
    # Of the call itself, whose quotes are escaped once if at all: more often in what was said.
    said = re.escape(name.encode("utf-8", "replace"))
    chat_id = re.compile(rb'[,{]\s*\\?"chat_id\\?"\s*:\s*\\?"%b\\?"' % said)
    keys: dict[str, None] = {}
    for source_name, path, _ in database.run_now(ledger.readers):
        if source_name in marks.GATEWAYS and source_name in SOURCES:
            with suppress(OSError):
                for file in SOURCES[source_name].files(path):
                    keys.update(dict.fromkeys(_keys(SOURCES[source_name], (file, path), chat_id)))
    known = islice(keys, ENTRIES_MAX)
    return [entry for key in known for entry in database.run_now(usage_log.revisions, key)]


def _keys(source: Source, place: tuple[Path, str], of: re.Pattern[bytes]) -> Iterator[str]:
    """Yield the keys of the responses that lines with a pattern tell of."""
    file, root = place
    parser = source.parser(file, root)
    with suppress(OSError, EOFError, zlib.error):
        for _, offset, piece in _pieces(source, file):
            if of.search(piece):
                found = Findings()
                parser.take(*unmarked(piece, offset), found)
                yield from (record.idem_key for record in found.records)


def _ident(entry: Entry) -> str:
    """Return the id of a response as its line has it, unless we have made it up ourselves."""
    record = entry.record
    ident = record.idem_key.removeprefix(f"{record.source}:").removeprefix(f"{record.session}:")
    return ident.partition(ADVICE)[0]


def _session(entry: Entry) -> str:
    """Return the session of a response as its line has it, or the consumer that we name it by."""
    return entry.record.session.removeprefix(f"{DEFAULT_SESSION}:")


def _lines(
    database: Database, counting: Mapping[str, Entry], needles: tuple[bytes, ...]
) -> Iterator[_Found]:
    sources = {entry.record.source for entry in counting.values()}
    # Keys that we made up ourselves are in no file.
    named = {entry.record.file for entry in counting.values()}
    for source_name, path, _ in database.run_now(ledger.readers):
        if source_name in sources and source_name in SOURCES:
            source = SOURCES[source_name]
            with suppress(OSError):  # a tree that is gone, or not for us
                root = file_named(path)
                for file in source.files(root):
                    if file_text(file) in named or _holds(file, needles):
                        yield from _fates(source, (file, root), counting, needles)


def _fates(
    source: Source,
    place: tuple[Path, str],
    counting: Mapping[str, Entry],
    needles: tuple[bytes, ...],
) -> Iterator[_Found]:
    file, root = place
    parser, name = source.parser(file, root), file_text(file)
    whole = re.compile(_WHOLE % b"|".join(map(re.escape, needles))) if needles else None
    with suppress(OSError, EOFError, zlib.error):  # gone by now, or packed and broken
        for number, offset, piece in _pieces(source, file):
            found = Findings()
            parser.take(*unmarked(piece, offset), found)
            for record in found.records:
                entry = counting.get(record.idem_key)
                if entry is not None:
                    fate = _fate(record, entry.record)
                    line = Line(name, number, offset, fate, record.usage.output)
                    yield _Found(line, record.idem_key, record.offset)
            if found.remarks and whole and whole.search(piece):
                for remark in found.remarks:
                    yield _Found(Line(name, number, remark.offset, FATES[remark.reason]))


def _told(found: list[_Found], counting: Mapping[str, Entry]) -> Iterator[Line]:
    """Say of the first that is as the one which counted, at its offset, that it was it.

    Of responses whose line is no more in the file that it was read in: logs are renamed.
    """
    there = {one.key for one in found if one.line.fate == COUNTED}
    for line, key, offset in found:
        is_lost = line.fate == AGAIN and key in counting and key not in there
        if is_lost and offset == counting[key].record.offset:
            there.add(key)
            yield replace(line, fate=MOVED)
        else:
            yield line


def _fate(record: UsageRecord, counted: UsageRecord) -> str:
    if (record.file, record.offset) == (counted.file, counted.offset):
        return COUNTED
    return AGAIN if record.usage == counted.usage else WORSE


def _holds(file: Path, needles: tuple[bytes, ...]) -> bool:
    """Tell whether a file holds one of these; a packed one may."""
    try:
        if file.suffix == ".gz" or not file.is_file():  # opening a pipe would wait for a writer
            return file.is_file()
        with file.open("rb") as opened:
            before, most = b"", max(map(len, needles), default=0)
            while chunk := opened.read(CHUNK_BYTES):
                looked = before + chunk
                if any(needle in looked for needle in needles):
                    return True
                before = chunk[-most:]
    except OSError:  # gone since it was listed
        pass
    return False


def _pieces(source: Source, file: Path) -> Iterator[tuple[int, int, bytes]]:
    """Read lines with their numbers and offsets, or one document; what is too long is left out."""
    with (gzip.open if file.suffix == ".gz" else open)(file, "rb") as opened:
        if source.is_whole(file):
            whole = opened.read(WHOLE_BYTES_MAX + 1)
            if len(whole) <= WHOLE_BYTES_MAX:
                yield 1, 0, whole
            return
        number, offset, in_long_line = 1, 0, False
        while piece := opened.readline(CHUNK_BYTES):
            ends = piece.endswith(b"\n")
            if ends and not in_long_line:
                yield number, offset, piece
            number, offset, in_long_line = number + ends, offset + len(piece), not ends


def _record(entry: Entry, counting: Mapping[str, Entry], prices: Prices) -> dict[str, Any]:
    record, charge, tier = entry.record, entry.charge, marks.unmarked(entry.record.tier)
    # As its half hour is, of which the total is made: a price may begin in the middle of one.
    half_hour_s = slot_number(record.at_s) * SLOT_S
    priced = prices.rates(record.model, record.provider, tier, half_hour_s)
    counts = counting[record.idem_key] is entry
    return {
        "key": record.idem_key,
        "source": record.source,
        "at": rfc3339(record.at_s),
        "session": marks.session_in(record.session, record.tier),
        "log_session": record.session,
        "project": record.project,
        "model": record.model,
        "tier": tier,
        "usage": record.usage.by_name,
        "cost_usd": None if charge.cost_nusd is None else usd_text(charge.cost_nusd),
        "price_source": charge.price_source,
        "price": None if priced is None else _price(record.usage, priced),
        "flags": list(record.flags),
        "file": record.file,
        "offset": record.offset,
        "revision": entry.revision,
        "counts": counts,
    }


def _price(usage: Buckets, priced: Priced) -> dict[str, Any]:
    """Multiply out what a response costs by the lists of now, as they are for its half hour."""
    rates, reasoning = priced.rates, min(usage.reasoning, usage.output)
    by_token = (
        ("input", usage.input, rates.input_pusd),
        ("cache_read", usage.cache_read, rates.cache_read_pusd),
        ("cache_write_5m", usage.cache_write_5m, rates.cache_write_5m_pusd),
        ("cache_write_1h", usage.cache_write_1h, rates.cache_write_1h_pusd),
        ("output", usage.output - reasoning, rates.output_pusd),
        ("reasoning", reasoning, rates.reasoning_pusd),
    )
    each = (
        ("web_search", usage.web_search, rates.web_search_pusd),
        ("request", 1, rates.request_pusd),
    )
    parts = [_part(*one, "usd_per_million", per_million_text) for one in by_token if one[1]]
    parts += [_part(*one, "usd_each", fee_text) for one in each if one[1] and one[2]]
    cost = usd_text(cost_nusd(usage, rates, 1))
    return {
        "source": priced.source,
        "matched": priced.matched,
        "as_standard": priced.as_standard,
        "cost_usd": cost,
        "parts": parts,
    }


def _part(
    what: str, count: int, pusd: int, unit: str, text: Callable[[int], str]
) -> dict[str, Any]:
    return {"what": what, "count": count, unit: text(pusd), "cost_usd": fee_text(count * pusd)}
