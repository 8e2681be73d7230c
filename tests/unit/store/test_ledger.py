import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from meshnode.core.errors import ConflictError, DamagedError
from meshnode.core.ledger.charges import Charge
from meshnode.core.ledger.ledger import (
    INCOMPLETE,
    Batch,
    Buckets,
    Diagnostics,
    DiagnosticsKey,
    LedgerRow,
    Slot,
    SlotKey,
    Slots,
    StoredReader,
    UsageRecord,
)
from meshnode.core.ledger.usage_log import START_HASH
from meshnode.store import counters, ledger, usage_log

READER = DiagnosticsKey("higress", "00ff")
RECORD = UsageRecord(
    idem_key="a",
    source="codex",
    at_s=1800.5,
    session="s",
    project="p",
    agent="a",
    owner="o",
    model="m",
    provider="openai",
    tier="standard",
    usage=Buckets(1, 2, 3, 4, 5, 6, 7),
    flags=("reasoning_estimated",),
)
OTHER = replace(RECORD, idem_key="b", usage=Buckets(input=100))


def commit(
    connection: sqlite3.Connection,
    records: Sequence[UsageRecord],
    diagnostics: Diagnostics = Diagnostics(),  # noqa: B008 - it is a value
    places: Mapping[bytes, bytes] = {b"log": b"place 1"},
    reader: DiagnosticsKey = READER,
) -> list[LedgerRow]:
    batch = Batch(reader, "access.log", places, records, diagnostics)
    return ledger.commit(connection, batch, 1_000)


def counts(connection: sqlite3.Connection) -> list[int]:
    tables = ("usage_log", "usage_readers", "usage_places", "usage_slots")
    return [connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables]


def test_records_position_and_slots_are_kept_together(connection: sqlite3.Connection):
    rows = commit(connection, [RECORD, OTHER], Diagnostics(quarantined=1))
    slot = Slot(2, Buckets(101, 2, 3, 4, 5, 6, 7), "a", "o", "p", "openai")
    kept = Diagnostics(records=2, quarantined=1)
    assert rows == [(SlotKey("s", "m", "standard", 1), slot), (READER, kept)]
    assert ledger.slots(connection) == rows
    stored = ledger.load(connection, READER)
    assert stored is not None
    assert (stored.places, stored.diagnostics) == ({b"log": b"place 1"}, kept)
    assert counts(connection) == [2, 1, 1, 1]


def test_a_record_counts_once_however_often_it_is_read(connection: sqlite3.Connection):
    again = replace(RECORD, offset=300)
    commit(connection, [RECORD, again])
    rows = commit(connection, [again, OTHER])
    assert rows[0][1] == Slot(2, RECORD.usage + OTHER.usage, "a", "o", "p", "openai")
    assert rows[1][1] == Diagnostics(records=2, duplicates_ignored=2)


def test_counts_add_up_and_the_tail_is_the_latest(connection: sqlite3.Connection):
    commit(connection, [], Diagnostics(unparsable_lines=1, partial_tail_bytes=9))
    commit(connection, [], Diagnostics(unparsable_lines=2, partial_tail_bytes=4))
    stored = ledger.load(connection, READER)
    assert stored is not None
    assert stored.diagnostics == Diagnostics(unparsable_lines=3, partial_tail_bytes=4)


def test_a_position_that_only_moves_is_not_published(connection: sqlite3.Connection):
    assert commit(connection, []) == []
    assert ledger.load(connection, READER) is not None


def test_a_response_that_another_reader_has_seen_end_is_incomplete_no_more(
    connection: sqlite3.Connection,
):
    begun = [replace(one, flags=(INCOMPLETE,)) for one in (RECORD, OTHER)]
    commit(connection, begun)
    other = DiagnosticsKey("higress", "11")
    commit(connection, [replace(OTHER, idem_key="c", flags=(INCOMPLETE,))], reader=other)
    ended = [replace(one, rank=1) for one in (RECORD, OTHER)]
    rows = dict(commit(connection, ended, reader=other))
    assert rows[other] == Diagnostics(records=1, duplicates_ignored=2)
    assert rows[READER] == Diagnostics(records=2, incomplete=1)
    assert dict(ledger.slots(connection))[READER] == rows[READER]
    commit(connection, [replace(OTHER, idem_key="c", rank=1)])
    incomplete = [value.incomplete for _, _, value in ledger.readers(connection)]
    assert incomplete == [0, 0]


def test_a_failed_commit_changes_nothing(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
):
    commit(connection, [RECORD])
    before = list(connection.iterdump())

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Slots, "correct", crash)
    with pytest.raises(KeyboardInterrupt):
        commit(connection, [OTHER], places={b"log": b"2"})
    assert list(connection.iterdump()) == before
    monkeypatch.undo()
    [(_, slot), _] = commit(connection, [OTHER])
    assert isinstance(slot, Slot)
    assert slot.records == 2


def test_readers_do_not_disturb_each_other(connection: sqlite3.Connection):
    commit(connection, [RECORD])
    commit(connection, [replace(RECORD, file="/copy/log")], reader=DiagnosticsKey("higress", "11"))
    found = [value for _, value in ledger.slots(connection) if isinstance(value, Diagnostics)]
    assert found == [Diagnostics(records=1), Diagnostics(duplicates_ignored=1)]


def test_an_unknown_reader_has_no_position(connection: sqlite3.Connection):
    assert ledger.load(connection, READER) is None


@pytest.mark.parametrize("statement", ["slots SET slot", "readers SET diagnostics"])
def test_a_damaged_row_is_named(connection: sqlite3.Connection, statement: str):
    commit(connection, [RECORD])
    connection.execute(f"UPDATE usage_{statement} = x'c1'")
    connection.commit()
    with pytest.raises(DamagedError, match="usage_"):
        ledger.slots(connection)
    with pytest.raises(DamagedError):
        commit(connection, [OTHER])
    assert counts(connection)[0] == 1


def test_a_line_of_higher_rank_corrects_what_was_counted(connection: sqlite3.Connection):
    first = replace(RECORD, usage=Buckets(input=3, output=1), rank=1)
    final = replace(first, usage=Buckets(input=3, output=90), rank=90, at_s=3700.0, model="n")
    commit(connection, [first])
    rows = dict(commit(connection, [final]))
    old, new = SlotKey("s", "m", "standard", 1), SlotKey("s", "n", "standard", 1)
    assert rows[old] == Slot(0, Buckets(), "a", "o", "p", "openai")
    assert rows[new] == Slot(1, final.usage, "a", "o", "p", "openai")
    assert rows[READER] == Diagnostics(records=1, duplicates_ignored=1)
    [kept] = usage_log.of_session(connection, "s", 0, 9)
    assert (kept.revision, kept.record) == (1, replace(final, at_s=first.at_s))
    assert [one.revision for one in usage_log.revisions(connection, "a")] == [0, 1]
    assert commit(connection, [first])[0] == (READER, Diagnostics(records=1, duplicates_ignored=2))


def test_what_is_recorded_beside_a_key_is_found_by_its_number(connection: sqlite3.Connection):
    keys = ["k", "k:1", "k:2", "k:10", "k:x:1", "k2:1", "l:1"]
    commit(connection, [replace(OTHER, idem_key=key) for key in keys])
    commit(connection, [replace(OTHER, idem_key="k:2", rank=1)])
    found = [(one.record.idem_key, one.revision) for one in usage_log.beside(connection, "k:")]
    assert found == [("k:1", 0), ("k:2", 0), ("k:2", 1), ("k:10", 0)]


def test_every_record_is_chained_to_the_one_before(connection: sqlite3.Connection):
    commit(connection, [RECORD])
    commit(connection, [OTHER, replace(RECORD, rank=1)])
    entries = usage_log.page(connection, 0, 10)
    assert [entry.seq for entry, _ in entries] == [1, 2, 3]
    hashes = usage_log.chain_on(START_HASH, [entry for entry, _ in entries])
    assert list(hashes) == entries
    connection.execute("UPDATE usage_log SET output = output + 1 WHERE seq = 2")
    edited = [entry for entry, _ in usage_log.page(connection, 0, 10)]
    assert [
        made == kept
        for (_, made), (_, kept) in zip(
            usage_log.chain_on(START_HASH, edited), entries, strict=True
        )
    ] == [True, False, False]


def test_a_place_is_moved_and_forgotten(connection: sqlite3.Connection):
    commit(connection, [RECORD], places={b"one": b"1", b"two": b"1"})
    commit(connection, [], places={b"one": b"2", b"two": b""})
    stored = ledger.load(connection, READER)
    assert stored is not None
    assert stored.places == {b"one": b"2"}
    ledger.forget_places(connection, READER)
    assert ledger.load(connection, READER) == replace_places(stored)
    again = replace(RECORD, offset=300)
    assert commit(connection, [again])[0][1] == Diagnostics(records=1, duplicates_ignored=1)


def test_what_was_left_out_counts_once_however_often_it_is_read(connection: sqlite3.Connection):
    left_out = Diagnostics(quarantined=2, unparsable_lines=1, requests_without_usage=3)
    batch = Batch(READER, "/logs", {b"one": b"1"}, (RECORD,), left_out)
    for _ in range(3):
        ledger.forget_places(connection, READER)
        ledger.commit(connection, batch, 0)
        stored = ledger.load(connection, READER)
        assert stored is not None
        assert stored.diagnostics == left_out + Diagnostics(records=1)


@pytest.mark.parametrize(
    ("where", "again"),
    [
        ({"file": "/logs/access.log.1"}, 0),  # rotated since
        ({"file": "/logs/access.log-20261120.gz"}, 0),
        ({"file": "/logs/access-20261120.log"}, 0),
        ({"file": "/logs/access-2026-11-20T09-30-15.123.log.gz"}, 0),
        ({"file": "/logs/access-audit.log"}, 1),
        ({"file": "/logs/access.log.bak"}, 1),
        ({"offset": 300}, 1),
        ({"file": "/copy/access.log"}, 1),
        ({"session": "t"}, 1),
        ({"tier": "standard+us"}, 0),  # of which older versions read no place
        ({"tier": "fast+us"}, 1),
    ],
)
def test_the_line_that_counts_is_no_repetition_of_itself(
    connection: sqlite3.Connection, where: dict[str, Any], again: int
):
    record = replace(RECORD, file="/logs/access.log")
    commit(connection, [record])
    ledger.forget_places(connection, READER)
    commit(connection, [replace(record, **where)])
    stored = ledger.load(connection, READER)
    assert stored is not None
    assert stored.diagnostics == Diagnostics(records=1, duplicates_ignored=again)


def test_what_another_has_read_meanwhile_is_not_counted_as_left_out_again(
    connection: sqlite3.Connection,
):
    left_out = Diagnostics(quarantined=1, unparsable_lines=1)
    batch = Batch(READER, "/logs", {b"one": b"1"}, (RECORD,), left_out)
    ledger.commit(connection, replace(batch, began={}), 0)
    before = list(connection.iterdump())
    late = replace(batch, places={b"one": b"2"}, records=(OTHER,), began={})
    with pytest.raises(ConflictError):
        ledger.commit(connection, late, 0)
    assert list(connection.iterdump()) == before
    ledger.commit(connection, replace(late, began={b"one": b"1", b"two": b"1"}), 0)
    stored = ledger.load(connection, READER)
    assert stored is not None
    assert stored.diagnostics == left_out + left_out + Diagnostics(records=2)


def replace_places(stored: StoredReader) -> StoredReader:
    return StoredReader({}, stored.diagnostics)


def test_slots_are_told_from_a_seq_on(connection: sqlite3.Connection):
    commit(connection, [RECORD])
    commit(connection, [replace(OTHER, session="t")])
    sessions = [
        [key.session for key, _ in ledger.slots(connection, seq) if isinstance(key, SlotKey)]
        for seq in (-1, 1, 2)
    ]
    assert sessions == [["s", "t"], ["t"], []]


def test_sums_of_some_sources_are_of_the_latest_revisions_too(connection: sqlite3.Connection):
    commit(connection, [RECORD, OTHER])
    for rank in (1, 2):
        commit(connection, [replace(RECORD, rank=rank, usage=Buckets(input=rank))])
    found = dict(usage_log.slots_where(connection, lambda _source, _file: True))
    assert found == {key: slot for key, slot in ledger.slots(connection) if key in found}
    assert [(slot.records, slot.usage.input) for slot in found.values()] == [(2, 102)]


def test_the_ends_of_a_span_are_those_of_what_counts_in_it(connection: sqlite3.Connection):
    at_s = RECORD.at_s
    commit(connection, [RECORD, replace(OTHER, at_s=at_s + 9, source="claude")])
    commit(connection, [replace(RECORD, rank=1, at_s=at_s - 5)])

    def ends(since_s: float, until_s: float, source: str = "") -> tuple[float, float] | None:
        return usage_log.ends_where(
            connection, lambda one, _file: source in ("", one), since_s, until_s
        )

    assert ends(at_s - 5, at_s + 10) == (at_s - 5, at_s + 9)
    assert ends(at_s - 5, at_s + 9) == (at_s - 5, at_s - 5)
    assert ends(at_s, at_s + 9) is None  # moved by its second revision, which counts
    assert ends(at_s - 5, at_s + 10, "claude") == (at_s + 9, at_s + 9)
    assert ends(at_s - 5, at_s + 10, "gemini") is None


def test_what_is_charged_already_is_not_priced_again_unless_two_make_one(
    connection: sqlite3.Connection,
):
    late = replace(RECORD, at_s=RECORD.at_s + 1)  # the better one, at the earlier time of both
    records = (OTHER, replace(late, rank=1), RECORD)
    charges = [Charge(number, "told") for number in range(3)]
    batch = Batch(READER, "access.log", {}, records, Diagnostics(), charges=charges)
    ledger.commit(connection, batch, 0, lambda record: Charge(int(record.at_s), "asked"))
    assert {
        entry.record.idem_key: (entry.charge.cost_nusd, entry.charge.price_source)
        for entry, _ in usage_log.page(connection, 0, 9)
    } == {"b": (0, "told"), "a": (1800, "asked")}


def test_the_counters_of_a_session_are_found_by_its_whole_name(connection):
    names = ["s", "s1", "", "t", "é" * 40]
    commit(connection, [replace(RECORD, idem_key=name, session=name) for name in names])
    for name in names:
        [(key, slot)] = counters.of_session(connection, name)
        assert (key.session, slot.records) == (name, 1)
    assert counters.of_session(connection, "nobody") == []


def test_the_log_says_after_which_record_others_were_recorded_from_a_time_on(connection):
    assert usage_log.last_before(connection, 1 << 60) == 0
    commit(connection, [RECORD])
    commit(connection, [OTHER])
    [(first, _), (second, _)] = usage_log.page(connection, 0, 2)
    assert usage_log.last_before(connection, first.recorded_ms) == 0
    assert usage_log.last_before(connection, second.recorded_ms + 1) == second.seq
