"""The ledger of a home without a node: what its answers say about themselves."""

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import gateway_log
import pytest
from writing import written_without_pauses

from meshnode.client.home import Home
from meshnode.core.errors import StorageError
from meshnode.core.keys import Signed
from meshnode.core.ledger.checkpoints import CHECKPOINT
from meshnode.ingest.reading import SourceConfig
from meshnode.node.ledger.usage import Asked, Usage, Wanted
from meshnode.store import checkpoints, usage_log
from meshnode.store.database import Database

pytestmark = pytest.mark.integration
GOLDEN = Path(__file__).parents[2] / "golden"
NOVEMBER_S = 1_795_132_800.0  # 2026-11-20T00:00Z
line = partial(gateway_log.line, at="2026-11-19T10:00:00Z")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def usage(home: Home) -> Iterator[Usage]:
    with Usage(home, lambda: NOVEMBER_S) as opened:
        yield opened


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "access.log"
    path.write_text(line("r1") + line("r2") + line("r3"))
    return path


def drop(home: Home) -> None:
    """Drop all records but the last, as a node does with old ones."""
    with closing(Database(home.database, checked=False)) as database:
        signed = Signed(CHECKPOINT, b"", b"")
        assert database.run_now(checkpoints.drop, 1 << 60, 1 << 61, lambda *_: signed) is not None


def test_sums_of_single_records_say_from_when_those_are_kept(home: Home, usage: Usage, log: Path):
    usage.read(SourceConfig("higress", str(log)))
    higress = Wanted(sources=("higress",))
    assert usage.answer(higress, Asked())["notes"] == []
    drop(home)
    [note] = usage.answer(higress, Asked(("block",)))["notes"]
    assert "the first block may have begun before" in note
    for wanted in (higress, Wanted(paths=(str(log),))):
        found = usage.answer(wanted, Asked())
        assert found["records"] == 1
        [note] = found["notes"]
        assert "recorded before 2026-11-20T00:00:00.000Z" in note
    whole = usage.answer(Wanted(), Asked())
    assert (whole["records"], whole["notes"]) == (3, [])
    later = usage.answer(higress, Asked(since="2026-11-20T00:00:00Z"))
    assert (later["records"], later["notes"]) == (0, [])


def transcripts_of(source: str, root: Path) -> list[Path]:
    """Copy what was written by hand into a tree that its agent would have made."""
    if source == "gemini":
        path = root / "project" / "chats" / "session-1.jsonl"
        path.parent.mkdir(parents=True)
        said = {"type": "gemini", "model": "g", "timestamp": "2026-11-19T10:00:00Z"}
        rows = [said | {"id": f"m{n}", "tokens": {"input": 10 + n}} for n in range(4)]
        path.write_text("".join(json.dumps(row) + "\n" for row in ({"sessionId": "s1"}, *rows)))
        return [path]
    paths = []
    for file in sorted((GOLDEN / source).rglob("*.jsonl")):
        is_codex = source == "codex"
        path = root / ("sessions" if is_codex else "project")
        path /= f"rollout-{file.parent.name}-{file.name}" if is_codex else file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        paths.append(shutil.copyfile(file, path))
    return paths


@pytest.mark.parametrize("source", ["claude", "codex", "gemini"])
def test_a_transcript_that_comes_back_when_its_place_is_forgotten_counts_nothing_twice(
    home: Home, usage: Usage, log: Path, tmp_path: Path, source: str
):
    root, away = tmp_path / "root", tmp_path / "away"
    paths = transcripts_of(source, root)
    last = paths[-1].with_name(f"{'rollout-' if source == 'codex' else ''}zz.jsonl")
    shutil.copyfile(paths[0], last)
    for path in paths:
        os.utime(path, (0, 0))
    told = SourceConfig(source, str(root))
    usage.read(told)
    usage.read(SourceConfig("higress", str(log)))  # the last record of all is never dropped

    def totals() -> dict[str, Any]:
        return usage.answer(Wanted(), Asked(by=("session", "model")))["groups"]

    def places() -> int:
        with closing(sqlite3.connect(home.database)) as connection:
            query = "SELECT count(*) FROM usage_places WHERE source = ?"
            return connection.execute(query, (source,)).fetchone()[0]

    before, count = totals(), len(paths) + 1
    assert len(before) > 1
    assert places() == count
    drop(home)
    root.rename(away)
    last.parent.mkdir(parents=True)
    (away / last.relative_to(root)).rename(last)
    usage.read(told)
    assert (places(), totals()) == (1, before)
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        (away / path.relative_to(root)).rename(path)
    usage.read(told)
    assert (places(), totals()) == (count, before)


def test_a_reader_that_is_overtaken_counts_faults_once_and_loses_no_record(
    home: Home, usage: Usage, log: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("meshnode.node.ledger.usage.READ_BYTES_MAX", 300)
    monkeypatch.setattr("meshnode.node.ledger.usage.PIECES_TOGETHER", 1)
    log.write_text("".join(line(f"r{number}") + "nonsense\n" for number in range(20)))
    source = SourceConfig("higress", str(log))
    overtaken: list[int] = []

    def overtake(records: int) -> None:
        if not overtaken:
            overtaken.append(records)
            with Usage(home, lambda: NOVEMBER_S) as other:
                other.read(source)

    usage.read(source, overtake)
    assert 0 < overtaken[0] < 20
    found = usage.answer(Wanted(), Asked())
    assert (found["records"], found["diagnostics"]["unparsable_lines"]) == (20, 20)
    with log.open("a") as file:
        file.write(line("r20") + "nonsense\n")
    usage.read(source)
    found = usage.answer(Wanted(), Asked())
    assert (found["records"], found["diagnostics"]["unparsable_lines"]) == (21, 21)


def test_a_document_that_is_written_anew_counts_what_is_wrong_in_it_now(
    usage: Usage, tmp_path: Path
):
    chat = tmp_path / "project" / "chats" / "session-1.json"
    chat.parent.mkdir(parents=True)
    source = SourceConfig("gemini", str(tmp_path))

    def wrong(*inputs: int) -> int:
        rows = [
            {"id": f"m{n}", "timestamp": "2026-11-19T10:00:00Z", "tokens": {"input": tokens}}
            for n, tokens in enumerate(inputs)
        ]
        chat.write_text(json.dumps({"sessionId": "s", "messages": rows}))
        usage.read(source)
        found = usage.answer(Wanted(), Asked())["diagnostics"]
        return int(found["quarantined"])

    assert [wrong(-1), wrong(-1, 1), wrong(-1, 1, 1), wrong(-1, -1, 1, 1)] == [1, 1, 1, 2]
    usage.forget_places([source])
    assert [wrong(1, -1, 1, 1, 1), wrong(1, 1)] == [1, 0]


def test_a_log_is_read_beside_another_process_that_writes_without_pauses(
    home: Home, log: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("meshnode.node.ledger.usage.READ_BYTES_MAX", 300)
    monkeypatch.setattr("meshnode.node.ledger.usage.PIECES_TOGETHER", 1)
    home.path.mkdir(mode=0o700)
    with written_without_pauses(home.database), Usage(home, lambda: NOVEMBER_S) as usage:
        assert usage.read(SourceConfig("higress", str(log))).state.records == 3


def test_a_home_that_another_process_never_lets_go_of_is_told_and_loses_nothing(
    home: Home, log: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("meshnode.node.ledger.usage.PATIENCE_MS", 20)
    source = SourceConfig("higress", str(log))
    with Usage(home, lambda: NOVEMBER_S) as usage:
        with closing(sqlite3.connect(home.database, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageError, match="another process holds") as told:
                usage.read(source)
        assert told.value.hint == "let it finish and try again, or end it"
        assert usage.read(source).state.records == 3


@pytest.mark.parametrize("is_named", [False, True])
def test_what_is_off_with_prices_is_told_until_it_is_mended(home: Home, log: Path, is_named: bool):
    home.path.mkdir(mode=0o700)
    named = log.with_name("team.yaml") if is_named else home.prices
    source = SourceConfig("higress", str(log))
    home.config.write_text("pricse: x\n")
    for path in {named, home.prices}:
        path.write_text("prices: [{modle: m, input: 1, output: 1}]")
    with Usage(home, lambda: NOVEMBER_S, str(named) if is_named else "") as usage:
        usage.follow()
        for number in range(3):
            for path in {named, home.prices}:
                path.write_text(path.read_text() + "\n" * (number > 0))
            usage.read(source)
            usage.answer(Wanted(), Asked())
            files = [one.partition(":")[0] for one in usage.faults]
            assert sorted(files) == sorted({"config.yaml", "prices.yaml", named.name})
        for path in {named, home.prices}:
            path.write_text("prices: []")
        usage.read(source)
        usage.answer(Wanted(), Asked())
        assert [one.partition(":")[0] for one in usage.faults] == ["config.yaml"]


PRICES = """prices:
  - {model: m, input: 1, output: 1, effective_until: 2026-08-01T12:00:00Z}
  - {model: m, input: 5, output: 5, effective_from: 2026-08-01T12:00:00Z}
"""


@pytest.mark.parametrize(
    ("asked", "prices", "is_finer"),
    [
        (Asked(("day",)), "prices: []", False),
        (Asked(("model",)), "prices: []", False),
        (Asked(("day",)), PRICES, True),
        (Asked(("hour",)), "prices: []", True),
        (Asked(("day",), tz="Asia/Kolkata"), "prices: []", True),
        (Asked(("day",), since="2026-08-01T11:00:00Z"), "prices: []", True),
    ],
)
def test_a_path_that_has_all_there_is_costs_what_its_records_do(
    home: Home, tmp_path: Path, monkeypatch, asked: Asked, prices: str, is_finer: bool
):
    log, other = tmp_path / "access.log", tmp_path / "other.log"
    hours = enumerate(("02", "10", "20"))
    log.write_text("".join(line(f"r{n}", at=f"2026-08-01T{h}:00:00Z") for n, h in hours))
    other.write_text(line("r9"))
    home.path.mkdir(mode=0o700)
    home.prices.write_text(prices)
    added_up, wanted = [], Wanted(paths=(str(log),))
    slots_where = usage_log.slots_where
    monkeypatch.setattr(
        usage_log, "slots_where", lambda *words: added_up.append(words) or slots_where(*words)
    )
    with Usage(home, lambda: NOVEMBER_S) as usage:
        usage.read(SourceConfig("higress", str(log)))
        found = usage.answer(wanted, asked)
        assert bool(added_up) == is_finer
        usage.read(SourceConfig("higress", str(other)))
        added_up.clear()
        assert usage.answer(wanted, asked) == found
        assert added_up
