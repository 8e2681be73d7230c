"""Claude Code transcripts as the program writes them, made up from a seed, and what they add up to.

Of each response several lines, one for each block of its answer, the last of which has the final
counts; subagents in files of their own, sidechains, resumed sessions that begin with a copy of an
older one, answers that the program made up itself, and echoes of usage in results of tools.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from random import Random

MODELS = ("claude-opus-4-6", "claude-sonnet-4-5-20250929", "claude-haiku-4-5-20251001")
BEGIN = datetime(2026, 9, 1, 8, tzinfo=UTC)
WORDS = ["the", "file", "test", "run", "def", "return", "\\n", '"', "{", "}", "[", "]", "0", "é"]
PROJECTS = 25
RESPONSES_A_FILE = 15
USAGE = (
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
)


@dataclass
class Written:
    """What is on disk: files, lines and bytes, and the final usage of each response by its id."""

    files: int = 0
    lines: int = 0
    size: int = 0
    usage: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def totals(self) -> dict[str, int]:
        """The sums by the names of the API."""
        return {name: sum(one[name] for one in self.usage.values()) for name in USAGE}


def write(root: Path, chance: Random, responses: int, text_chars: int = 1500) -> Written:
    """Write `root/projects` full of transcripts of that many responses; tell what is there."""
    written = Written()
    story = " ".join(chance.choices(WORDS, k=200_000))
    number = 0
    while number < responses:
        cwd = f"/srv/ada/work/project-{chance.randrange(PROJECTS)}"
        folder = root / "projects" / re.sub(r"[^a-zA-Z0-9]", "-", cwd)
        folder.mkdir(parents=True, exist_ok=True)
        session = _uuid(chance)
        some = min(chance.randint(5, 2 * RESPONSES_A_FILE - 5), responses - number)
        teller = Teller(chance, story, text_chars, session, cwd, written)
        lines = list(teller.told(some))
        _write(folder / f"{session}.jsonl", lines, written)
        number += some
        if chance.random() < 0.5 and number < responses:
            some = min(chance.randint(5, 2 * RESPONSES_A_FILE - 5), responses - number)
            agent = f"{chance.getrandbits(64):016x}"
            teller.agent = agent
            inside = folder / session / "subagents"
            inside.mkdir(parents=True)
            _write(inside / f"agent-{agent}.jsonl", list(teller.told(some)), written)
            number += some
        if chance.random() < 0.05:  # resumed: the new file begins with what the old one says
            _write(folder / f"{_uuid(chance)}.jsonl", lines, written)
    return written


class Teller:
    """Makes the lines of one file."""

    def __init__(
        self, chance: Random, story: str, text_chars: int, session: str, cwd: str, written: Written
    ) -> None:
        self.agent = ""
        self._chance = chance
        self._story = story
        self._text_chars = text_chars
        self._session = session
        self._cwd = cwd
        self._written = written
        self._at = BEGIN
        self._model = chance.choice(MODELS)
        self._context = 0

    def told(self, responses: int) -> Iterator[bytes]:
        """Tell of some responses; each was sent all that had been said before it."""
        self._context = self._chance.randrange(20_000)
        self._at = BEGIN + timedelta(seconds=self._chance.randrange(60 * 86400))
        for _ in range(responses):
            yield self._line("user", {"message": {"role": "user", "content": self._text()}})
            yield from self._response()
            if self._chance.random() < 0.35:
                yield self._echo()
        if self._chance.random() < 0.1:
            yield self._assistant(
                "<synthetic>", _uuid(self._chance), dict.fromkeys(USAGE, 0), "end_turn"
            )

    def _response(self) -> Iterator[bytes]:
        chance = self._chance
        ident = "msg_01" + "".join(chance.choices("abcdefghjkmnpqrstuvwxyzABCDEFGH23456789", k=22))
        model = (
            self._model if chance.random() < 0.95 else MODELS[-1]
        )  # small errands go to a small one
        usage = self._usage()
        for _ in range(chance.choices((0, 1, 2), (3, 5, 2))[0]):
            early = {**usage, "output_tokens": chance.randint(1, 8)}
            yield self._assistant(model, ident, early, None)
        if chance.random() < 0.01:  # cut off: no line has the final counts
            usage = {**usage, "output_tokens": 8}
            yield self._assistant(model, ident, usage, None)
        else:
            yield self._assistant(model, ident, usage, "tool_use")
        self._written.usage[ident] = usage

    def _usage(self) -> dict[str, Any]:
        chance = self._chance
        cached = chance.choice((0, 0, chance.randrange(3000), chance.randrange(20_000)))
        hour = chance.choice((0, 0, 0, cached))
        self._context += cached
        return {
            "input_tokens": chance.randint(1, 2000),
            "cache_creation_input_tokens": cached,
            "cache_read_input_tokens": self._context - cached,
            "cache_creation": {
                "ephemeral_5m_input_tokens": cached - hour,
                "ephemeral_1h_input_tokens": hour,
            },
            "output_tokens": chance.randint(9, 4000),
            "service_tier": "standard",
            "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0},
        }

    def _assistant(
        self, model: str, ident: str, usage: dict[str, Any], stop_reason: str | None
    ) -> bytes:
        message = {
            "model": model,
            "id": ident,
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": self._text()}],
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": usage,
        }
        return self._line("assistant", {"message": message, "requestId": "req_" + ident[4:]})

    def _echo(self) -> bytes:
        content = [{"type": "tool_result", "tool_use_id": "toolu_1", "content": self._text()}]
        result = {"status": "completed", "totalTokens": 9, "usage": self._usage()}
        return self._line(
            "user",
            {"message": {"role": "user", "content": content}, "toolUseResult": result},
        )

    def _line(self, kind: str, said: dict[str, Any]) -> bytes:
        self._at += timedelta(milliseconds=self._chance.randint(50, 20_000))
        line = {
            "parentUuid": _uuid(self._chance),
            "isSidechain": bool(self.agent),
            "userType": "external",
            "cwd": self._cwd,
            "sessionId": self._session,
            "version": "2.1.0",
            "gitBranch": "main",
            **({"agentId": self.agent} if self.agent else {}),
            **said,
            "type": kind,
            "uuid": _uuid(self._chance),
            "timestamp": self._at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        return json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"

    def _text(self) -> str:
        size = min(int(self._chance.expovariate(1 / self._text_chars)) + 1, 300_000)
        begin = self._chance.randrange(len(self._story))
        return self._story[begin : begin + size]


def _uuid(chance: Random) -> str:
    raw = f"{chance.getrandbits(128):032x}"
    return "-".join((raw[:8], raw[8:12], raw[12:16], raw[16:20], raw[20:]))


def _write(path: Path, lines: list[bytes], written: Written) -> None:
    raw = b"".join(lines)
    path.write_bytes(raw)
    written.files += 1
    written.lines += len(lines)
    written.size += len(raw)
