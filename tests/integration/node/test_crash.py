"""A process that is killed at any instant leaves a file that opens, with all it has promised.

Killing a process loses no page that the kernel holds: what is shown here is that no instruction is
the wrong one to die at. That commits reach the disk itself is SQLite's (synchronous=FULL).
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from integration.node import dying

from meshnode.core.commands.audit import walked
from meshnode.core.feeds.heads import Head
from meshnode.store import audit, feeds
from meshnode.store.database import Database

SCRIPT = str(Path(dying.__file__))
PATIENCE_S = 100
POINTS = 40


def dead_of(home: Path, way: str, *points: int) -> dict[int, int]:
    """Run the children; return how each ended, by point."""
    words = [sys.executable, SCRIPT, str(home), way, *map(str, points)]
    done = subprocess.run(words, capture_output=True, timeout=PATIENCE_S, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


def check(path: Path) -> int:
    """Open what was left behind, compare it with what was promised; return how much that was."""
    told = path.with_suffix(".told").read_bytes()
    promised = [json.loads(line) for line in told.splitlines(keepends=True) if line[-1:] == b"\n"]
    database = Database(path)
    (verdict,) = database.run_now(lambda c: c.execute("PRAGMA integrity_check").fetchone())
    assert verdict == "ok"
    held = database.run_now(feeds.load)
    kept = database.run_now(audit.page, 0, audit.KEPT_MAX)
    database.close()
    chain = {one.seq: one.hash.hex() for one in kept}
    assert held.damaged == []
    assert held.damaged_entries == 0
    heads = {header.origin: header.head for header, _ in held.feeds}
    ours = dying.OwnFeed(dying.KEYS[0], dying.GENESIS.mesh_id, dying.GENESIS.limits, 1).origin
    with closing(sqlite3.connect(path)) as connection:
        journal = dict(connection.execute("SELECT hex(command_id), payload FROM journal"))
    entries = {entry.hash.hex() for entry in held.control}
    for kind, *words in promised:
        match kind:
            case "head":
                assert heads[ours] >= Head(*words)
            case "entry":
                assert words[0] in entries
            case "begun":
                assert words[0].upper() in journal
            case "finished":
                assert journal[words[0].upper()]
            case "audited":
                assert chain[words[0]] == words[1]
            case _:
                raise AssertionError(kind)
    assert walked(ours, 7, kept, ())[1] is None
    finished = [words for kind, *words in promised if kind == "finished"]
    executed = [one for one in kept if one.record and one.record.kind == "command_executed"]
    assert len(executed) >= len(finished)  # the outcome is written with the receipt
    return len([kind for kind, *_ in promised if kind != "audited"])


def spread(first: int, last: int) -> range:
    return range(first, last, max(1, (last - first) // POINTS))


@pytest.fixture(scope="module")
def statements(tmp_path_factory) -> int:
    """How many statements a child needs that nobody kills."""
    home = tmp_path_factory.mktemp("whole")
    words = [sys.executable, SCRIPT, str(home), "statement"]
    done = subprocess.run(words, capture_output=True, timeout=PATIENCE_S, text=True, check=True)
    assert check(home / "end.db") == 4 * dying.ROUNDS
    return int(done.stdout)


@pytest.mark.timeout(PATIENCE_S)
def test_dying_before_any_statement_loses_nothing_that_was_promised(tmp_path, statements):
    assert statements > 300
    points = [*range(1, 60), *spread(60, statements)]  # the first ones make the schema
    deaths = dead_of(tmp_path, "statement", *points)
    assert set(deaths.values()) == {-signal.SIGKILL}
    promised = [check(tmp_path / f"{point}.db") for point in points]
    assert promised[0] == 0
    assert len(set(promised)) > dying.ROUNDS  # they died all along the way


@pytest.mark.timeout(PATIENCE_S)
@pytest.mark.parametrize(("way", "last"), [("bytes", 700_000), ("checkpoint", 200_000)])
def test_dying_within_a_write_loses_nothing_that_was_promised(tmp_path, way, last):
    points = spread(33_001, last)
    deaths = dead_of(tmp_path, way, *points)
    killed = [point for point, code in deaths.items() if code == -signal.SIGXFSZ]
    assert set(deaths.values()) <= {-signal.SIGXFSZ, 0}
    assert len(killed) > POINTS // 3
    promised = {check(tmp_path / f"{point}.db") for point in points}
    assert len(promised) > 3


@pytest.mark.timeout(PATIENCE_S)
@pytest.mark.parametrize("lines", [1, 2, 3, 50, 101, 202, 303])
def test_dying_at_whatever_instant_loses_nothing_that_was_promised(tmp_path, lines):
    told = tmp_path / "end.told"
    os.mkfifo(told)
    words = [sys.executable, SCRIPT, str(tmp_path), "on"]
    with subprocess.Popen(words) as child, told.open("rb") as reading:
        heard = [reading.readline() for _ in range(lines)]
        child.kill()
        heard += reading.readlines()
    told.unlink()
    told.write_bytes(b"".join(heard))
    audited = sum(b'"audited"' in line for line in heard)
    assert check(tmp_path / "end.db") >= lines - audited
