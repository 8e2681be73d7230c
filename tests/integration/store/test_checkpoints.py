"""A log of usage that was changed is told from one as written; what is dropped stays counted."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from usage_records import usage_record

from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.ledger.checkpoints import (
    CHECKPOINT,
    Checkpoint,
    checkpoint_from_signed,
    sign_checkpoint,
)
from meshnode.core.ledger.ledger import Batch, Buckets, Diagnostics, DiagnosticsKey, Round
from meshnode.core.ledger.rounds import Texts
from meshnode.core.ledger.usage_log import START_HASH, chained
from meshnode.node.ledger.verifying import verify_ledger
from meshnode.store import checkpoints, ledger, rounds, usage_log
from meshnode.store.database import Database

KEY, OTHER = Key(b"\1" * 32), Key(b"\2" * 32)
NODE = node_id_of(KEY.public)
READER = DiagnosticsKey("higress", "00ff")
RECORD = usage_record(usage=Buckets(input=600, output=50))


def sign(seq: int, hash_: bytes, totals: tuple[int, ...], key: Key = KEY) -> Signed:
    return sign_checkpoint(key, Checkpoint(NODE, seq, hash_, 1, totals, dropped=not totals))


def keep(database: Database, *keys: str, now_ms: int = 1_000, **changes) -> None:
    records = [replace(RECORD, idem_key=key, **changes) for key in keys]
    batch = Batch(READER, "log", {}, records, Diagnostics())
    database.run_now(ledger.commit, batch, now_ms)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Six records, a checkpoint after the fourth, and a correction after it."""
    database = Database(tmp_path / "node.db")
    keep(database, "a", "b", "c", "d")
    database.run_now(checkpoints.write, NODE, sign)
    keep(database, "e")
    keep(database, "b", usage=Buckets(input=700, output=60), rank=1)
    yield database
    database.close()


def run(database: Database, *statements: str) -> None:
    for statement in statements:
        database.run_now(lambda connection, one=statement: connection.execute(one).rowcount)


def wrong(database: Database) -> tuple[int, str] | None:
    found = verify_ledger(database, NODE)
    assert found["ok"] is (found["wrong"] is None)
    return None if found["wrong"] is None else (found["wrong"]["seq"], found["wrong"]["what"])


def rechain(database: Database, start: int) -> None:
    """Do what whoever edits records with care would: hash all that follow anew."""

    def again(connection) -> None:
        page = usage_log.page(connection, 0, 100)
        before = START_HASH
        for entry, hash_ in page:
            after = chained(before, entry) if entry.seq >= start else hash_
            connection.execute("UPDATE usage_log SET hash = ? WHERE seq = ?", (after, entry.seq))
            before = after

    database.run_now(again)


def test_a_log_as_written_is_called_so(database: Database):
    found = verify_ledger(database, NODE)
    assert (found["ok"], found["records"], found["checkpoints"], found["seq"]) == (True, 6, 1, 6)
    assert database.run_now(checkpoints.write, NODE, sign) is not None
    assert database.run_now(checkpoints.write, NODE, sign) is None
    assert wrong(database) is None


@pytest.mark.parametrize(
    ("harm", "seq", "what"),
    [
        ("UPDATE usage_log SET output = 1 WHERE seq = 2", 2, "edited"),
        ("UPDATE usage_log SET at_s = 5 WHERE seq = 6", 6, "edited"),
        ("UPDATE usage_log SET hash = x'00' WHERE seq = 3", 3, "edited"),
        ("UPDATE usage_kinds SET model = 'cheap'", 1, "edited"),
        ("UPDATE usage_log SET input = 'much' WHERE seq = 5", 1, "makes no sense"),
        ("DELETE FROM usage_log WHERE seq = 3", 3, "removed"),
        ("DELETE FROM usage_log WHERE seq <= 2", 1, "removed"),
        ("DELETE FROM usage_log WHERE seq <= 4", 1, "removed"),
        ("DELETE FROM usage_log WHERE seq > 2", 3, "cut off"),
        ("DELETE FROM usage_log", 1, "cut off"),
        ("DELETE FROM usage_log WHERE seq = 5", 5, "removed"),
        ("DELETE FROM usage_log WHERE seq = 6", 5, "add up"),
        ("DELETE FROM usage_slots", 5, "add up"),
        ("UPDATE usage_checkpoints SET payload = x'80'", 1, "checkpoint was edited"),
    ],
)
def test_the_first_record_that_was_changed_is_named(
    database: Database, harm: str, seq: int, what: str
):
    run(database, harm)
    found = wrong(database)
    assert found is not None
    assert found[0] == seq
    assert what in found[1]


def test_records_that_change_places_are_named(database: Database):
    run(
        database,
        "UPDATE usage_log SET seq = 99 WHERE seq = 2",
        "UPDATE usage_log SET seq = 2 WHERE seq = 3",
        "UPDATE usage_log SET seq = 3 WHERE seq = 99",
    )
    assert wrong(database) == (2, "it was edited, or put where another one was")


def test_a_log_that_is_chained_anew_is_told_by_its_checkpoint(database: Database):
    run(database, "UPDATE usage_log SET output = 1 WHERE seq = 2")
    rechain(database, 2)
    found = wrong(database)
    assert found is not None
    assert (found[0], "checkpoint" in found[1]) == (4, True)


def test_a_checkpoint_of_another_key_proves_nothing(database: Database):
    def forge(connection) -> None:
        _, hash_ = usage_log.tail(connection)
        signed = sign(6, hash_, checkpoints.totals(connection), OTHER)
        values = (6, signed.payload, signed.signature)
        connection.execute("INSERT INTO usage_checkpoints VALUES (?, ?, ?)", values)

    database.run_now(forge)
    found = wrong(database)
    assert found is not None
    assert "another node's" in found[1]


def test_the_audit_log_holds_the_ledger_to_what_it_was(database: Database):
    run(
        database,
        "INSERT INTO audit VALUES (1, 1, 'ledger_checkpoint', '', '', '', '', '', '', '',"
        f" 'up to 5 with hash {'ab' * 32}', x'')",
    )
    assert wrong(database) == (5, "the log was rewritten up to here: a checkpoint says otherwise")


def drop_all(database: Database, before_ms: int, now_ms: int = 1 << 50) -> int:
    steps = 0
    while database.run_now(checkpoints.drop, before_ms, now_ms, sign):
        steps += 1
    return steps


def test_what_is_old_goes_and_no_total_changes(database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoints, "DROPPED_AT_ONCE", 2)
    keep(database, "f", "g", now_ms=5_000)
    before = database.run_now(ledger.slots)
    assert drop_all(database, 2_000) == 3
    assert database.run_now(ledger.slots) == before
    found = verify_ledger(database, NODE)
    assert (found["ok"], found["records"], found["seq"]) == (True, 2, 8)
    keep(database, "h", now_ms=6_000)
    assert wrong(database) is None
    assert drop_all(database, 1 << 40) > 0
    assert database.run_now(usage_log.tail)[0] == 9
    assert wrong(database) is None


def test_a_record_that_was_dropped_is_not_counted_again(database: Database):
    keep(database, "z", now_ms=5_000)
    before = checkpoints_totals(database)
    drop_all(database, 2_000)
    keep(database, "a", "b", "z", now_ms=7_000)
    keep(database, "c", usage=Buckets(input=9999), rank=5, now_ms=7_000)
    assert checkpoints_totals(database) == before
    keep(database, "new", now_ms=7_000)
    assert checkpoints_totals(database)[0] == before[0] + 1
    assert wrong(database) is None


def test_texts_go_with_their_record_and_do_not_come_back(database: Database):
    def said(keys: str, **changes) -> Batch:
        records = [replace(RECORD, idem_key=key, **changes) for key in keys]
        texts = Texts(answer="x")
        told = [Round(record, texts) for record in records]
        return Batch(READER, "log", {}, records, Diagnostics(), told)

    database.run_now(ledger.commit, said("ab"), 1_000)
    database.run_now(ledger.commit, said("b", rank=2), 5_000)
    drop_all(database, 2_000)
    assert list(database.run_now(rounds.texts_of, ["a", "b"])) == ["b"]
    database.run_now(ledger.commit, said("ab"), 7_000)
    assert list(database.run_now(rounds.texts_of, ["a", "b"])) == ["b"]


def test_what_was_dropped_cannot_be_made_to_look_older(database: Database):
    keep(database, "f", "g", now_ms=5_000)
    drop_all(database, 2_000)
    run(database, "DELETE FROM usage_log WHERE seq = 7")
    found = wrong(database)
    assert found is not None
    assert (found[0], "removed" in found[1]) == (1, True)


@pytest.mark.parametrize("wrong_ms", [1, 900_000])  # 1970 at a boot; years ahead
def test_a_clock_that_was_wrong_for_a_moment_keeps_nothing_and_takes_nothing_young(
    tmp_path: Path, wrong_ms: int
):
    database = Database(tmp_path / "one.db")
    for key, at_ms in zip("abcdefgh", (11, 12, wrong_ms, 13, 101, wrong_ms, 102, 103), strict=True):
        keep(database, key, now_ms=at_ms)
    for before_ms, now_ms, kept in (
        (10, 104, 8),
        (13, 104, 6 if wrong_ms > 104 else 5),
        (100, 190, 4),
        (102, 190, 3 if wrong_ms > 190 else 2),
        (200, 290, 1),
    ):
        drop_all(database, before_ms, now_ms)
        assert verify_ledger(database, NODE)["records"] == kept, before_ms
        assert wrong(database) is None
    database.close()


def test_the_newest_record_always_stays(tmp_path: Path):
    database = Database(tmp_path / "one.db")
    assert database.run_now(checkpoints.drop, 1 << 40, 1 << 50, sign) is None
    assert database.run_now(checkpoints.write, NODE, sign) is None
    keep(database, "a")
    assert database.run_now(checkpoints.drop, 1 << 40, 1 << 50, sign) is None
    assert wrong(database) is None
    database.close()


def written(database: Database) -> list[int]:
    """Write checkpoints until they are abreast; return their seqs."""
    found = []
    while step := database.run_now(checkpoints.write, NODE, sign):
        found.append(step[0])
    return found


def test_a_checkpoint_adds_what_is_behind_the_last_one_to_its_totals(
    database: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(checkpoints, "ADDED_AT_ONCE", 3)
    keep(database, *"fgh")
    keep(database, "b", usage=Buckets(input=800), rank=2)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "totals", lambda _: pytest.fail("all counters were read"))
        assert written(database) == [7, 10]
    assert wrong(database) is None
    newest = checkpoint_from_signed(database.run_now(checkpoints.kept)[-1], NODE)
    assert newest.totals == checkpoints_totals(database)


def test_counters_that_were_changed_are_not_signed_by_the_next_checkpoint(database: Database):
    run(database, "DELETE FROM usage_slots")
    assert written(database) == [6]
    keep(database, "f")
    found = wrong(database)
    assert found is not None
    assert "add up" in found[1]


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE usage_checkpoints SET payload = x'80'",
        "UPDATE usage_checkpoints SET signature = zeroblob(64)",
        "DELETE FROM usage_checkpoints",
        "DELETE FROM usage_log WHERE seq = 5",
        "DELETE FROM usage_log WHERE seq = 2",
        "UPDATE usage_log SET rank = 1e300 WHERE seq = 6",
        "UPDATE usage_log SET rank = 1e300 WHERE seq = 2",  # which the one of seq 6 corrects
    ],
)
def test_without_a_sound_checkpoint_or_record_all_counters_are_added_up(
    database: Database, harm: str
):
    run(database, harm)
    assert written(database) == [6]
    signed = database.run_now(checkpoints.kept)[-1]
    assert checkpoint_from_signed(signed, NODE).totals == checkpoints_totals(database)


def checkpoints_totals(database: Database) -> tuple[int, ...]:
    totals: Callable[..., tuple[int, ...]] = checkpoints.totals
    return database.run_now(totals)


def test_the_type_of_a_checkpoint_is_its_own():
    assert sign(1, bytes(32), ()).type == CHECKPOINT
