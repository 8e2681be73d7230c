"""The Higress access log: one text template line per request, with the model call in `ai_log`.

Invariant: a whole line is counted once and never again, however the file is rotated, because what
is read is known by the file's first line, and what is counted by the request's own id. Only whole
lines are read. No prompt text leaves this module.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import stat
import zlib
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.core.errors import PeerError
from meshnode.core.ledger import (
    SLOT_MAX,
    SLOT_S,
    Buckets,
    Diagnostics,
    DiagnosticsKey,
    ReaderState,
    UsageRecord,
    cut,
    tier_of,
)
from meshnode.core.packing import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

SOURCE = "higress"
LINE_BYTES_MAX = 1 << 20  # longer: skipped and counted as unparsable
COUNT_MAX = 1 << 40  # more tokens in one request: set aside
BEHIND_BYTES = 4096  # compared before reading on: some request ids are among them
FILES_MAX = 64  # rotated files looked at, the newest first; older ones are not read
OPEN_FILES_MAX = 4  # renamed files kept open until they end; beyond that the oldest is let go
ID_CHARS_MAX = 128  # longer request ids are hashed
DEFAULT_SESSION = "default"
SESSION_HEADERS = (
    "x-openclaw-session-key",
    "x-clawdbot-session-key",
    "x-moltbot-session-key",
    "x-agent-session",
)
ESTIMATED = "reasoning_estimated"  # a flag: nobody reported reasoning, its text was measured
CHARS_PER_TOKEN = 4


class Reason(StrEnum):
    """Why a line is no record."""

    NOT_A_CALL = "not_a_call"
    NO_USAGE = "no_usage"
    UNPARSABLE = "unparsable"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A line that is not counted; `session` is None where the line does not tell."""

    reason: Reason
    session: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What one call read: `state` is to be kept together with `records`, or not at all."""

    state: ReaderState
    records: tuple[UsageRecord, ...]
    diagnostics: Diagnostics
    more: bool
    detail: str


class _ContradictionError(ValueError):
    """The numbers of a call cannot all be true."""


class _Call(msgspec.Struct):
    """The part of `ai_log` that counts. Gateways write numbers as numbers or as strings."""

    session_id: Any = None
    chat_id: Any = None
    model: Any = None
    provider: Any = None
    consumer: Any = None
    project: Any = None
    service_tier: Any = None
    input_token: Any = None
    output_token: Any = None
    total_token: Any = None
    cached_tokens: Any = None
    reasoning_tokens: Any = None
    reasoning: Any = None
    input_token_details: Any = None
    output_token_details: Any = None


_decode_outer = msgspec.json.Decoder(dict[str, Any]).decode
_decode_call = msgspec.json.Decoder(_Call).decode
_LEADING = re.compile(rb'\s*\{\s*"ai_log"\s*:\s*("(?:[^"\\]++|\\.)*+")', re.DOTALL)
_FLAT = re.compile(
    rb'"(request_id|start_time|timestamp|consumer|upstream_cluster|x[-_][a-z]+[-_a-z]*)"'
    rb'\s*:\s*"([^"\\]*)"'
)
_PROVIDER = re.compile(r"\|\|llm-([a-z0-9-]{1,40})\.internal\.")
_AGENT = re.compile(r"agent:([^:]{1,256}):")


def parse_line(line: bytes, fingerprint: str = "", offset: int = 0) -> UsageRecord | Skipped:
    """Read one line. A call without any id is known by its file, place and content."""
    if not line.strip():
        return Skipped(Reason.NOT_A_CALL)
    try:
        outer = _outer(line)
        call = _call(outer.get("ai_log"))
    except (ValueError, RecursionError):
        return Skipped(Reason.UNPARSABLE)
    if call is None:
        return Skipped(Reason.NOT_A_CALL)
    session = _session(call, outer)
    idem_key = _idem_key(call, outer)
    if not idem_key:
        idem_key = f"{SOURCE}:{fingerprint}:{offset}:{sha256(line).hexdigest()[:16]}"
    try:
        return _record(call, outer, session, idem_key) or Skipped(Reason.NO_USAGE, session)
    except ValueError:
        return Skipped(Reason.QUARANTINED, session)


def _record(
    call: _Call, outer: Mapping[str, Any], session: str, idem_key: str
) -> UsageRecord | None:
    usage, flags = _usage(call)
    if usage is None:
        return None
    agent = _AGENT.match(session)
    return UsageRecord(
        idem_key=idem_key,
        source=SOURCE,
        at_s=_at_s(outer),
        session=session,
        project=_text(call.project),
        agent=agent[1] if agent else "",
        owner=_text(call.consumer) or _text(outer.get("consumer")),
        model=_text(call.model) or "unknown",
        provider=_provider(call, outer),
        tier=tier_of(_text(call.service_tier), usage.prompt),
        usage=usage,
        flags=flags,
    )


def _outer(line: bytes) -> Mapping[str, Any]:
    try:
        return _decode_outer(line)
    except ValueError:  # msgspec's own and UnicodeDecodeError both are
        pass
    # The template escapes ai_log only: a quote in a user agent breaks the line, but not its head.
    leading = _LEADING.match(line)
    if leading is None:
        raise ValueError("no log line")
    found: dict[str, Any] = {}
    for name, value in _FLAT.findall(line, leading.end()):
        found.setdefault(name.decode(), value.decode("utf-8", "replace"))
    found["ai_log"] = _lenient(leading[1])
    return found


def _call(ai_log: object) -> _Call | None:
    if ai_log is None or ai_log in ("", "-"):
        return None
    if not isinstance(ai_log, str):
        return msgspec.convert(ai_log, _Call)
    try:
        return _decode_call(ai_log)
    except ValueError:
        return msgspec.convert(_lenient(ai_log.encode("utf-8", "replace")), _Call)


def _lenient(text: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Read JSON with raw control characters and broken characters, as gateways write them."""
    return json.loads(text.decode("utf-8", "replace"), strict=False)


def _usage(call: _Call) -> tuple[Buckets | None, tuple[str, ...]]:
    sent, received = _count(call.input_token), _count(call.output_token)
    if not sent and not received:
        return None, ()
    sent, received = sent or 0, received or 0
    details = {**_details(call.output_token_details), **_details(call.input_token_details)}
    if "cache_creation_input_tokens" in details or "cache_read_input_tokens" in details:
        usage = _like_anthropic(sent, received, details)
    elif any(name in details for name in _GEMINI):
        usage = _like_gemini(sent, received, details)
        return usage, ()
    else:
        usage = _like_openai(sent, received, _first_count(details, "cached_tokens", call))
    return _with_reasoning(usage, call, details)


_GEMINI = ("cached_content_token_count", "tool_use_prompt_token_count", "thoughts_token_count")


def _like_openai(sent: int, received: int, cached: int) -> Buckets:
    """Cached tokens are a part of the input."""
    if cached > sent:
        raise _ContradictionError("more cached than sent")
    return Buckets(input=sent - cached, cache_read=cached, output=received)


def _like_anthropic(sent: int, received: int, details: Mapping[str, Any]) -> Buckets:
    """Cache reads and writes lie outside the input; writes without a breakdown live 5 minutes."""
    written = _count(details.get("cache_creation_input_tokens")) or 0
    lifetimes = _details(details.get("cache_creation"))
    hour = _count(lifetimes.get("ephemeral_1h_input_tokens")) or 0
    minutes = _count(lifetimes.get("ephemeral_5m_input_tokens")) or 0
    written = max(written, hour + minutes)
    return Buckets(
        input=sent,
        cache_read=_count(details.get("cache_read_input_tokens")) or 0,
        cache_write_5m=written - hour,
        cache_write_1h=hour,
        output=received,
    )


def _like_gemini(sent: int, received: int, details: Mapping[str, Any]) -> Buckets:
    """Cached content is a part of the input; tool prompts and thoughts come on top."""
    cached, tools, thoughts = (_count(details.get(name)) or 0 for name in _GEMINI)
    if cached > sent:
        raise _ContradictionError("more cached than sent")
    return Buckets(
        input=sent - cached + tools,
        cache_read=cached,
        output=received + thoughts,
        reasoning=thoughts,
    )


def _with_reasoning(
    usage: Buckets, call: _Call, details: Mapping[str, Any]
) -> tuple[Buckets, tuple[str, ...]]:
    reasoning, outside = _first_count(details, "reasoning_tokens", call), 0
    flags: tuple[str, ...] = ()
    if reasoning > usage.output:
        # Some providers report reasoning beside the output: believe it if the total says so too.
        if _count(call.total_token) != usage.prompt + usage.output + reasoning:
            raise _ContradictionError("more reasoning than output")
        outside = reasoning
    elif not reasoning and isinstance(call.reasoning, str):
        reasoning = min(len(call.reasoning) // CHARS_PER_TOKEN, usage.output)
        flags = (ESTIMATED,) if reasoning else ()
    if reasoning:
        usage = usage + Buckets(output=outside, reasoning=reasoning)
    return usage, flags


def _first_count(details: Mapping[str, Any], name: str, call: _Call) -> int:
    count = _count(details.get(name))
    return (_count(getattr(call, name)) or 0) if count is None else count


def _count(value: object) -> int | None:
    if value is None or value in ("", "-", "null"):
        return None
    try:
        count = int(value) if isinstance(value, (int, float)) else int(str(value)[:24])
    except (ValueError, OverflowError) as error:
        raise _ContradictionError("a count is no number") from error
    if isinstance(value, bool) or not 0 <= count <= COUNT_MAX:
        raise _ContradictionError("a count is out of range")
    return count


def _details(value: object) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or value == "-":
        return ""
    return cut(value.strip())


def _session(call: _Call, outer: Mapping[str, Any]) -> str:
    found = _text(call.session_id)
    for name in SESSION_HEADERS:
        found = found or _text(outer.get(name)) or _text(outer.get(name.replace("-", "_")))
    return found or DEFAULT_SESSION


def _provider(call: _Call, outer: Mapping[str, Any]) -> str:
    cluster = outer.get("upstream_cluster")
    found = _PROVIDER.search(cluster) if isinstance(cluster, str) else None
    return _text(call.provider) or (found[1] if found else "")


def _idem_key(call: _Call, outer: Mapping[str, Any]) -> str:
    for value in (outer.get("request_id"), call.chat_id):
        if isinstance(value, str) and value not in ("", "-"):
            long = len(value) > ID_CHARS_MAX
            raw = value.encode("utf-8", "replace")
            return f"{SOURCE}:{sha256(raw).hexdigest() if long else raw.decode()}"
    return ""


def _at_s(outer: Mapping[str, Any]) -> float:
    text = _text(outer.get("start_time")) or _text(outer.get("timestamp"))
    at = datetime.fromisoformat(text)  # a ValueError: without a time there is no slot for it
    at_s = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    if not 0 <= at_s < SLOT_MAX * SLOT_S:
        raise _ContradictionError("the time is out of range")
    return at_s


@dataclass(frozen=True, slots=True)
class _Place:
    """How far one file is read; `before` is the hash of the bytes that lead up to the offset."""

    device: int
    inode: int
    fingerprint: bytes
    offset: int = 0
    before: bytes = b""
    in_long_line: bool = False  # what follows belongs to a line that is being skipped


class _Places:
    """The position of a reader: places of the files met lately, the latest last."""

    def __init__(self, position: bytes) -> None:
        self._places: dict[tuple[int, int, bytes], _Place] = {}
        with suppress(PeerError, TypeError, ValueError):  # unreadable: read all again, count none
            for values in unpack(position) if position else ():
                self.put(_Place(*values))

    def put(self, place: _Place) -> None:
        key = (place.device, place.inode, place.fingerprint)
        self._places.pop(key, None)
        self._places[key] = place
        while len(self._places) > 2 * FILES_MAX:
            del self._places[next(iter(self._places))]

    def offsets(self, found: os.stat_result) -> set[int]:
        """Return where this inode was left, whatever it held then."""
        ident = (found.st_dev, found.st_ino)
        return {p.offset for p in self._places.values() if (p.device, p.inode) == ident}

    def known(self, fingerprint: bytes) -> list[_Place]:
        """Return where files that begin like this one were left: the furthest first."""
        same = (place for place in self._places.values() if place.fingerprint == fingerprint)
        return sorted(same, key=lambda place: -place.offset)

    def packed(self) -> bytes:
        return pack([list(astuple(place)) for place in self._places.values()])


@dataclass(slots=True)
class _Run:
    """One call of `read`: what it may still read, and what it has found."""

    places: _Places
    bytes_left: int
    session_key: str | None
    records: list[UsageRecord] = field(default_factory=list)
    skipped: Counter[Reason] = field(default_factory=Counter)
    news: set[tuple[int, int]] = field(default_factory=set)
    detail: str = ""
    tail_bytes: int = 0
    live: tuple[int, int] | None = None
    live_begun: bool = False

    def take(self, file: BinaryIO, *, live: bool = False) -> None:
        """Read whole lines on from where this file was left, as far as the budget goes."""
        found = os.fstat(file.fileno())
        fingerprint = _fingerprint(file)
        if fingerprint is None:  # not one whole line yet
            self.tail_bytes = found.st_size if live else self.tail_bytes
            return
        self.live_begun |= live
        place, behind, chunk = self._left_at(file, found, fingerprint)
        whole = chunk.rfind(b"\n") + 1
        tail_bytes = len(chunk) - whole  # of a full chunk these are read again
        in_long_line = place.in_long_line and not whole
        if whole:
            self._lines(chunk[:whole], place)
        elif in_long_line or tail_bytes > LINE_BYTES_MAX:
            self.skipped[Reason.UNPARSABLE] += not in_long_line
            in_long_line, whole, tail_bytes = True, tail_bytes, 0
        self.tail_bytes = tail_bytes if live else self.tail_bytes
        ident, offset = (found.st_dev, found.st_ino), place.offset + whole
        before = _hash_of_end(behind + chunk[:whole])
        self.places.put(_Place(*ident, fingerprint, offset, before, in_long_line))
        if whole:
            self.news.add(ident)
            self.bytes_left -= len(chunk)

    def _left_at(
        self, file: BinaryIO, found: os.stat_result, fingerprint: bytes
    ) -> tuple[_Place, bytes, bytes]:
        """Return a place, the bytes leading up to it, and those after it.

        A copy goes on where its original was left. A file that only begins like one we know,
        because it was emptied or because they all begin alike, is read from its start.
        """
        for place in self.places.known(fingerprint):
            behind, chunk = _chunk(file, place.offset, self.bytes_left)
            if _hash_of_end(behind) == place.before:
                return place, behind, chunk
        place = _Place(found.st_dev, found.st_ino, fingerprint)
        return place, *_chunk(file, 0, self.bytes_left)

    def _lines(self, chunk: bytes, place: _Place) -> None:
        offset, name = place.offset, place.fingerprint.hex()
        for number, line in enumerate(chunk.split(b"\n")[:-1]):
            if number or not place.in_long_line:
                self._line(line, name, offset)
            offset += len(line) + 1

    def _line(self, line: bytes, name: str, offset: int) -> None:
        if len(line) > LINE_BYTES_MAX:
            self.skipped[Reason.UNPARSABLE] += 1
            return
        found = parse_line(line, name, offset)
        if self.session_key is not None and found.session not in (self.session_key, None):
            return
        if isinstance(found, Skipped):
            self.skipped[found.reason] += 1
        else:
            self.records.append(found)

    def diagnostics(self) -> Diagnostics:
        return Diagnostics(
            requests_without_usage=self.skipped[Reason.NO_USAGE],
            quarantined=self.skipped[Reason.QUARANTINED],
            unparsable_lines=self.skipped[Reason.UNPARSABLE],
            partial_tail_bytes=self.tail_bytes,
        )


class HigressReader:
    """Reads one access log on, with the files that it was rotated into. Blocking: use a thread.

    Rotation by renaming (numbered, dated, packed with gzip) and by copying and truncating. A
    renamed file is also read to its end through its open descriptor, whatever its new name is.
    """

    def __init__(self, path: str, session_key: str | None = None) -> None:
        self._path = Path(path).expanduser().absolute()
        self._session_key = session_key
        self._reading = Lock()
        self._held: dict[tuple[int, int], BinaryIO] = {}
        self._gzip_ends: dict[tuple[int, int, int, int], int] = {}
        # With another filter it is another reader: lifting the filter must count the past as well.
        named = f"{SOURCE}\0{self._path}\0{session_key or ''}"
        self.key = DiagnosticsKey(SOURCE, sha256(named.encode("utf-8", "replace")).hexdigest()[:16])

    def read(self, position: bytes, bytes_max: int) -> Reading:
        """Read on from a position, b"" for the start: at most bytes_max, or a single line.

        Never raises for what it finds: `detail` is "ok" or a sentence that says what is wrong.
        """
        run = _Run(_Places(position), bytes_max, self._session_key)
        with self._reading:
            for path in [*_rotated(self._path), self._path]:
                if run.bytes_left > 0:
                    self._try(path, run)
            self._take_renamed(run)
        return Reading(
            state=ReaderState(SOURCE, str(self._path), self.key.path_hash, run.places.packed()),
            records=tuple(run.records),
            diagnostics=run.diagnostics(),
            more=run.bytes_left <= 0,
            detail=run.detail or "ok",
        )

    def close(self) -> None:
        """Let go of all files; waits for a `read` in another thread to end."""
        with self._reading:
            for file in self._held.values():
                file.close()
            self._held.clear()

    def _try(self, path: Path, run: _Run) -> None:
        live = path == self._path
        try:
            if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for a writer
                run.detail = f"{path} is no file"
            elif path.suffix == ".gz" and not live:
                self._take_gzip(path, run)
            else:
                self._take_plain(path, run, live=live)
        except FileNotFoundError:
            if live:
                run.detail = f"waiting for {path}: it does not exist yet"
        except PermissionError:
            run.detail = f"cannot read {path}: let this user read it, for example through its group"
        except (OSError, EOFError, zlib.error) as error:
            run.detail = f"cannot read {path}: {error}"

    def _take_plain(self, path: Path, run: _Run, *, live: bool) -> None:
        file = path.open("rb")
        found = os.fstat(file.fileno())
        ident = (found.st_dev, found.st_ino)
        run.live = ident if live else run.live
        with ExitStack() as stack:
            if live and ident not in self._held:
                self._hold(ident, file)
            else:
                stack.enter_context(file)
            run.take(file, live=live)

    def _hold(self, ident: tuple[int, int], file: BinaryIO) -> None:
        if len(self._held) >= OPEN_FILES_MAX:
            self._held.pop(next(iter(self._held))).close()
        self._held[ident] = file

    def _take_gzip(self, path: Path, run: _Run) -> None:
        found = path.stat()
        key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if self._gzip_ends.get(key) in run.places.offsets(found):
            return
        with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) as file:
            run.take(file)  # type: ignore[arg-type]
        if key[:2] not in run.news:
            self._gzip_ends[key] = max(run.places.offsets(found), default=0)
            while len(self._gzip_ends) > FILES_MAX:
                del self._gzip_ends[next(iter(self._gzip_ends))]

    def _take_renamed(self, run: _Run) -> None:
        """Read files to their end that had our name; let go of them when their heir has begun."""
        for ident in [ident for ident in self._held if ident != run.live]:
            if run.bytes_left > 0:
                run.take(self._held[ident])
                # Nothing new since the position that is safely kept: only then is it read.
                if run.live_begun and ident not in run.news:
                    self._held.pop(ident).close()


def _rotated(path: Path) -> list[Path]:
    """Return what logrotate makes of a name: NAME.1, NAME-DATE, STEM-DATE.EXT, each also .gz."""
    date = r"[.-]\d[\dTZ_.:-]*"
    stem, suffix = re.escape(path.stem), re.escape(path.suffix)
    pattern = rf"(?:{stem}{suffix}{date}|{stem}-\d{{8}}[\dT_-]*{suffix})(?:\.gz)?"
    named = re.compile(pattern).fullmatch
    aged: list[tuple[int, Path]] = []
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if named(entry.name) and entry.name != path.name:
                with suppress(FileNotFoundError):
                    aged.append((entry.stat().st_mtime_ns, Path(entry.path)))
    return [found for _, found in sorted(aged)[-FILES_MAX:]]


def _fingerprint(file: BinaryIO) -> bytes | None:
    """Name a file by its first whole line, which holds a time and a request id."""
    file.seek(0)
    head = file.readline(LINE_BYTES_MAX)
    if not head.endswith(b"\n") and len(head) < LINE_BYTES_MAX:
        return None
    return sha256(head).digest()[:16]


def _chunk(file: BinaryIO, offset: int, bytes_max: int) -> tuple[bytes, bytes]:
    """Return the bytes that lead up to an offset, and what follows: at least a line if there is."""
    behind = min(offset, BEHIND_BYTES)
    file.seek(offset - behind)
    read = file.read(behind + bytes_max)
    if len(read) == behind + bytes_max and b"\n" not in read[behind:]:
        more, newline, _ = file.read(max(LINE_BYTES_MAX + 1 - bytes_max, 0)).partition(b"\n")
        read += more + newline
    return read[:behind], read[behind:]


def _hash_of_end(read: bytes) -> bytes:
    return sha256(read[-BEHIND_BYTES:]).digest()[:8] if read else b""
