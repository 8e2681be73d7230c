"""A law of all readers: however logs grow, move and are read on, they count as if read at once."""

import gzip
import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from meshnode.core.ledger.ledger import SlotKey
from meshnode.ingest.reading import Reader
from meshnode.ingest.sources import SOURCES
from meshnode.store import ledger
from meshnode.store.database import Database

pytestmark = pytest.mark.property

COUNTS = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_output_tokens")
FILES = {
    "claude": "p/{}.jsonl",
    "gemini": "p/chats/{}.jsonl",
    "codex": "sessions/rollout-{}.jsonl",
    "higress": "access.log",
}
SEEDS = 25


class Writer:
    """Writes what agents write, twice: as it is read on meanwhile, and where nothing is lost."""

    def __init__(self, source: str, base: Path, rng: Random) -> None:
        self.source, self.rng = source, rng
        self.live, self.ever = base / "live", base / "ever"
        self.number, self.at_s = 0, 1795168805.0
        self.unwritten: dict[Path, bytes] = {}  # the rest of a line that is being written
        self.totals: dict[int, list[int]] = {}
        for root in (self.live, self.ever):
            (root / FILES[source]).parent.mkdir(parents=True)

    def root(self, base: Path) -> str:
        return str(base / FILES["higress"] if self.source == "higress" else base)

    def line(self, session: int) -> bytes:
        self.number += 1
        self.at_s += self.rng.choice((0.01, 0.5, 3, 100))
        said = getattr(self, self.source)(f"s{session}", session)
        return json.dumps(said).encode() + b"\n"

    @property
    def at(self) -> str:
        return datetime.fromtimestamp(self.at_s, UTC).isoformat()

    def one_of_late(self) -> int:
        return self.rng.choice((self.number, max(0, self.number - 1), self.rng.randrange(9)))

    def claude(self, session: str, _: int) -> object:
        ident = None if self.rng.random() < 0.05 else f"m{self.one_of_late()}"
        usage = {"input_tokens": self.rng.randrange(9), "output_tokens": self.rng.randrange(50)}
        message = {"id": ident, "model": self.rng.choice("ab"), "usage": usage}
        aside = self.rng.random() < 0.2
        head = {"type": "assistant", "sessionId": session, "timestamp": self.at}
        return head | {"isSidechain": aside, "cwd": "/srv/x", "message": message}

    def gemini(self, session: str, _: int) -> object:
        tokens = {"input": self.rng.randrange(9), "output": self.rng.randrange(1, 50)}
        head = {"sessionId": session, "id": f"g{self.one_of_late()}", "timestamp": self.at}
        return head | {"model": "gemini", "tokens": tokens}

    def codex(self, session: str, number: int) -> object:
        if number not in self.totals:
            self.totals[number] = [0] * 4
            return {"timestamp": self.at, "type": "session_meta", "payload": {"id": session}}
        used = [self.rng.randrange(1, 50), 0, self.rng.randrange(50), 0]
        self.totals[number] = [a + b for a, b in zip(self.totals[number], used, strict=True)]
        total = dict(zip(COUNTS, self.totals[number], strict=True))
        last = dict(zip(COUNTS, used, strict=True))
        info = {"total_token_usage": total, "last_token_usage": last}
        payload = {"type": "token_count", "info": info}
        return {"timestamp": self.at, "type": "event_msg", "payload": payload}

    def higress(self, session: str, _: int) -> object:
        call = {"session_id": session, "model": "m", "output_token": self.rng.randrange(1, 50)}
        named = {"request_id": f"r{self.number}"} if self.rng.random() < 0.9 else {}
        return {"ai_log": json.dumps(call), "start_time": self.at} | named

    def append(self) -> None:
        session = self.rng.randrange(3)
        name = FILES[self.source].format(session)
        raw = b"".join(self.line(session) for _ in range(self.rng.randrange(1, 6)))
        raw += b"no line of ours\n" if self.rng.random() < 0.1 else b""
        with (self.ever / name).open("ab") as file:
            file.write(raw)
        path = self.live / name
        raw = self.unwritten.pop(path, b"") + raw
        whole = self.rng.randrange(1, len(raw)) if self.rng.random() < 0.4 else len(raw)
        self.unwritten[path] = raw[whole:]
        with path.open("ab") as file:
            file.write(raw[:whole])

    def end_lines(self) -> None:
        for path, rest in self.unwritten.items():
            with path.open("ab") as file:
                file.write(rest)
        self.unwritten.clear()

    def disturb(self, read_all: Callable[[], None]) -> None:
        """Move, copy, empty or pack; what loses bytes does so when they have been read."""
        self.end_lines()
        if self.source == "higress":
            self.rng.choice((self.rotate, self.pack, lambda: self.copy_truncate(read_all)))()
            return
        paths = sorted(self.live.rglob("*.jsonl"))
        if not paths:
            return
        path = self.rng.choice(paths)
        beside = path.with_name(f"{path.stem}x{self.number}.jsonl")
        match self.rng.randrange(3):
            case 0 if self.source != "claude":  # whose lines without an id are known by their file
                shutil.copy(path, beside)
            case 1:
                os.utime(path, (self.rng.randrange(-(2**31), 2**31),) * 2)
            case _:
                read_all()
                raw = path.read_bytes()
                path.write_bytes(b"")
                if self.rng.random() < 0.5:
                    read_all()
                path.write_bytes(raw)

    def rotate(self) -> None:
        for number in range(60, 0, -1):
            for suffix in ("", ".gz"):
                path = self.live / f"access.log.{number}{suffix}"
                if path.exists():
                    path.rename(self.live / f"access.log.{number + 1}{suffix}")
        if (self.live / "access.log").exists():
            (self.live / "access.log").rename(self.live / "access.log.1")

    def pack(self) -> None:
        path = self.live / "access.log.1"
        if path.exists():
            with gzip.open(self.live / "access.log.1.gz", "wb") as file:
                file.write(path.read_bytes())
            path.unlink()

    def copy_truncate(self, read_all: Callable[[], None]) -> None:
        path = self.live / "access.log"
        if path.exists():
            read_all()
            shutil.copy2(path, self.live / f"access.log-2026{self.number:04}")
            path.write_bytes(b"")


class Home:
    """A ledger, and how it is read into."""

    def __init__(self, path: Path, source: str, root: str) -> None:
        self.database = Database(path)
        self.source, self.root = source, root
        self.reader = self.begun()

    def begun(self) -> Reader:
        return SOURCES[self.source].reader(self.root, None)

    def begin_anew(self) -> None:
        self.reader.close()
        self.reader = self.begun()

    def close(self) -> None:
        self.reader.close()
        self.database.close()

    def read(self, bytes_max: int, rng: Random) -> None:
        """Read once: perhaps begun anew, with places lost, or with a crash before the commit."""
        if rng.random() < 0.3:
            self.begin_anew()
        stored = self.database.run_now(ledger.load, self.reader.key)
        places = dict(stored.places) if stored else {}
        is_tree = SOURCES[self.source].is_tree
        if is_tree and rng.random() < 0.1:
            places = {file: place for file, place in places.items() if rng.random() < 0.5}
        reading = self.reader.read(places, bytes_max)
        if rng.random() > 0.15:
            self.database.run_now(ledger.commit, reading.batch, 0)

    def read_all(self) -> None:
        self.begin_anew()
        more = True
        while more:
            stored = self.database.run_now(ledger.load, self.reader.key)
            reading = self.reader.read(stored.places if stored else {}, 1 << 20)
            self.database.run_now(ledger.commit, reading.batch, 0)
            more = reading.more

    def totals(self) -> dict[object, object]:
        rows = self.database.run_now(ledger.slots)
        return {k: v for k, v in rows if isinstance(k, SlotKey) and getattr(v, "records", 0)}


@pytest.mark.parametrize("source", sorted(SOURCES))
@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_is_read_on_counts_as_what_is_read_at_once(tmp_path: Path, source: str, seed: int):
    rng = Random(f"{source} {seed}")
    writer = Writer(source, tmp_path, rng)
    home = Home(tmp_path / "on.db", source, writer.root(writer.live))
    at_once = Home(tmp_path / "once.db", source, writer.root(writer.ever))
    writer.append()
    for _ in range(rng.randrange(10, 50)):
        match rng.randrange(5):
            case 0 | 1:
                writer.append()
            case 2 | 3:
                home.read(rng.choice((1, 200, 2000, 1 << 20)), rng)
            case _:
                writer.disturb(home.read_all)
    writer.end_lines()
    home.read_all()
    at_once.read_all()
    found, expected = home.totals(), at_once.totals()
    home.close()
    at_once.close()
    assert found == expected
