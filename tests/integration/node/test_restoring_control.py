"""The control set comes back from the disk, but for what has expired or is of another mesh."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from meshnode.app.mesh import Mesh, Self
from meshnode.core.entries import StandingKill, entry_id_of, role_entry, sign_entry
from meshnode.core.genesis import Genesis
from meshnode.core.keys import Key, Signed
from meshnode.core.roles import Role
from meshnode.node.restoring import restore
from meshnode.store import feeds
from meshnode.store.database import Database

chance = Random(75).randbytes
ROOT, OPERATOR, NODE = (Key.new(chance) for _ in range(3))
GENESIS = Genesis((ROOT.public,), 1, "test", bytes(16))
NOW_S = 1_790_000_000


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "state.db")
    yield opened
    opened.close()


def order(life_s: int, mesh_id: str = GENESIS.mesh_id) -> Signed:
    body = StandingKill(agent="a")
    return sign_entry(OPERATOR, mesh_id, body, chance, issued_s=NOW_S, expires_s=NOW_S + life_s)


ROLE = role_entry(
    ROOT,
    GENESIS.mesh_id,
    Role(OPERATOR.public, "operator", "", ROOT.public, NOW_S, None),
    chance,
)


def restored(database: Database, now_s: float) -> tuple[Mesh, list[bytes]]:
    mesh = Mesh(GENESIS, Self(NODE, 1, Random(1)))
    return mesh, list(restore(mesh, database, now_s).unwanted)


def test_what_stands_comes_back_and_what_does_not_is_named(database: Database):
    standing, expired, strange = order(60), order(30), order(60, "m" * 52)
    database.run_now(feeds.save, [], [standing, expired, strange, ROLE])
    mesh, dropped = restored(database, NOW_S + 30)
    assert mesh.control.entries() == [ROLE, standing]
    assert set(dropped) == {entry_id_of(expired), entry_id_of(strange)}
    database.run_now(feeds.save, [], [], dropped)
    assert len(database.run_now(feeds.load).control) == 2
    assert restored(database, NOW_S + 30)[1] == []


def test_what_waits_for_another_entry_stays_on_the_disk(database: Database):
    """Its signer's role was damaged there, say: peers return that, and perhaps this no more."""
    standing, expired = order(60), order(30)
    database.run_now(feeds.save, [], [standing, expired])
    mesh, dropped = restored(database, NOW_S + 30)
    assert mesh.control.entries() == []
    assert dropped == [entry_id_of(expired)]
