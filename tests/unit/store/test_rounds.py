"""Texts of rounds beside the log: bounded, replaced only by what counts, gone with age."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from usage_records import usage_record

from meshnode.core.commands.commands import Command
from meshnode.core.errors import DamagedError, RefusedError
from meshnode.core.ledger.charges import Charge
from meshnode.core.ledger.ledger import (
    Batch,
    Buckets,
    Diagnostics,
    DiagnosticsKey,
    Round,
    UsageRecord,
)
from meshnode.core.ledger.rounds import (
    RoundLine,
    RoundsHead,
    Texts,
    head_from_json,
    line_from_json,
    texts_to_bytes,
)
from meshnode.node.ledger import rounds as shown
from meshnode.store import ledger, rounds, usage_log
from meshnode.store.database import Database

READER = DiagnosticsKey("higress", "00ff")


def record(key: str, at_s: float = 1800.0, **changes) -> UsageRecord:
    usage = Buckets(input=600, cache_read=400, output=50, reasoning=10)
    return usage_record(key, at_s=at_s, usage=usage, **changes)


def told(of: UsageRecord, answer: str) -> Round:
    return Round(of, Texts(question="q", answer=answer, response_type="normal"))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "node.db")
    yield database
    database.close()


def keep(database: Database, *said: tuple[UsageRecord, str]) -> None:
    records = [record for record, _ in said]
    rounds_of = [told(record, answer) for record, answer in said if answer]
    batch = Batch(READER, "log", {}, records, Diagnostics(), rounds_of)
    database.run_now(ledger.commit, batch, 1_000, lambda _: Charge(2_500, "shipped@1"))


def of(database: Database, session: str = "s", **how) -> list[RoundLine]:
    head, lines = shown.rounds_of(database, session, **{"with_texts": True, **how})
    found = list(lines)
    assert head.following == len(found)
    return found


def test_rounds_come_in_the_order_of_their_times_with_what_they_used(database: Database):
    keep(database, (record("b", 3000.0), "second"), (record("a", 2000.0), "first"))
    keep(database, (record("c", 4000.0), ""))
    first, second, third = of(database)
    assert [one.round for one in (first, second, third)] == [1, 2, 3]
    assert (first.answer, second.answer, second.question) == ("first", "second", "q")
    assert (first.input_tokens, first.output_tokens, first.reasoning_tokens) == (1000, 50, 10)
    assert (first.cached_tokens, first.cost_usd) == (400, "0.0000025")
    assert (third.kept, third.input_tokens) == (False, 1000)
    assert of(database, "other") == []


def test_without_messages_no_text_is_shown(database: Database):
    keep(database, (record("a"), "secret"))
    pieces = shown.read_rounds(database, asked(messages=False))
    whole = b"".join(pieces)
    assert b"secret" not in whole
    assert b'"kept":true' in whole


def test_a_later_line_that_counts_replaces_what_was_said_and_others_do_not(database: Database):
    keep(database, (record("a"), "one"))
    keep(database, (record("a"), "two"))
    assert [line.answer for line in of(database)] == ["one"]
    keep(database, (record("a", rank=1), "three"))
    [line] = of(database)
    assert (line.round, line.answer) == (1, "three")


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    ("other", "answer"),
    [
        ({"at_s": 900.0, "session": "t", "owner": "otto", "rank": -1}, "one"),
        ({"at_s": 900.0, "rank": -1}, "one"),
        ({"at_s": 2700.0, "rank": 1, "session": "t"}, "other"),
        ({"at_s": 900.0, "rank": 1, "session": "t"}, "other"),
    ],
)
def test_what_was_said_in_one_line_is_never_shown_with_another(
    database: Database, other: dict[str, Any], answer: str, *, together: bool
):
    lines = [(record("a"), "one"), (record("a", **other), "other")]
    for some in [lines] if together else [[line] for line in lines]:
        keep(database, *some)
    assert [line.answer for name in "st" for line in of(database, name)] == [answer]


def test_what_was_said_goes_where_another_line_counts_that_has_no_texts(database: Database):
    keep(database, (record("a"), "one"))
    keep(database, (record("a", rank=1, session="t"), ""))
    assert [line.kept for line in of(database, "t")] == [False]


def test_texts_may_be_kept_of_what_was_counted_before(database: Database):
    keep(database, (record("a"), ""))
    keep(database, (record("a"), "late"))
    assert [line.answer for line in of(database)] == ["late"]


def test_a_session_keeps_its_newest_texts(database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rounds, "SESSION_BYTES_MAX", 3000)
    for number in range(6):
        keep(database, (record(f"r{number}", 2000.0 + number), "x" * 800))
    keep(database, (record("other", session="t"), "y" * 800))
    assert [line.kept for line in of(database)] == [False] * 3 + [True] * 3
    assert [line.kept for line in of(database, "t")] == [True]


def test_of_one_moment_those_that_came_last_are_the_newest(
    database: Database, monkeypatch: pytest.MonkeyPatch
):
    size = len(texts_to_bytes(told(record(""), "x").texts))
    monkeypatch.setattr(rounds, "SESSION_BYTES_MAX", 2 * size)
    for number in range(4):
        keep(database, (record(f"r{number}"), str(number)))
    assert [line.answer for line in of(database) if line.kept] == ["2", "3"]


def test_texts_beyond_their_room_go_and_what_is_counted_stays(
    database: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rounds, "DROPPED_AT_ONCE", 2)
    keep(database, *[(record(f"r{n}", 1000.0 + n), "x") for n in range(5)])
    before = database.run_now(ledger.slots)
    assert not database.run_now(rounds.prune)
    size = len(texts_to_bytes(told(record(""), "x").texts))
    monkeypatch.setattr(rounds, "BYTES_MAX", 2 * size)
    assert database.run_now(rounds.prune)
    assert not database.run_now(rounds.prune)
    assert [line.kept for line in of(database)] == [False, False, False, True, True]
    assert database.run_now(ledger.slots) == before


def test_a_broken_row_is_said(database: Database):
    keep(database, (record("a"), "one"))

    def spoil(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE usage_rounds SET said = x'c1'")

    database.run_now(spoil)
    with pytest.raises(DamagedError, match="usage_rounds"):
        of(database)


def asked(session: str = "", **args) -> Command:
    if not session:
        args["session"] = "s"
    return Command("m", bytes(16), "n", session, 1, "read_messages", 0, 1, args=args)


def test_a_reading_is_lines_in_pieces(database: Database):
    keep(database, *[(record(f"r{n:02}", 1000.0 + n), "\x1b" * 60_000) for n in range(12)])
    pieces = list(shown.read_rounds(database, asked("s")))
    assert max(map(len, pieces)) <= shown.PIECE_BYTES
    head, *lines = b"".join(pieces).splitlines()
    assert head_from_json(head) == RoundsHead(rounds=12, following=12)
    assert [line_from_json(line).round for line in lines] == list(range(1, 13))


def test_of_a_long_session_the_newest_rounds_are_shown(
    database: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shown, "ROUNDS_MAX", 2)
    keep(database, *[(record(f"r{n}", 1000.0 + n), "x") for n in range(5)])
    assert [line.round for line in of(database)] == [4, 5]


@pytest.mark.parametrize("session", [None, 7, "", "x" * 513])
def test_a_reading_names_its_session(database: Database, session: object):
    command = Command("m", bytes(16), "n", "", 1, "read_rounds", 0, 1, args={"session": session})
    with pytest.raises(RefusedError):
        shown.read_rounds(database, command)


def test_what_was_pruned_while_it_was_read_is_left_out(
    database: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shown, "PAGE_ROUNDS", 1)
    keep(database, (record("a", 1.0), "x"), (record("b", 2.0), "y"))
    _, lines = shown.rounds_of(database, "s", with_texts=True)
    next(lines)
    database.run_now(lambda connection: connection.execute("DELETE FROM usage_log").rowcount)
    assert list(lines) == []
    assert database.run_now(usage_log.seqs_of_session, "s") == []
