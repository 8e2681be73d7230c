"""Rollouts of Codex: written line by line or by hand, read, and counted in a ledger."""

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from msgspec.structs import replace

from meshnode.core.ledger.ledger import Buckets, Diagnostics, Slot
from meshnode.ingest.codex import CodexParser, Rollouts, _State
from meshnode.ingest.reading import Findings
from meshnode.ingest.tree import _PLACE, TreeReader
from meshnode.store import ledger, usage_log
from meshnode.store.migrations import migrate

NAMING = _State.__struct_fields__.index("naming")  # what versions before did not know begins here
START = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
GOLDEN = Path(__file__).parent / "golden" / "codex"
FIRST, SECOND, THIRD = (1000, 400, 50, 10), (2500, 1400, 120, 30), (4000, 2000, 200, 60)


class Rollout:
    """A file that grows, a second a line unless told otherwise."""

    def __init__(self, root: Path, session: str, at: datetime = START, **meta: object) -> None:
        self.path = root / "sessions" / "2026" / "11" / "20" / f"rollout-{session}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.at = at
        self.meta(session, **meta)

    def line(self, kind: str, payload: object, pause_s: float = 2.0) -> "Rollout":
        self.at += timedelta(seconds=pause_s)
        said = {"timestamp": self.at.isoformat(), "type": kind, "payload": payload}
        with self.path.open("a") as file:
            file.write(json.dumps(said) + "\n")
        return self

    def meta(self, session: str, pause_s: float = 0.0, **more: object) -> "Rollout":
        payload = {"id": session, "cwd": "/srv/anna/shop", "model_provider": "openai"} | more
        return self.line("session_meta", payload, pause_s)

    def model(self, name: str, pause_s: float = 0.0) -> "Rollout":
        return self.line("turn_context", {"model": name, "cwd": "/srv/anna/shop"}, pause_s)

    def count(
        self,
        total: tuple[int, ...] | None,
        last: tuple[int, ...] | None = None,
        lane: str = "codex",
        pause_s: float = 2.0,
    ) -> "Rollout":
        info = None if total is None else {"total_token_usage": usage(total)}
        if info is not None and last is not None:
            info["last_token_usage"] = usage(last)
        limits = {"limit_id": lane}
        payload = {"type": "token_count", "info": info, "rate_limits": limits}
        return self.line("event_msg", payload, pause_s)

    def named(self, response: str, used: tuple[int, ...]) -> "Rollout":
        payload = {"response_id": response, "usage": usage(used)}
        return self.line("token_usage_record", payload)


def usage(counts: tuple[int, ...]) -> dict[str, int]:
    """Lay out counts; the fifth, what was written into a cache, is told by newer versions only."""
    names = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_output_tokens")
    told = zip((*names, "cache_write_input_tokens"), counts, strict=False)
    return dict(told) | {"total_tokens": 272_000}


def minus(total: tuple[int, ...], before: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(new - old for new, old in zip(total, before, strict=True))


class Counted:
    """A ledger, and a reader over the rollouts of a root."""

    def __init__(self, root: Path) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        migrate(self.connection)
        self.reader = TreeReader(Rollouts(), str(root))

    def read(self) -> "Counted":
        stored = ledger.load(self.connection, self.reader.key)
        places = stored.places if stored else {}
        ledger.commit(self.connection, self.reader.read(places, 1 << 30).batch, 0)
        return self

    def read_as_older(self) -> "Counted":
        """Read as the versions before names superseded totals did."""
        stored = ledger.load(self.connection, self.reader.key)
        batch = self.reader.read(stored.places if stored else {}, 1 << 30).batch
        places = {
            file: place[: _PLACE.size] + as_older(place[_PLACE.size :])
            for file, place in batch.places.items()
        }
        records = [
            msgspec.structs.replace(one, idem_key=one.formerly or one.idem_key, formerly="")
            for one in batch.records
        ]
        older = replace(batch, places=places, records=records, superseded=())
        ledger.commit(self.connection, older, 0)
        return self

    @property
    def detail(self) -> str:
        """What is wrong with what there is by now."""
        stored = ledger.load(self.connection, self.reader.key)
        return self.reader.read(stored.places if stored else {}, 1 << 30).detail

    @property
    def diagnostics(self) -> Diagnostics:
        stored = ledger.load(self.connection, self.reader.key)
        assert stored is not None
        return stored.diagnostics

    @property
    def totals(self) -> Buckets:
        slots = [value for _, value in ledger.slots(self.connection) if isinstance(value, Slot)]
        return sum((slot.usage for slot in slots), Buckets())

    @property
    def sessions(self) -> dict[str, int]:
        entries = [entry for entry, _ in usage_log.page(self.connection, 0, 1000)]
        counting = usage_log.latest(self.connection, [e.record.idem_key for e in entries])
        found: dict[str, int] = {}
        for entry in counting.values():
            record = entry.record
            found[record.session] = found.get(record.session, 0) + record.usage.total
        return found


def read_file(path: Path) -> Findings:
    findings = Findings()
    CodexParser(path, b"").take(path.read_bytes(), 0, findings)
    return findings


def read_lines(path: Path) -> Findings:
    """Read a file line by line, as if restarted after each."""
    findings, offset, state = Findings(), 0, b""
    for line in path.read_bytes().splitlines(keepends=True):
        parser = CodexParser(path, state)
        parser.take(line, offset, findings)
        state, offset = parser.state(), offset + len(line)
    return findings


def put(root: Path, name: str, lines: slice = slice(None)) -> Path:
    """Add some lines of a rollout that was written by hand to those of a root."""
    told = GOLDEN / f"{name}.jsonl"
    path = root / "sessions" / f"rollout-{told.stem}.jsonl"
    with path.open("ab") as file:
        file.writelines(told.read_bytes().splitlines(keepends=True)[lines])
    return path


def as_older(state: bytes) -> bytes:
    """Return a parser's state as the versions before names superseded totals have kept it."""
    return msgspec.msgpack.encode(msgspec.msgpack.decode(state)[:NAMING]) if state else b""
