"""The transcripts of Claude Code: one line for each block of an answer, its usage in all of them.

Invariant: a response is counted once, by the id its provider gave it, wherever and however often it
is told. Of its lines the one counts, whole, that is not of a sidechain, then the one with the most
output, then one that no fork copied, at the time of the earliest. An advisor that was asked on the
way is in no total of its line, so it is a response of its own. No prompt text leaves this module.
"""

from __future__ import annotations

import re
from hashlib import sha256
from os.path import realpath
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from meshnode.core.ledger.ledger import INCOMPLETE, Buckets, UsageRecord
from meshnode.core.ledger.tiers import tier_of
from meshnode.ingest.claude_line import (
    ADVISOR,
    MESSAGE,
    Line,
    Message,
    Usage,
    decode,
    is_worth_a_look,
    leniently,
    steps_of,
)
from meshnode.ingest.lenient import BEGIN, END, ContradictionError, file_text, key_of, text_of
from meshnode.ingest.reading import Reason
from meshnode.ingest.walking import entries, files_below, first_below, leads_on

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from meshnode.ingest.claude_line import Step
    from meshnode.ingest.reading import Findings

SOURCE = "claude"
SYNTHETIC = "<synthetic>"  # the model of answers that the program made up itself
MARK = b'"output_tokens"'  # in every line with usage; inside a JSON text its quotes are escaped
MARKS = (MARK,)
MAIN = 1 << 42  # what a line outside a sidechain ranks above any output
SUBAGENTS = "subagents"
PLACES = frozenset({"us"})  # of inference, that cost more than anywhere
ADVICE = ":advisor:"  # in the key of what an advisor used: behind its answer's, before its number


class _Told(msgspec.Struct, gc=False):
    """One line that counts, and what is known of its response within one piece of a file."""

    key: str
    rank: int
    at: datetime
    offset: int
    line: Line
    message: Message
    usage: Usage
    project: str
    longest_prompt: int = 0  # of several that were sent for it

    @property
    def says(self) -> tuple[object, ...]:
        """What decides between lines of one rank."""
        message = self.message
        return (self.usage, self.longest_prompt, message.model, self.session, self.project)

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
        self._advisors: list[_Told] = []  # that were asked for the answers in a piece

    def take(self, chunk: bytes, offset: int, findings: Findings) -> None:
        """Read whole lines. See `Parser`."""
        told: dict[str, _Told] = {}
        self._advisors.clear()
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
        for one in self._advisors:
            self._keep(one, told, findings)
        findings.records.extend(map(self._record, told.values()))

    def state(self) -> bytes:
        """Return the project's name, once a line has told it."""
        return self._project.encode("utf-8", "replace")

    def _told(self, raw: bytes, offset: int) -> _Told | None:
        """Read a line; None is no answer of a model. Raises ContradictionError and ValueError."""
        try:
            line = decode(raw)
        except ValueError:  # msgspec's own and UnicodeDecodeError both are
            line = leniently(raw)
        message = line.message
        if (
            message is None
            or message.usage is None
            or line.type not in _ANSWERS
            or message.model == SYNTHETIC
        ):
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
        found = _Told(ident, rank, at, offset, line, message, usage, project)
        if usage.iterations and is_worth_a_look(usage.iterations):
            self._look_into(found, steps_of(raw))
        return found

    def _look_into(self, told: _Told, steps: Sequence[Step]) -> None:
        """Note which advisors were asked for an answer, and its longest prompt if it had several.

        Advisors rank as their line does. Their service is what they say themselves, since that of
        the answer does not extend to them.
        """
        prompts = [_buckets(step).prompt for step in steps if step.type == MESSAGE]
        told.longest_prompt = max(prompts, default=0) if len(prompts) > 1 else 0
        asked = [step for step in steps if step.type == ADVISOR]
        for number, step in enumerate(asked, 1):
            if _buckets(step).total:  # else it could not be asked
                key, said = f"{told.key}{ADVICE}{number}", Message(None, step.model, _ENDED)
                place = (told.rank, told.at, told.offset, told.line)
                self._advisors.append(_Told(key, *place, said, step, told.project))

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
        place = told.usage.inference_geo if told.usage.inference_geo in PLACES else None
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
            tier=tier_of(service, told.longest_prompt or usage.prompt, place or ""),
            usage=usage,
            flags=() if told.message.stop_reason is not None else (INCOMPLETE,),
            rank=told.rank,
            file=self._file,
            offset=told.offset,
        )


_ANSWERS = ("assistant", None)
_ENDED = "end_turn"  # what an advisor has said is told when it is whole


def _rank(line: Line, usage: Usage, *, is_ended: bool) -> int:
    """Rank a line among those of one response; a fork's copy just below what it is a copy of."""
    main = 0 if line.isSidechain else MAIN
    return main + 2 * usage.output_tokens + is_ended - (line.forkedFrom is not None)


def _buckets(usage: Usage) -> Buckets:
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

    def elsewhere(self, root: Path, name: str) -> tuple[()]:
        """Return nothing: no file is packed."""
        del root, name
        return ()

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
