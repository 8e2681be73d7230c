"""Gemini CLI chats: rows that are rewritten under their ids, alone or all at once.

Invariant: a row counts once, by its session and its id, as the version of it with the most tokens
says. What was rewound was billed, and stays counted.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.core.ledger.ledger import Buckets
from meshnode.ingest.lenient import (
    ContradictionError,
    at_s_of,
    count_of,
    file_text,
    key_of,
    text_of,
)
from meshnode.ingest.reading import Reason
from meshnode.ingest.responses import Response, record_of
from meshnode.ingest.walking import entries, files_below, first_below, leads_on, tell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from meshnode.core.ledger.ledger import UsageRecord
    from meshnode.ingest.reading import Findings

SOURCE = "gemini"
CHATS = "chats"
MARKS = (b'"tokens"',)
ROW = ("id", "timestamp", "model", "tokens")


class _Row(msgspec.Struct):
    """The part of a row, of a heading or of a whole document that counts."""

    id: Any = None
    sessionId: Any = None  # noqa: N815 - Gemini CLI's name
    timestamp: Any = None
    model: Any = None
    tokens: Any = None
    messages: Any = None
    changed: Any = msgspec.field(name="$set", default=None)  # newer versions put all messages here


_decode = msgspec.json.Decoder(_Row).decode


class GeminiParser:
    """Reads one chat. See `Parser`. Its state is the session that its heading names."""

    def __init__(self, path: Path, state: bytes, root: Path) -> None:
        self._file = file_text(path)
        self._session = state.decode("utf-8", "replace")
        parts = path.parts
        inside = first_below(root, path, CHATS)
        above = parts[:inside] if inside else parts[:-1]
        self._project = text_of(above[-1]) if above else ""
        self._otherwise = text_of(
            file_text(path.stem)
        )  # a chat whose heading is lost is a session all the same

    def state(self) -> bytes:
        """Return what to go on with."""
        return self._session.encode("utf-8", "replace")

    def take(self, chunk: bytes, offset: int, findings: Findings) -> None:
        """Read whole lines, or a whole document."""
        lines = [chunk] if self._file.endswith(".json") else chunk.split(b"\n")[:-1]
        for line in lines:
            if line.strip():
                self._line(line, offset, findings)
            offset += len(line) + 1

    def _line(self, line: bytes, offset: int, findings: Findings) -> None:
        try:
            row = _decode(line)
        except (ValueError, RecursionError):
            findings.skip(Reason.UNPARSABLE, self._file, offset)
            return
        self._session = text_of(row.sessionId) or self._session
        changed = row.changed.get("messages") if isinstance(row.changed, dict) else None
        for one in (row, *_rows(row.messages), *_rows(changed)):
            if one.tokens is not None:
                self._count(one, offset, findings)

    def _count(self, row: _Row, offset: int, findings: Findings) -> None:
        try:
            usage = _usage(row.tokens)
            if usage is None:
                findings.skip(Reason.NO_USAGE, self._file, offset)
                return
            findings.records.append(self._record(row, usage, offset))
        except ValueError:
            findings.skip(Reason.QUARANTINED, self._file, offset)

    def _record(self, row: _Row, usage: Buckets, offset: int) -> UsageRecord:
        session, ident = self._session or self._otherwise, text_of(row.id)
        if not ident:
            raise ContradictionError("a row without an id is rewritten by nobody")
        response = Response(
            key=key_of(SOURCE, f"{session}:{ident}"),
            at_s=at_s_of(text_of(row.timestamp)),
            session=session,
            project=self._project,
            model=text_of(row.model),
            provider="google",
            file=self._file,
            offset=offset,
        )
        return record_of(SOURCE, response, usage, rank=usage.total)


class Chats:
    """Where chats are. See `Format`."""

    source = SOURCE

    def files(self, root: Path) -> Iterator[str]:
        """Find the chats of all projects, those of subagents too.

        Raises OSError for what cannot be listed, after all else.
        """
        os.scandir(root).close()
        failures: list[OSError] = []
        for project in entries(root, failures):
            chats = os.path.join(project.path, CHATS)  # noqa: PTH118 - as entries tell theirs
            for entry in files_below(chats, failures) if leads_on(project) else ():
                is_old = entry.path == os.path.join(chats, entry.name)  # noqa: PTH118 - as above
                is_old &= entry.name.startswith("session-") and entry.name.endswith(".json")
                if is_old or entry.name.endswith(".jsonl"):
                    yield entry.path
        tell(failures)

    def elsewhere(self, root: Path, name: str) -> tuple[()]:
        """Return nothing: no file is packed."""
        del root, name
        return ()

    def is_whole(self, path: Path) -> bool:
        """Tell whether a chat is of an older version, which writes it anew each time."""
        return path.suffix == ".json"

    def begin(self, path: Path, state: bytes, root: Path) -> GeminiParser:
        """Go on with a chat."""
        return GeminiParser(path, state, root)


def _rows(messages: object) -> Iterator[_Row]:
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            yield _Row(
                **{name: message.get(name) for name in ("id", "timestamp", "model", "tokens")}
            )


def _usage(tokens: object) -> Buckets | None:
    """Read a row's counts: cached lies inside input, thoughts and tool prompts outside."""
    if not isinstance(tokens, dict):
        raise ContradictionError("tokens are no map")
    names = ("input", "output", "cached", "thoughts", "tool")
    sent, received, cached, thoughts, tools = (count_of(tokens.get(one)) or 0 for one in names)
    if cached > sent:
        raise ContradictionError("more cached than sent")
    if not (sent or received or thoughts or tools):
        return None
    return Buckets(
        input=sent - cached + tools,
        cache_read=cached,
        output=received + thoughts,
        reasoning=thoughts,
    )
