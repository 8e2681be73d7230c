"""Files of every version become files of this one, all of a step or nothing of it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from meshnode.app.ports import JournalEntry
from meshnode.client.home import Home, make_private
from meshnode.core.errors import ConflictError, StorageError
from meshnode.core.keys import Signed
from meshnode.core.ledger.ledger import Batch, Diagnostics, DiagnosticsKey
from meshnode.node.ledger.glancing import of_home
from meshnode.node.ledger.usage import Asked, Usage, Wanted
from meshnode.node.lock import HomeLock
from meshnode.store import facts, feeds, invites, journal, ledger, usage_log
from meshnode.store.database import VERSION, Database
from meshnode.store.migrations import MIGRATIONS, Migration, migrate

GOLDEN = Path(__file__).parents[2] / "golden" / "store"
OLD = sorted(GOLDEN.glob("version_*.sql"), key=lambda path: int(path.stem.partition("_")[2]))
TAKEN_OVER = {"usage_records", "usage_offsets"}  # held against the ledger below


def written_by(script: Path, path: Path) -> Path:
    """Make the file that a program of an older version has left."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script.read_text())
    return path


def shape(path: Path) -> list[tuple[object, ...]]:
    """Return every column of every table."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            "SELECT m.name, c.name, c.type, c.pk, c.[notnull] FROM sqlite_master m"
            " JOIN pragma_table_info(m.name) c ORDER BY m.name, c.cid"
        ).fetchall()


def contents(path: Path) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(path)) as connection:
        return contents_of(connection)


def contents_of(connection: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    names = connection.execute(
        "SELECT name, (SELECT count(*) FROM pragma_table_info(name)) FROM sqlite_master"
        " WHERE type = 'table'"
    )
    return {
        name: connection.execute(f"SELECT * FROM {name} ORDER BY 1{', 2' * (wide > 1)}").fetchall()
        for name, wide in names.fetchall()
    }


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "node.db", isolation_level=None)) as connection:
        yield connection


def test_the_schema_is_as_many_steps_as_its_version_says():
    assert len(MIGRATIONS) == VERSION


def test_there_is_a_golden_file_of_every_older_version():
    assert [path.stem for path in OLD] == [f"version_{n}" for n in range(1, VERSION)]


@pytest.mark.parametrize("script", OLD, ids=lambda path: path.stem)
def test_a_file_of_an_older_version_keeps_all_it_holds(tmp_path: Path, script: Path):
    path = written_by(script, tmp_path / "old.db")
    before = contents(path)
    Database(path).close()
    after = contents(path)
    assert version_of(path) == VERSION
    for table, rows in before.items():
        if table in TAKEN_OVER:
            continue
        assert [row[: len(old)] for row, old in zip(after[table], rows, strict=True)] == rows
    Database(tmp_path / "new.db").close()
    assert shape(path) == shape(tmp_path / "new.db")


@pytest.mark.parametrize("script", OLD, ids=lambda path: path.stem)
def test_a_file_of_an_older_version_is_read_as_of_this_one_and_left_as_it_is(
    tmp_path: Path, script: Path
):
    path = written_by(script, tmp_path / "old.db")
    before = path.read_bytes()
    database = Database(path, frozen=True)
    read = database.run_now(contents_of)
    database.close()
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["old.db"]
    Database(path).close()
    assert contents(path) == read


def test_an_older_file_that_is_too_large_to_be_copied_is_told(tmp_path: Path, monkeypatch):
    path = written_by(OLD[-1], tmp_path / "old.db")
    monkeypatch.setattr(Database, "copy_bytes_max", path.stat().st_size - 1)
    with pytest.raises(StorageError, match="older version, and too large"):
        Database(path, frozen=True)


def test_what_version_1_wrote_is_read_and_written_on(tmp_path: Path):
    path = written_by(GOLDEN / "version_1.sql", tmp_path / "old.db")
    database = Database(path)
    held = database.run_now(feeds.load)
    assert (len(held.feeds), len(held.control), held.damaged) == (2, 2, [])
    for header, rows in held.feeds:
        assert sorted(rows.tables) == ["node", "sessions"]
        assert len(database.run_now(feeds.salvaged, header.origin)) == 2
    assert database.run_now(facts.recall, "name") == b"anna"
    assert database.run_now(journal.generation, 7) == 42
    receipt = database.run_now(journal.begin, JournalEntry(bytes(16), bytes(32), 1 << 40), 2.0)
    assert isinstance(receipt, Signed)
    assert database.run_now(invites.get, bytes(16)).labels == {"rack": "7"}
    database.close()


def test_usage_that_was_counted_before_there_was_a_chain_stays_counted(tmp_path: Path):
    database = Database(written_by(GOLDEN / "version_6.sql", tmp_path / "old.db"))
    reader = DiagnosticsKey("higress", "hash")
    stored = database.run_now(ledger.load, reader)
    assert stored is not None
    assert (stored.places, stored.diagnostics.records) == ({b"": b"\1"}, 2)
    entries = database.run_now(usage_log.of_session, "s", 0, 10)
    assert [entry.record.idem_key for entry in entries] == ["higress:r2", "higress:r1"]
    again = Batch(reader, "", {}, [entry.record for entry in entries], Diagnostics())
    assert database.run_now(ledger.commit, again, 0) == []
    assert len(database.run_now(ledger.slots)) == 2 + 1
    database.close()


def test_a_step_that_fails_leaves_the_file_as_the_step_before_it_did(connection):
    steps = [
        Migration("one", "CREATE TABLE a (x); CREATE TABLE b (x)"),
        Migration("two", "ALTER TABLE a ADD COLUMN y; INSERT INTO a VALUES (1, 2); nonsense"),
    ]
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, steps)
    assert not connection.in_transaction
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("SELECT * FROM pragma_table_info('a')").fetchall()[1:] == []
    migrate(connection, [steps[0], Migration("two", "ALTER TABLE a ADD COLUMN y")])
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)


def test_a_new_table_is_one_more_step(connection):
    migrate(connection)
    notes = Migration("what is noted", "CREATE TABLE notes (position INTEGER PRIMARY KEY)")
    migrate(connection, (*MIGRATIONS, notes))
    migrate(connection, (*MIGRATIONS, notes))
    assert connection.execute("SELECT count(*) FROM notes").fetchone() == (0,)
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION + 1,)


def test_two_processes_that_open_an_old_file_at_once_take_each_step_once(tmp_path: Path):
    path = written_by(GOLDEN / "version_1.sql", tmp_path / "old.db")
    first = sqlite3.connect(path, isolation_level=None)
    second = sqlite3.connect(path, isolation_level=None)

    class Racing:
        """The second, whose view of the version is the first's before its step."""

        in_transaction = False

        def execute(self, statement: str) -> sqlite3.Cursor:
            if statement == "BEGIN IMMEDIATE":
                migrate(first)
            return second.execute(statement)

    migrate(Racing())  # type: ignore[arg-type] # it stands for a connection
    assert version_of(path) == VERSION
    first.close()
    second.close()


def test_who_may_not_take_a_step_leaves_an_old_file_to_its_node(tmp_path: Path):
    def forbid() -> None:
        raise ConflictError("a node runs")

    path = written_by(OLD[-1], tmp_path / "old.db")
    before = contents(path)
    with pytest.raises(ConflictError):
        Database(path, before_steps=forbid)
    assert (version_of(path), contents(path)) == (VERSION - 1, before)
    Database(path).close()
    Database(path, before_steps=forbid).close()
    Database(tmp_path / "new.db", before_steps=forbid).close()


def test_who_only_looks_at_a_ledger_leaves_it_to_its_older_version(tmp_path: Path):
    home = Home(tmp_path / "h")
    make_private(home.path)
    before = written_by(OLD[-1], home.database).read_bytes()
    slots = Usage.looked_at(home, lambda: 0.0, lambda ledger: ledger.answer(Wanted(), Asked()))
    assert slots["records"] > 0
    assert Usage.looked_at(home, lambda: 0.0, lambda ledger: ledger.session("none")) is None
    assert home.database.read_bytes() == before
    assert [one.name for one in home.path.iterdir()] == [home.database.name]


@pytest.mark.parametrize("runs", [True, False])
def test_a_ledger_that_a_node_of_an_older_version_keeps_is_not_made_ours(
    tmp_path: Path, runs: bool
):
    home = Home(tmp_path / "h")
    make_private(home.path)
    written_by(OLD[-1], home.database)
    with HomeLock(home) if runs else nullcontext():
        assert of_home(home, ("s", str(tmp_path / "s.jsonl")), 0.0, 1.0) is None
        assert version_of(home.database) == VERSION - 1
        refusal = pytest.raises(ConflictError, match="a node of an older version runs")
        with refusal if runs else nullcontext(), Usage(home, lambda: 0.0):
            pass
    assert version_of(home.database) == VERSION - runs
