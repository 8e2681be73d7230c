"""A home that joins another mesh carries its ledger and sessions there, and nothing else."""

import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from integration.rpc.fleet import Founded

from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.core.errors import StorageError
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.rows import all_rows
from meshnode.core.keys import Key
from meshnode.core.ledger.ledger import LEDGER
from meshnode.core.membership.genesis import Genesis
from meshnode.core.sessions.sessions import SESSIONS
from meshnode.node.homes.restoring import Damage, move, repair, restore
from meshnode.store import facts, feeds, rollups
from meshnode.store.database import Database

pytestmark = pytest.mark.integration
OLD, NEW = Founded(9).genesis, Founded(10).genesis
CHANCE = Random(3).randbytes
US, OTHER = (Key.new(CHANCE) for _ in range(2))
VALUE = bytes(4000)
ROWS = 150  # of a table: several flushes
CARRIED = {(table, b"%d" % number) for table in (LEDGER, SESSIONS) for number in range(ROWS)}
LEFT = {("node", b""), ("registry", b"old"), ("removals", b"old")}


def saved(database: Database, key: Key, places: set[tuple[str, bytes]]) -> None:
    feed = OwnFeed(key, OLD.mesh_id, OLD.limits, 7)
    for place in sorted(places):
        feed.write(*place, VALUE)
    while change := feed.flush(1.0):
        database.run_now(feeds.save, [change], [])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The database of a home that was in a mesh of two, and has joined another one."""
    path = tmp_path / "state.db"
    with closing(Database(path)) as database:
        saved(database, US, CARRIED | LEFT)
        saved(database, OTHER, {("node", b"")})
        held = rollups.held_at(OLD.mesh_id, 1)
        database.run_now(facts.remember, {rollups.HELD: held})
    return path


def started(path: Path, genesis: Genesis = NEW, boot: int = 8) -> tuple[Mesh, Damage]:
    """Take up the disk as a node does at its start, and end before anything else is written."""
    mesh = Mesh(genesis, Self(US, boot, Random(1)))
    with closing(Database(path)) as database:
        damage = restore(mesh, database, 1_790_000_000.0)
        if damage:
            repair(mesh, database, damage)
        move(mesh, database, damage, 9.0)
    return mesh, damage


def asked(path: Path, query: str) -> list:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(query).fetchall()


def test_what_is_carried_is_signed_whole_before_anything_else_happens(path):
    for boot in (8, 9, 10):
        mesh, damage = started(path, boot=boot)
        assert not damage
        assert mesh.own.header.mesh == NEW.mesh_id
        assert set(all_rows(mesh.own.rows)) == CARRIED
        assert not mesh.own.waiting
    assert asked(path, "SELECT count(*) FROM feeds") == [(1,)]
    assert asked(path, "SELECT count(*) FROM rows") == [(len(CARRIED),)]
    with closing(Database(path)) as database:
        assert database.run_now(facts.recall, rollups.HELD) == rollups.held_at(NEW.mesh_id, 1)


def test_a_feed_that_was_never_held_is_still_to_be_held(path):
    asked(path, "DELETE FROM meta")
    started(path)
    with closing(Database(path)) as database:
        assert database.run_now(facts.recall, rollups.HELD) is None


def test_a_disk_that_fails_meanwhile_has_the_feed_of_the_old_mesh_whole(path, monkeypatch):
    def full(*_: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(feeds, "save", full)
        with pytest.raises(StorageError):
            started(path)
    mesh, damage = started(path, OLD)
    assert not damage
    assert set(all_rows(mesh.own.rows)) == CARRIED | LEFT


def test_of_a_damaged_feed_of_the_old_mesh_nothing_else_is_carried_either(path):
    asked(path, "UPDATE rows SET value = X'00' WHERE tab = 'sessions' AND key = X'33'")
    mesh, damage = started(path)
    assert damage.own is not None
    with closing(Database(path)) as database:
        while change := mesh.own.flush(9.0):
            database.run_now(feeds.save, [change], [])
    mesh, damage = started(path, boot=9)
    assert not damage
    assert set(all_rows(mesh.own.rows)) == CARRIED - {(SESSIONS, b"3")}


def test_a_home_that_carries_nothing_begins_anew(path):
    asked(path, "DELETE FROM rows")
    asked(path, "DELETE FROM feeds")
    with closing(Database(path)) as database:
        saved(database, US, LEFT)
    for _ in range(2):
        mesh, damage = started(path)
        assert not damage
        assert mesh.own.header is None
    assert asked(path, "SELECT * FROM rows") == []
