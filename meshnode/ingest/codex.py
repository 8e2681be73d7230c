"""Codex rollouts: cumulative totals per rate-limit lane, in files that forks copy and restamp.

Invariant: a response is known by the whole sequence of totals that leads to it, from the root of
its fork lineage on: by those that all versions of Codex tell. So a copied history is counted once,
whichever copies are left and in whatever order they are read; two forks part at the first total
that differs.

A fork's file begins with its own `session_meta`, then those of its ancestors, then their history,
written in one burst; what follows a pause is the fork's own.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.core.ledger import Buckets, UsageRecord
from meshnode.core.packing import pack
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
from meshnode.ingest.walking import files_below, tell

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from meshnode.ingest.reading import Findings

SOURCE = "codex"
BURST_GAP_S = 1.0  # between two lines of a copied history; a longer pause ends it
LANES_MAX = 32  # of one file; what is counted in others is set aside
MARKS = (b'"session_meta"', b'"turn_context"', b'"token_count"', b'"token_usage_record"')
COUNTS = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_output_tokens")
WRITTEN = "cache_write_input_tokens"  # a part of the input as well, told by newer versions only
Totals = tuple[int, ...]  # COUNTS, then WRITTEN
TOLD = len(COUNTS)


class _Line(msgspec.Struct):
    timestamp: Any = None
    type: Any = None
    payload: Any = None


_decode = msgspec.json.Decoder(_Line).decode


class _State(msgspec.Struct, array_like=True):
    """What is carried from line to line of one file."""

    session: str = ""
    root: str = ""  # the oldest ancestor that the file names, or the session itself
    parent: str = ""  # "" for a session that is no fork
    project: str = ""
    model: str = ""
    provider: str = ""
    chain: bytes = b""  # the hash of all totals so far
    leading: bool = True  # nothing but session_meta lines yet
    copied: bool = False  # within the burst that copies an ancestor's history
    at_s: float = 0.0  # of the last line
    recorded: bool = False  # the file names responses: its totals are only its echo
    lanes: dict[str, list[int]] = msgspec.field(default_factory=dict)  # the last total of each lane
    told: list[int] = msgspec.field(default_factory=list)  # total and usage of the last line


_restore = msgspec.msgpack.Decoder(_State).decode
_keep = msgspec.msgpack.Encoder().encode


class CodexParser:
    """Reads one rollout. See `Parser`."""

    def __init__(self, path: Path, state: bytes) -> None:
        self._file = file_text(path)
        try:
            self._state = _restore(state) if state else _State()
        except msgspec.DecodeError:
            self._state = _State()

    def state(self) -> bytes:
        """Return what to go on with."""
        return _keep(self._state)

    def take(self, chunk: bytes, offset: int, findings: Findings) -> None:
        """Read whole lines."""
        for line in chunk.split(b"\n")[:-1]:
            if any(mark in line for mark in MARKS):
                self._line(line, offset, findings)
            offset += len(line) + 1

    def _line(self, raw: bytes, offset: int, findings: Findings) -> None:
        try:
            line = _decode(raw)
        except (ValueError, RecursionError):
            findings.skip(Reason.UNPARSABLE, self._file, offset)
            return
        payload = line.payload if isinstance(line.payload, dict) else {}
        kind = payload.get("type") if line.type == "event_msg" else line.type
        try:
            self._note_time(line.timestamp or _began_at(kind, payload))
            if kind == "session_meta":
                self._meta(payload)
            elif kind == "turn_context":
                self._state.model = text_of(payload.get("model")) or self._state.model
                self._state.project = _project(payload) or self._state.project
            elif kind in ("token_count", "token_usage_record"):
                self._state.leading = False
                record = self._usage(kind, payload, offset)
                if isinstance(record, UsageRecord):
                    findings.records.append(record)
                else:
                    findings.skip(record, self._file, offset)
        except ValueError:
            findings.skip(Reason.QUARANTINED, self._file, offset)

    def _note_time(self, timestamp: object) -> None:
        state = self._state
        at_s = at_s_of(text_of(timestamp)) if timestamp is not None else state.at_s
        if state.copied and state.at_s and at_s - state.at_s > BURST_GAP_S:
            state.copied = False
        state.at_s = at_s

    def _meta(self, payload: Mapping[str, Any]) -> None:
        state, name = self._state, text_of(payload.get("id"))
        if not state.session:
            state.session = name
            state.root = name
            state.project = _project(payload)
            state.provider = text_of(payload.get("model_provider")) or "openai"
            state.parent = text_of(payload.get("forked_from_id")) or _spawned_by(payload)
            state.copied = bool(state.parent)
            state.root = state.parent or name
        elif state.leading and state.copied:
            state.root = name or state.root

    def _named(self, payload: Mapping[str, Any], offset: int) -> UsageRecord | Reason:
        """Count a response that has a name, unless its total came before and was counted."""
        state, response = self._state, text_of(payload.get("response_id"))
        is_first, state.recorded = not state.recorded, True
        usage = _counts(payload.get("usage"))
        if not response or usage is None:
            return Reason.NO_USAGE
        if is_first and list(usage) == state.told[len(usage) :]:
            return Reason.DUPLICATE
        return self._record(key_of(SOURCE, response), usage, offset)

    def _usage(self, kind: str, payload: Mapping[str, Any], offset: int) -> UsageRecord | Reason:
        state = self._state
        if kind == "token_usage_record":
            return self._named(payload, offset)
        found = self._counted(payload)
        if isinstance(found, Reason):
            return found
        lane, totals, usage, is_echo = found
        state.chain = sha256(state.chain + pack([lane, list(totals[:TOLD])])).digest()[:16]
        if state.recorded or is_echo:  # in the chain all the same: keys of what follows stay
            return Reason.DUPLICATE
        return self._record(f"{SOURCE}:{state.root}:{state.chain.hex()}", usage, offset)

    def _counted(self, payload: Mapping[str, Any]) -> tuple[str, Totals, Totals, bool] | Reason:
        """Return the lane, its new total, what was used since, and whether that was just told.

        A lane is a limit of the account: what one response used is told anew under each limit.
        """
        info = payload.get("info")
        if not isinstance(info, dict):
            return Reason.NOT_A_CALL
        limits = payload.get("rate_limits")
        lane = text_of(limits.get("limit_id")) if isinstance(limits, dict) else ""
        totals = _counts(info.get("total_token_usage"))
        last = _counts(info.get("last_token_usage"))
        if totals is None:
            return Reason.NO_USAGE
        lanes = self._state.lanes
        if lane not in lanes and len(lanes) >= LANES_MAX:
            return Reason.QUARANTINED
        told = [*totals, *last] if last else []
        is_echo = bool(told) and told == self._state.told
        self._state.told = told
        before = lanes.get(lane, [0] * (TOLD + 1))
        lanes[lane] = list(totals)
        if list(totals[:TOLD]) == before[:TOLD]:
            return Reason.DUPLICATE
        return lane, totals, last or _since(before, totals), is_echo

    def _record(self, key: str, used: Totals, offset: int) -> UsageRecord:
        state = self._state
        sent, cached, received, reasoning, written = used
        if cached + written > sent or reasoning > received:
            raise ContradictionError("a part is more than the whole")
        if not state.at_s:
            raise ContradictionError("no line has told a time yet, and this one does not")
        usage = Buckets(
            input=sent - cached - written,
            cache_read=cached,
            cache_write_5m=written,
            output=received,
            reasoning=reasoning,
        )
        response = Response(
            key=key,
            at_s=state.at_s,
            session=(state.parent if state.copied else state.session) or "default",
            project=state.project,
            model=state.model,
            provider=state.provider or "openai",
            file=self._file,
            offset=offset,
        )
        # Who made a response tells its time and its session.
        return record_of(SOURCE, response, usage, rank=0 if state.copied else 1)


class Rollouts:
    """Where rollouts are. See `Format`."""

    source = SOURCE

    def files(self, root: Path) -> Iterator[str]:
        """Find rollouts, archived ones too; a copy of a session counts nothing again.

        Raises OSError for what cannot be listed, after all else.
        """
        os.scandir(root).close()
        failures: list[OSError] = []
        for part in ("sessions", "archived_sessions"):
            for entry in files_below(root / part, failures):
                if entry.name.startswith("rollout-") and entry.name.endswith(".jsonl"):
                    yield entry.path
        tell(failures)

    def is_whole(self, path: Path) -> bool:
        """Return False: a rollout is lines."""
        del path
        return False

    def begin(self, path: Path, state: bytes, root: Path) -> CodexParser:
        """Go on with a rollout."""
        del root
        return CodexParser(path, state)


def _counts(usage: object) -> Totals | None:
    """Read the counts that add up; a full context sets `total_tokens` to the window."""
    if not isinstance(usage, dict):
        return None
    found = tuple(count_of(usage.get(name)) or 0 for name in (*COUNTS, WRITTEN))
    return found if any(found[:TOLD]) else None


def _since(before: list[int], totals: Totals) -> Totals:
    """Return what was used between two totals; one of which any part has fallen begins anew."""
    if len(before) == TOLD:  # kept by a version that did not read what was written: unknown
        before = [*before, totals[TOLD]]
    pairs = list(zip(totals, before, strict=True))
    if any(new < old for new, old in pairs[:TOLD]):
        return totals
    return tuple(max(new - old, 0) for new, old in pairs)


def _began_at(kind: object, payload: Mapping[str, Any]) -> object:
    """Return when a session began, which its first line tells once more."""
    return payload.get("timestamp") if kind == "session_meta" else None


def _project(payload: Mapping[str, Any]) -> str:
    return Path(text_of(payload.get("cwd"))).name


def _spawned_by(payload: Mapping[str, Any]) -> str:
    """Return the session that made this one as its subagent."""
    found: object = payload.get("source")
    for name in ("subagent", "thread_spawn"):
        found = found.get(name) if isinstance(found, dict) else None
    return text_of(found.get("parent_thread_id")) if isinstance(found, dict) else ""
