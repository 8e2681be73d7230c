"""Laws of transcripts: however they are written, read and read again, they add up to the same."""

import json
import sqlite3
from itertools import chain
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from transcripts import USAGE, write

from meshnode.core.ledger.ledger import Buckets, Diagnostics, Slot
from meshnode.ingest.claude import Transcripts
from meshnode.ingest.tree import TreeReader
from meshnode.store import ledger, usage_log
from meshnode.store.migrations import migrate

pytestmark = pytest.mark.property

SESSIONS = ("s0", "s1", "s2")


class Ledger:
    """Counts a tree, in memory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        migrate(self.connection)

    def read(self, bytes_max: int = 1 << 30) -> None:
        """Read on once, by a new reader, as after a restart."""
        reader = TreeReader(Transcripts(), str(self.root))
        stored = ledger.load(self.connection, reader.key)
        reading = reader.read(stored.places if stored else {}, bytes_max)
        ledger.commit(self.connection, reading.batch, 1)

    def forget(self) -> None:
        """Lose all places."""
        ledger.forget_places(self.connection, TreeReader(Transcripts(), str(self.root)).key)

    def rows(self) -> dict[object, object]:
        """What is published, but for slots that nothing is left of and what was read twice."""
        found = dict(ledger.slots(self.connection))
        return {
            key: (value.records, value.incomplete) if isinstance(value, Diagnostics) else value
            for key, value in found.items()
            if value.records
        }

    def close(self) -> None:
        self.connection.close()


STEPS = st.builds(
    lambda kind, model, sent: {"type": kind, "model": model, "input_tokens": sent},
    st.sampled_from(["message", "advisor_message"]),
    st.sampled_from(["claude-opus-4-7", "claude-fable-5"]),
    st.sampled_from([0, 1, 40_000, 150_000]),
)


@st.composite
def lines(draw: st.DrawFn) -> tuple[int, str, bytes]:
    """Which session's file, whose subagent, and one line of an answer."""
    usage = {
        "input_tokens": draw(st.integers(0, 3)),
        "output_tokens": draw(st.integers(0, 5)),
        "cache_creation_input_tokens": draw(st.integers(0, 2)),
        "iterations": draw(st.none() | st.lists(STEPS, max_size=3)),
    }
    message = {
        "id": f"msg_{draw(st.integers(0, 4))}",
        "model": draw(st.sampled_from(["claude-opus-4-6", "claude-haiku-4-5"])),
        "stop_reason": draw(st.sampled_from([None, "end_turn"])),
        "usage": usage,
    }
    line = {
        "type": "assistant",
        "isSidechain": draw(st.booleans()),
        "sessionId": draw(st.sampled_from(SESSIONS)),
        "cwd": "/p",
        "timestamp": f"2026-11-20T1{draw(st.integers(0, 3))}:{draw(st.integers(10, 59))}:00Z",
        "message": message,
    }
    where = draw(st.sampled_from(["", "agent-a", "agent-b"]))
    return draw(st.integers(0, 2)), where, json.dumps(line).encode() + b"\n"


def place(root: Path, session: int, agent: str) -> Path:
    folder = root / "projects" / "-p"
    path = folder / f"s{session}.jsonl"
    return folder / f"s{session}" / "subagents" / f"{agent}.jsonl" if agent else path


def append(path: Path, raw: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(raw)


class Growing(RuleBasedStateMachine):
    """Agents write, a reader polls, restarts and forgets: the ledger is as if read once."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.root = Path(self.directory.name)
        self.ledger = Ledger(self.root)
        self.halves: dict[Path, bytes] = {}

    def teardown(self) -> None:
        for path, rest in self.halves.items():
            append(path, rest)
        self.ledger.read()
        once = Ledger(self.root)
        once.read()
        assert self.ledger.rows() == once.rows()
        connection = self.ledger.connection
        entries = usage_log.page(connection, 0, 10_000)
        hashes = usage_log.chain_on(bytes(32), [entry for entry, _ in entries])
        assert [hash_ for _, hash_ in hashes] == [hash_ for _, hash_ in entries]
        once.close()
        self.ledger.close()
        self.directory.cleanup()

    @rule(told=st.lists(lines(), min_size=1, max_size=6))
    def write(self, told: list[tuple[int, str, bytes]]) -> None:
        for session, agent, line in told:
            path = place(self.root, session, agent)
            append(path, self.halves.pop(path, b"") + line)

    @rule(told=lines(), cut=st.integers(1, 200))
    def write_a_part(self, told: tuple[int, str, bytes], cut: int) -> None:
        session, agent, line = told
        path = place(self.root, session, agent)
        append(path, self.halves.pop(path, b"") + line[:cut])
        self.halves[path] = line[cut:]

    @rule(bytes_max=st.sampled_from([1, 300, 1 << 30]))
    def poll(self, bytes_max: int) -> None:
        self.ledger.read(bytes_max)

    @rule()
    def lose_all_places(self) -> None:
        self.ledger.forget()

    @precondition(lambda self: place(self.root, 0, "").exists())
    @rule()
    def resume_as_another_session(self) -> None:
        copy = place(self.root, 0, "").read_bytes()
        path = place(self.root, 9, "")
        path.write_bytes(copy[: copy.rfind(b"\n") + 1])


TestGrowing = Growing.TestCase
TestGrowing.settings = settings(max_examples=30, stateful_step_count=12)


@given(told=st.lists(lines(), max_size=12), chance=st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_the_order_of_files_and_lines_decides_nothing(
    told: list[tuple[int, str, bytes]], chance: Random
):
    # One session and one subagent each: a line's file tells no more than the line does.
    found = []
    for order in (told, chance.sample(told, len(told))):
        with TemporaryDirectory() as directory:
            for number, (_, _, line) in enumerate(order):
                append(place(Path(directory), number % 3, ""), line)
            counted = Ledger(Path(directory))
            counted.read()
            slots = [(k, v) for k, v in counted.rows().items() if isinstance(v, Slot)]
            found.append(sorted(slots))
            counted.close()
    assert found[0] == found[1]


@given(seed=st.integers(0, 1 << 32), sizes=st.lists(st.integers(1, 40_000), max_size=4))
@settings(max_examples=10)
def test_what_was_written_is_what_is_counted(seed: int, sizes: list[int]):
    with TemporaryDirectory() as directory:
        written = write(Path(directory), Random(seed), 60, text_chars=100)
        counted = Ledger(Path(directory))
        for size in chain(sizes, [1 << 30]):
            counted.read(size)
        slots = [value for value in counted.rows().values() if isinstance(value, Slot)]
        total = sum((slot.usage for slot in slots), Buckets())
        assert sum(slot.records for slot in slots) == len(written.usage)
        created = total.cache_write_5m + total.cache_write_1h
        assert dict(
            zip(USAGE, (total.input, total.output, created, total.cache_read), strict=True)
        ) == (written.totals)
        counted.close()
