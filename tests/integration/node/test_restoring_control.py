"""The control set comes back from the disk, but for what has expired or is of another mesh."""

from random import Random

import pytest

from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.core.control.control import NoAuthorityError
from meshnode.core.control.entries import (
    Body,
    Revoke,
    StandingKill,
    entry_id_of,
    role_entry,
    sign_entry,
)
from meshnode.core.control.roles import Role
from meshnode.core.control.settings import Budget, Terms
from meshnode.core.control.succession import RootKeys
from meshnode.core.effects import Send
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.membership.genesis import Genesis
from meshnode.node.homes.restoring import restore
from meshnode.store import feeds
from meshnode.store.database import Database

chance = Random(75).randbytes
ROOT, OPERATOR, NODE = (Key.new(chance) for _ in range(3))
GENESIS = Genesis((ROOT.public,), 1, "test", bytes(16))
NOW_S = 1_790_000_000


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


ADMIN, STRANGER = Key.new(chance), Key.new(chance)
ADMINS = role_entry(
    ROOT, GENESIS.mesh_id, Role(ADMIN.public, "admin", "", ROOT.public, NOW_S, None), chance
)
THROUGH_ADMIN = role_entry(
    ADMIN, GENESIS.mesh_id, Role(OPERATOR.public, "operator", "", ADMIN.public, NOW_S, None), chance
)


def by(issuer: Key, body: Body) -> Signed:
    return sign_entry(issuer, GENESIS.mesh_id, body, chance, issued_s=NOW_S)


HANGING = [
    by(OPERATOR, Budget("team", Terms(1, "tokens", "day", "suspend", 80))),
    by(ADMIN, Revoke("node", STRANGER.public)),
    THROUGH_ADMIN,
]


@pytest.mark.parametrize(
    "from_a_peer", [False, True], ids=["it began with it", "a peer returns it"]
)
def test_what_hangs_on_an_entry_that_was_damaged_counts_once_that_is_here(
    database: Database, from_a_peer
):
    database.run_now(feeds.save, [], [ADMINS, *HANGING])
    damage = "UPDATE control SET payload = x'00' WHERE id = ?"
    database.run_now(lambda connection: connection.execute(damage, (entry_id_of(ADMINS),)))
    mesh, dropped = restored(database, NOW_S + 30)
    assert (mesh.control.entries(), dropped) == ([], [])
    mesh.start(0.0)
    peer = node_id_of(STRANGER.public)
    mesh.linked(peer, 0.0, dialled=True)
    effects = mesh.received(peer, ADMINS, 1.0) if from_a_peer else mesh.add_control(ADMINS, 1.0)
    assert set(mesh.control.entries()) == {ADMINS, *HANGING}
    assert list(mesh.control.held(Budget)) == [entry_id_of(HANGING[0])]
    assert mesh.revoked.has(node_id_of(STRANGER.public))
    told = [one.message for one in effects if isinstance(one, Send) and one.peer == peer]
    assert set(HANGING) <= set(told), "others may have lost them too"


def test_what_waits_is_looked_at_again_only_by_who_may_say_what(database: Database):
    """It costs a look at each; one that comes by another way waits no more."""
    database.run_now(feeds.save, [], [order(60), order(90), THROUGH_ADMIN])
    mesh, _ = restored(database, NOW_S)
    with pytest.raises(NoAuthorityError):
        mesh.control.add(order(70), NOW_S)
    assert mesh.control.add(ADMINS, NOW_S)
    assert len(mesh.control.entries()) == 4
    assert len(mesh.control.take_returned()) == 3
    assert mesh.control.add(by(ROOT, RootKeys(2, (ROOT.public, STRANGER.public))), NOW_S)
    assert mesh.control.take_returned() == []
