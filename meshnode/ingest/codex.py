"""Codex rollouts: cumulative totals per rate-limit lane, in files that forks copy and restamp.

Invariant: a response is known by its name, where it has one, else by the whole sequence of totals
that leads to it, from the root of its fork lineage on: by those that all versions of Codex tell.
The sequence of a named one is told as superseded, since copies of its total may lack the name. So a
copied history is counted once, whichever copies are left and in whatever order they are read; two
forks part at the first total that differs. Only a copy of an ancestor's last turns counts nowhere:
what led to them is not in it.

A fork's file begins with its own `session_meta`, then those of its ancestors, then their history,
written in one burst, or with its old times; what follows a pause is the fork's own. A subagent has
such a history, or its last turns alone, or none: then its first total comes a while after it began.
"""

from __future__ import annotations

import os
import re
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.core.ledger.ledger import Buckets, UsageRecord
from meshnode.core.packing import pack
from meshnode.ingest.codex_totals import NOTHING, TOLD, Naming, Total, Totals, counts_in, since
from meshnode.ingest.lenient import ContradictionError, at_s_of, file_text, key_of, text_of
from meshnode.ingest.reading import OutdatedError, Reason
from meshnode.ingest.responses import Response, record_of
from meshnode.ingest.tree import PACKED
from meshnode.ingest.walking import files_below, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from meshnode.ingest.reading import Findings

    _Take = Callable[[Mapping[str, Any], int, Findings], UsageRecord | Reason]

SOURCE = "codex"
FAST = "priority"  # what is billed where the user has asked for `fast`
_NAMED_FILE = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?=\.jsonl)")
BURST_GAP_S = 1.0  # between two lines of a copied history; a longer pause ends it
LANES_MAX = 32  # of one file; what is counted in others is set aside
ENDINGS = (".jsonl", f".jsonl{PACKED}")
MARKS = (
    *(b'"token_count"', b'"turn_context"', b'"token_usage_record"', b'"session_meta"'),
    b'"thread_settings_applied"',
)
_TOTAL, _TURN, _NAME, _META, _SETTINGS = MARKS


class _Line(msgspec.Struct):
    timestamp: Any = None
    type: Any = None
    payload: Any = None
    ordinal: Any = None


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
    naming: Naming | None = None  # None: an older version has read the file so far
    began_s: float = 0.0  # when the session began: lines before that are copies
    own_from: int = 0  # the ordinal of the first line that is no copy; 0: nobody says
    is_alone: bool = False  # a fork whose file names no ancestor, and tells no total yet
    former: str = ""  # the root by which an older version knew what is told here
    is_cut: bool = False  # the copied history begins in the middle
    service: str = ""  # which service tier the user has asked for


_restore = msgspec.msgpack.Decoder(_State).decode
_keep = msgspec.msgpack.Encoder().encode


class CodexParser:
    """Reads one rollout; raises OutdatedError. See `Parser` and `Format`."""

    def __init__(self, path: Path, state: bytes) -> None:
        self._file = file_text(path)
        self._state = _restored(state) or _State()
        if self._state.recorded and self._state.naming is None:
            raise OutdatedError
        self._naming = self._state.naming = self._state.naming or Naming()

    def state(self) -> bytes:
        """Return what to go on with."""
        return _keep(self._state)

    def take(self, chunk: bytes, offset: int, findings: Findings) -> None:
        """Read whole lines."""
        for line in chunk.split(b"\n")[:-1]:
            if _is_marked(line):
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
            self._note_time(line.timestamp or _began_at(kind, payload), line.ordinal)
            if kind == "session_meta":
                self._meta(payload)
            elif kind == "turn_context":
                self._state.model = text_of(payload.get("model")) or self._state.model
                self._state.project = _project(payload) or self._state.project
            elif kind == "thread_settings_applied":
                self._state.service = _service(payload)
            elif kind in ("token_count", "token_usage_record"):
                take = self._total if kind == "token_count" else self._named
                self._response(take, payload, offset, findings)
        except ValueError:
            findings.skip(Reason.QUARANTINED, self._file, offset)

    def _response(
        self, take: _Take, payload: Mapping[str, Any], offset: int, findings: Findings
    ) -> None:
        self._state.leading = False
        if not self._state.session:
            self._name_by_file(findings)
        record = take(payload, offset, findings)
        if isinstance(record, UsageRecord):
            findings.records.append(record)
        else:
            findings.skip(record, self._file, offset)

    def _note_time(self, timestamp: object, ordinal: object) -> None:
        state = self._state
        at_s = at_s_of(text_of(timestamp)) if timestamp is not None else state.at_s
        if state.copied and state.own_from and isinstance(ordinal, int):
            state.copied = ordinal < state.own_from
        elif state.copied and state.at_s and at_s > state.began_s:
            # A copy is there at once; who copies nothing may be quick from its first line on.
            before_s = state.began_s if state.is_alone else state.at_s
            state.copied = at_s - before_s <= BURST_GAP_S
        state.at_s = at_s

    def _meta(self, payload: Mapping[str, Any]) -> None:
        state, name = self._state, text_of(payload.get("id"))
        if not state.session:
            state.session = name
            state.root = name
            state.project = _project(payload)
            state.provider = text_of(payload.get("model_provider")) or "openai"
            state.parent = text_of(payload.get("forked_from_id")) or _spawned_by(payload)
            state.copied = state.is_alone = bool(state.parent)
            state.root = state.parent or name
            state.began_s = state.at_s
            own_from = payload.get("subagent_history_start_ordinal")
            state.own_from = own_from if type(own_from) is int else 0
        elif state.leading and state.copied:
            state.root, state.is_alone = name or state.root, False

    def _name_by_file(self, findings: Findings) -> None:
        """Know a session whose first line is lost as Codex calls its file."""
        state, name = self._state, Path(self._file).name
        found = _NAMED_FILE.search(name)
        state.session = state.root = found[0] if found else name.removesuffix(PACKED)
        if not state.chain:  # older versions knew all of all such files by one key
            findings.superseded.append("")

    def _named(
        self, payload: Mapping[str, Any], offset: int, findings: Findings
    ) -> UsageRecord | Reason:
        """Count a response that has a name, unless its total came before and was counted."""
        state, naming = self._state, self._naming
        response, usage = text_of(payload.get("response_id")), counts_in(payload.get("usage"))
        is_first, state.recorded = not state.recorded, True
        if not response or usage is None:
            return Reason.NO_USAGE
        is_known = list(usage[:TOLD]) == naming.unnamed
        if not is_known and not (is_first and list(usage) == state.told[len(usage) :]):
            naming.name(usage)
        elif naming.waiting is None:
            naming.unnamed, naming.is_late = [], True
            return Reason.DUPLICATE
        else:
            findings.superseded.append(naming.waiting.idem_key)
            findings.skip(Reason.DUPLICATE, self._file, naming.waiting.offset)
            naming.unnamed, naming.waiting = [], None
        return self._record(key_of(SOURCE, response), usage, offset)

    def _total(
        self, payload: Mapping[str, Any], offset: int, findings: Findings
    ) -> UsageRecord | Reason:
        """Count a response that has no name."""
        state, naming = self._state, self._naming
        total = self._told(payload)
        if isinstance(total, Reason):
            return total
        if not state.chain:
            self._begin(total)
        told = pack([total.lane, list(total.totals[:TOLD])])
        state.chain = sha256(state.chain + told).digest()[:16]
        if total.is_echo:  # in the chain all the same: keys of what follows stay
            if total.last == NOTHING:  # which older versions have counted
                findings.superseded.append(self._key_under(state.root))
            return Reason.DUPLICATE
        if naming.waiting is not None:
            findings.records.append(naming.waiting)
            naming.waiting = None
        key = self._key_under(state.root)
        is_copy_of_the_end = state.copied and state.is_cut and (state.own_from or not state.model)
        if is_copy_of_the_end or (state.recorded and naming.takes(total)):
            findings.superseded.append(key)
            return Reason.DUPLICATE
        record = self._record(key, total.used, offset, self._key_under(state.former))
        naming.unnamed = list(total.used[:TOLD])
        if not (state.recorded and naming.is_late):
            return record
        naming.waiting = record  # its name may follow
        return Reason.NOT_A_CALL

    def _begin(self, total: Total) -> None:
        """Settle, at the first total of a file, whose totals these are."""
        state = self._state
        state.is_cut = state.copied and total.begins_in_the_middle
        if state.is_alone and not state.copied and state.session:
            state.former, state.root = state.root, state.session
        state.is_alone = False

    def _key_under(self, root: str) -> str:
        """Name a response; "" for none, where no root of that kind is known."""
        return f"{SOURCE}:{root}:{self._state.chain.hex()}" if root else ""

    def _told(self, payload: Mapping[str, Any]) -> Total | Reason:
        """Return a total, unless nothing has changed since it was told in its lane.

        A lane is a limit of the account: what one response used is told anew under each limit.
        """
        info = payload.get("info")
        if not isinstance(info, dict):
            return Reason.NOT_A_CALL
        limits = payload.get("rate_limits")
        lane = text_of(limits.get("limit_id")) if isinstance(limits, dict) else ""
        totals = counts_in(info.get("total_token_usage"))
        last = counts_in(info.get("last_token_usage"))
        if last is None and isinstance(info.get("last_token_usage"), dict):
            last = NOTHING  # after a compaction, while the total is the same
        if totals is None:
            return Reason.NO_USAGE
        state, naming = self._state, self._naming
        if lane not in state.lanes and len(state.lanes) >= LANES_MAX:
            return Reason.QUARANTINED
        before = state.lanes.get(lane) or list(NOTHING)
        heard, naming.heard = naming.heard or before, list(totals)
        told = [*totals, *last] if last else []
        is_echo = bool(told) and told == state.told
        state.told = told
        state.lanes[lane] = list(totals)
        if list(totals[:TOLD]) == before[:TOLD]:
            return Reason.DUPLICATE
        if last == NOTHING:
            used = since(heard, totals)
            is_echo = not any(used[:TOLD])
        else:
            used = last or since(before, totals)
        return Total(lane, totals, last, used, heard, is_echo)

    def _record(self, key: str, used: Totals, offset: int, formerly: str = "") -> UsageRecord:
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
            session=state.parent if state.copied else state.session,
            project=state.project,
            model=state.model,
            provider=state.provider or "openai",
            file=self._file,
            offset=offset,
            service=state.service,
            formerly=formerly,
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
                if entry.name.startswith("rollout-") and entry.name.endswith(ENDINGS):
                    yield entry.path
        tell(failures)

    def elsewhere(self, root: Path, name: str) -> tuple[str, ...]:
        """Tell where a rollout is by its day, and where once it is archived."""
        file = name.rpartition("/")[2]
        day = file.partition("T")[0].split("-")[1:]
        return "/".join((str(root), "sessions", *day, file)), f"{root}/archived_sessions/{file}"

    def is_whole(self, path: Path) -> bool:
        """Return False: a rollout is lines."""
        del path
        return False

    def begin(self, path: Path, state: bytes, root: Path) -> CodexParser:
        """Go on with a rollout, if names were read by a version that told what they supersede."""
        del root
        return CodexParser(path, state)


def _is_marked(line: bytes) -> bool:
    """Tell whether a line may say something about usage; a loop over the marks takes longer."""
    return _TOTAL in line or _TURN in line or _NAME in line or _META in line or _SETTINGS in line


def _restored(state: bytes) -> _State | None:
    try:
        return _restore(state) if state else None
    except msgspec.DecodeError:
        return None


def _service(payload: Mapping[str, Any]) -> str:
    """Return the service tier that the user has chosen; Codex has two words for one of them."""
    settings = payload.get("thread_settings")
    service = text_of(settings.get("service_tier")) if isinstance(settings, dict) else ""
    return FAST if service == "fast" else service


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
