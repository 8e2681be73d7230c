"""The transcripts of Claude Code: one line for each block of an answer, its usage in all of them.

Invariant: a response is counted once, by the id its provider gave it, wherever and however often it
is told. Of its lines the one counts, whole, that is not of a sidechain, then the one with the most
output, then one that no fork copied, at the time of the earliest. No prompt text leaves this
module.
"""

from __future__ import annotations

import re
from datetime import datetime
from hashlib import sha256
from os.path import realpath
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from meshnode.core.ledger import INCOMPLETE, Buckets, UsageRecord
from meshnode.core.tiers import tier_of
from meshnode.ingest.lenient import (
    BEGIN,
    COUNT_MAX,
    END,
    ContradictionError,
    any_json,
    count_of,
    file_text,
    key_of,
    moment_of,
    text_of,
)
from meshnode.ingest.reading import Reason
from meshnode.ingest.walking import entries, files_below, first_below, leads_on

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from meshnode.ingest.reading import Findings

SOURCE = "claude"
SYNTHETIC = "<synthetic>"  # the model of answers that the program made up itself
MARK = b'"output_tokens"'  # in every line with usage; inside a JSON text its quotes are escaped
MAIN = 1 << 42  # what a line outside a sidechain ranks above any output
SUBAGENTS = "subagents"


_Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]  # other spellings are read leniently


class _Lifetimes(msgspec.Struct, gc=False):
    ephemeral_5m_input_tokens: _Count = 0
    ephemeral_1h_input_tokens: _Count = 0


class _Tools(msgspec.Struct, gc=False):
    web_search_requests: _Count = 0


class _Usage(msgspec.Struct, gc=False):
    input_tokens: _Count = 0
    cache_creation_input_tokens: _Count = 0
    cache_read_input_tokens: _Count = 0
    output_tokens: _Count = 0
    cache_creation: _Lifetimes | None = None
    server_tool_use: _Tools | None = None
    service_tier: str | None = None
    speed: str | None = None


class _Message(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    usage: _Usage | None = None


class _Origin(msgspec.Struct, gc=False):
    sessionId: str | None = None  # noqa: N815 - Claude Code's name


class _Line(msgspec.Struct, gc=False):
    """The part of a line that counts."""

    type: str | None = None
    isSidechain: bool = False  # noqa: N815 - Claude Code's name
    sessionId: str | None = None  # noqa: N815 - Claude Code's name
    requestId: str | None = None  # noqa: N815 - Claude Code's name
    forkedFrom: _Origin | None = None  # noqa: N815 - Claude Code's name; of a line that a fork copied
    timestamp: _Moment | None = None
    cwd: str | None = None
    message: _Message | None = None


_decode = msgspec.json.Decoder(_Line).decode


class _Told(msgspec.Struct, gc=False):
    """One line that counts, and what is known of its response within one piece of a file."""

    key: str
    rank: int
    at: datetime
    offset: int
    line: _Line
    message: _Message
    usage: _Usage
    project: str

    @property
    def says(self) -> tuple[object, ...]:
        """What decides between lines of one rank."""
        message = self.message
        return (self.usage, message.model, self.session, self.project)

    @property
    def session(self) -> str:
        """The session that a line names: of one that a fork copied, where it was copied from."""
        origin = self.line.forkedFrom
        return text_of(origin.sessionId if origin else None) or text_of(self.line.sessionId)


_EVERYTHING = Path("/")


class Transcript:
    """Reads one transcript; satisfies `Parser`. Its state is the name of the project."""

    def __init__(self, path: Path, state: bytes = b"", root: Path = _EVERYTHING) -> None:
        self._file = file_text(path)
        self._name = file_text(path.stem)
        parts = path.parts
        inside = first_below(root, path, SUBAGENTS)
        # A subagent belongs to the session whose folder it lies in, whatever its lines say.
        self._nested_in = text_of(parts[inside - 1]) if inside else ""
        self._folder = parts[inside - 2] if inside > 1 else path.parent.name
        self._project = state.decode("utf-8", "replace")

    def take(self, chunk: bytes, offset: int, findings: Findings) -> None:
        """Read whole lines. See `Parser`."""
        told: dict[str, _Told] = {}
        find, rfind = chunk.find, chunk.rfind
        at, end = find(MARK), -1
        while at >= 0:
            begin = max(rfind(b"\n", end + 1, at), end) + 1
            end = find(b"\n", at)
            try:
                found = self._told(chunk[begin:end], offset + begin)
            except ContradictionError:
                findings.skip(Reason.QUARANTINED, self._file, offset + begin)
            except (ValueError, RecursionError):
                findings.skip(Reason.UNPARSABLE, self._file, offset + begin)
            else:
                if found is not None:
                    self._keep(found, told, findings)
            at = find(MARK, end)
        findings.records.extend(map(self._record, told.values()))

    def state(self) -> bytes:
        """Return the project's name, once a line has told it."""
        return self._project.encode("utf-8", "replace")

    def _told(self, raw: bytes, offset: int) -> _Told | None:
        """Read a line; None is no answer of a model. Raises ContradictionError and ValueError."""
        try:
            line = _decode(raw)
        except ValueError:  # msgspec's own and UnicodeDecodeError both are
            line = _leniently(raw)
        message = line.message
        if message is None or message.usage is None or line.type not in _ANSWERS:
            return None
        if message.model == SYNTHETIC:
            return None
        usage = message.usage
        ident = key_of(SOURCE, message.id) or key_of(SOURCE, line.requestId)
        if not ident:
            ident = f"{SOURCE}:{self._name}:{offset}:{sha256(raw).hexdigest()[:16]}"
        at = line.timestamp
        if at is None or not BEGIN <= at < END:
            raise ContradictionError("no time, or none that has a slot")
        rank = _rank(line, usage, is_ended=message.stop_reason is not None)
        if not self._project and line.cwd:
            self._project = project_of(self._folder, line.cwd)
        project = self._project or text_of(self._folder)
        return _Told(ident, rank, at, offset, line, message, usage, project)

    def _keep(self, found: _Told, told: dict[str, _Told], findings: Findings) -> None:
        """Keep of each response the line that counts. It may be told again in another piece."""
        known = told.setdefault(found.key, found)
        if known is found:
            return
        if known.rank == found.rank and known.says != found.says:
            findings.records.append(self._record(found))  # the ledger decides, by its own order
            return
        findings.skipped[Reason.DUPLICATE] += 1
        at = min(known.at, found.at)
        if found.rank > known.rank:
            told[found.key] = known = found
        known.at = at

    def _record(self, told: _Told) -> UsageRecord:
        usage = _buckets(told.usage)
        model = text_of(told.message.model) or "unknown"
        service = "fast" if told.usage.speed == "fast" else told.usage.service_tier or ""
        return UsageRecord(
            idem_key=told.key,
            source=SOURCE,
            at_s=told.at.timestamp(),
            session=self._nested_in or told.session or text_of(self._name),
            project=told.project,
            agent="",
            owner="",
            model=model,
            provider="anthropic" if "claude" in model else "",
            tier=tier_of(service, usage.prompt),
            usage=usage,
            flags=() if told.message.stop_reason is not None else (INCOMPLETE,),
            rank=told.rank,
            file=self._file,
            offset=told.offset,
        )


_ANSWERS = ("assistant", None)


def _rank(line: _Line, usage: _Usage, *, is_ended: bool) -> int:
    """Rank a line among those of one response; a fork's copy just below what it is a copy of."""
    main = 0 if line.isSidechain else MAIN
    return main + 2 * usage.output_tokens + is_ended - (line.forkedFrom is not None)


def _buckets(usage: _Usage) -> Buckets:
    """Cache writes of no told lifetime, as behind some proxies, live 5 minutes."""
    lifetimes, written = usage.cache_creation, usage.cache_creation_input_tokens
    hour = lifetimes.ephemeral_1h_input_tokens if lifetimes else 0
    minutes = lifetimes.ephemeral_5m_input_tokens if lifetimes else 0
    return Buckets(
        usage.input_tokens,
        usage.cache_read_input_tokens,
        max(written - hour, minutes),
        hour,
        usage.output_tokens,
        0,
        usage.server_tool_use.web_search_requests if usage.server_tool_use else 0,
    )


def _leniently(raw: bytes) -> _Line:
    """Read a line with texts for numbers, nulls and broken characters; raises ValueError."""
    line = any_json(raw)
    if not isinstance(line, dict):
        return _Line()
    message = line.get("message")
    if isinstance(message, dict) and isinstance(message.get("usage"), dict):
        said = _Message(
            _text(message.get("id")),
            _text(message.get("model")),
            _text(message.get("stop_reason")),
            _lenient_usage(message["usage"]),
        )
    else:
        said = None
    origin = line.get("forkedFrom")
    return _Line(
        type=_text(line.get("type")),
        isSidechain=line.get("isSidechain") in (True, "true"),
        sessionId=_text(line.get("sessionId")),
        requestId=_text(line.get("requestId")),
        forkedFrom=_Origin(_text(origin.get("sessionId"))) if isinstance(origin, dict) else None,
        timestamp=_moment(line.get("timestamp")),
        cwd=_text(line.get("cwd")),
        message=said,
    )


def _lenient_usage(usage: Mapping[str, Any]) -> _Usage:
    def count(name: str, of: Mapping[str, Any] = usage) -> int:
        return count_of(of.get(name)) or 0

    lifetimes = usage.get("cache_creation")
    tools = usage.get("server_tool_use")
    return _Usage(
        count("input_tokens"),
        count("cache_creation_input_tokens"),
        count("cache_read_input_tokens"),
        count("output_tokens"),
        _Lifetimes(
            count("ephemeral_5m_input_tokens", lifetimes),
            count("ephemeral_1h_input_tokens", lifetimes),
        )
        if isinstance(lifetimes, dict)
        else None,
        _Tools(count("web_search_requests", tools)) if isinstance(tools, dict) else None,
        _text(usage.get("service_tier")),
        _text(usage.get("speed")),
    )


def _moment(value: object) -> datetime | None:
    try:
        return moment_of(value) if isinstance(value, str) else None
    except ContradictionError:
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def project_of(folder: str, cwd: str) -> str:
    """Name a project as its user does: by the last part of the directory that `folder` stands for.

    Claude Code names the folder after the directory a session began in, with a dash for whatever is
    no letter or digit; where an agent works may lie below it. "" if `folder` stands for another.
    """
    above = cwd[: len(folder)]
    if _NO_LETTER.sub("-", above) != folder or cwd[len(folder) : len(folder) + 1] not in _SLASHES:
        return ""
    return text_of(re.split(r"[/\\]", above)[-1])


_NO_LETTER = re.compile(r"[^a-zA-Z0-9]")
_SLASHES = ("", "/", "\\")


class Transcripts:
    """All transcripts of a user, or of one project; satisfies `tree.Format`."""

    source = SOURCE

    def files(self, root: Path) -> Iterator[str]:
        """Find sessions, in `root/projects` or in `root` itself, and the subagents inside them.

        Raises OSError for what cannot be listed, after all else.
        """
        projects = root / "projects"
        failures: list[OSError] = []
        yield from _sessions(str(projects if projects.is_dir() else root), 0, failures)
        if failures:
            raise failures[0]

    def session_at(self, root: Path, path: Path) -> str | None:
        """Return what `files` calls a session at a path, by whatever links; None if it has none."""
        projects = root / "projects"
        begin = projects if projects.is_dir() else root
        for top, named in ((begin, path), (Path(realpath(begin)), Path(realpath(path)))):
            parts = named.relative_to(top).parts if named.is_relative_to(top) else ()
            if 0 < len(parts) <= _SESSION_DEPTH and parts[0] != SUBAGENTS:
                return str(begin.joinpath(*parts)) if parts[-1].endswith(".jsonl") else None
        return None

    def is_whole(self, path: Path) -> bool:
        """All files have lines."""
        del path
        return False

    def begin(self, path: Path, state: bytes, root: Path) -> Transcript:
        """Go on with a transcript."""
        return Transcript(path, state, root)


class OneSession(Transcripts):
    """Of all transcripts those of one session: the one that is named, and its subagents'."""

    def __init__(self, transcript: str) -> None:
        self._transcript = transcript

    def files(self, root: Path) -> Iterator[str]:
        """Find them, wherever the root is. Raises OSError as `Transcripts` does."""
        del root
        yield self._transcript
        failures: list[OSError] = []
        yield from _subagents(str(Path(self._transcript).with_suffix("") / SUBAGENTS), failures)
        if failures:
            raise failures[0]


def _sessions(directory: str, depth: int, failures: list[OSError]) -> Iterator[str]:
    for entry in entries(directory, failures):
        if not leads_on(entry):
            if depth < _SESSION_DEPTH and entry.name.endswith(".jsonl"):
                yield entry.path
        elif entry.name == SUBAGENTS:
            yield from _subagents(entry.path, failures)
        elif depth < _SESSION_DEPTH:
            yield from _sessions(entry.path, depth + 1, failures)


def _subagents(directory: str, failures: list[OSError]) -> Iterator[str]:
    for entry in files_below(directory, failures):
        if entry.name.startswith("agent-") and entry.name.endswith(".jsonl"):
            yield entry.path


_SESSION_DEPTH = 2  # projects/PROJECT/SESSION.jsonl
