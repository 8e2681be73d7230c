"""Who may what is in a file beside the database, and what it says is verified like any entry."""

from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest

from meshnode.app.membership.admission import packed_signed
from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.client.home import Home
from meshnode.core.control.entries import Body, Revoke, StandingKill, role_entry, sign_entry
from meshnode.core.control.roles import Role
from meshnode.core.control.succession import RootKeys
from meshnode.core.keys import Key, Signed
from meshnode.core.membership.genesis import Genesis
from meshnode.core.packing import PACKED_BYTES_MAX, pack
from meshnode.node.homes import authority
from meshnode.node.homes.authority import AuthorityFile
from meshnode.node.homes.founding import entries_in

chance = Random(76).randbytes
ROOT, NEW, ADMIN, OPERATOR, NODE, THIEF = (Key.new(chance) for _ in range(6))
GENESIS = Genesis((ROOT.public,), 1, "test", bytes(16))
OTHER = Genesis((ROOT.public,), 1, "other", bytes(16))
NOW_S = 1_790_000_000


def by(issuer: Key, body: Body, life_s: int | None = None, of: Genesis = GENESIS) -> Signed:
    until_s = None if life_s is None else NOW_S + life_s
    return sign_entry(issuer, of.mesh_id, body, chance, issued_s=NOW_S, expires_s=until_s)


def role(issuer: Key, subject: Key, name: str) -> Signed:
    value = Role(subject.public, name, "", issuer.public, NOW_S, None)
    return role_entry(issuer, GENESIS.mesh_id, value, chance)


BEGUN = [role(ROOT, ADMIN, "admin"), role(ADMIN, OPERATOR, "operator")]
SAID = [
    by(ROOT, RootKeys(2, (ROOT.public, NEW.public))),
    by(NEW, Revoke("node", NODE.public)),
    by(ADMIN, Revoke("key", OPERATOR.public)),
    by(OPERATOR, Revoke("grant", bytes(16)), 999),
]


class World:
    """A node's control set, and what is on its way to the disk."""

    def __init__(self, *entries: Signed, genesis: Genesis = GENESIS) -> None:
        self.mesh = Mesh(genesis, Self(NODE, 1, Random(1)))
        assert self.mesh.control.add_all(entries, NOW_S) == []
        self.on_entry: list = []
        self.persisted: list[Signed] = []

    def persist_control(self, entry: Signed) -> None:
        self.persisted.append(entry)
        for told in self.on_entry:
            told(entry)

    def hear(self, entry: Signed) -> None:
        assert self.mesh.control.add(entry, NOW_S)
        self.persist_control(entry)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def begun(home: Home, world: World, now_s: float = NOW_S) -> AuthorityFile:
    file = AuthorityFile(SimpleNamespace(home=home, world=world))
    file.take_up(now_s)
    return file


async def test_a_database_that_was_lost_gets_back_who_may_what_and_no_more(home):
    world = World(*BEGUN)
    file = begun(home, world)
    order = by(ADMIN, StandingKill(agent="a"), 60)
    for entry in (*SAID, order):
        world.hear(entry)
    assert await file.write()
    anew = World()
    begun(home, anew)
    assert set(anew.persisted) == {*BEGUN, *SAID}, "on its way to the new disk"
    control = anew.mesh.control
    assert control.succession.present == (ROOT.public, NEW.public)
    assert [control.role_of(key.public) for key in (ADMIN, OPERATOR)] == ["admin", ""]
    assert control.revocations.has_node(NODE.public, admits=True)
    later = World()
    begun(home, later, NOW_S + 1000)
    assert SAID[3] not in later.persisted, "a key's grant has expired"


async def test_a_database_that_is_whole_is_given_nothing(home):
    assert await begun(home, World(*BEGUN, *SAID)).write()
    again = World(*BEGUN, *SAID)
    begun(home, again)
    assert again.persisted == []


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff" * 99,
        pack({"control": [1]}),
        pack({"control": [[b"x", b"y"]]}),
        pack({"other": []}),
    ],
)
async def test_a_file_that_is_damaged_says_nothing_and_is_written_anew(home, raw):
    home.authority.write_bytes(raw)
    world = World(*BEGUN)
    assert await begun(home, world).write()
    assert (world.persisted, set(entries_in(home.authority))) == ([], set(BEGUN))


async def test_what_is_forged_or_of_another_mesh_is_not_taken_up(home):
    forged = by(THIEF, RootKeys(2, (THIEF.public,)))
    signed = by(ROOT, RootKeys(2, (THIEF.public,)))
    broken = Signed(signed.type, signed.payload, bytes(64))
    strange = by(ROOT, Revoke("key", ADMIN.public), of=OTHER)
    kept = list(map(packed_signed, (forged, broken, strange)))
    home.authority.write_bytes(pack({"control": kept}))
    assert len(entries_in(home.authority)) == len(kept), "they are read"
    world = World(*BEGUN)
    assert await begun(home, world).write()
    assert world.persisted == []
    assert world.mesh.control.succession.present == (ROOT.public,)
    assert world.mesh.control.role_of(ADMIN.public) == "admin"
    assert set(entries_in(home.authority)) == set(BEGUN)


async def test_roles_that_admins_gave_are_left_out_first_where_there_is_no_room(home, monkeypatch):
    monkeypatch.setattr(authority, "PACKED_BYTES_MAX", 4096)
    world = World(BEGUN[0])
    file = begun(home, world)
    for _ in range(20):
        world.hear(role(ADMIN, Key.new(chance), "operator"))
    for entry in (BEGUN[1], *SAID):
        world.hear(entry)
    assert await file.write()
    kept = entries_in(home.authority)
    assert {BEGUN[0], *SAID} <= set(kept)
    assert len(SAID) + 1 < len(kept) < 20
    full = by(ADMIN, Revoke("node", THIEF.public, tuple(chance(32) for _ in range(96))))
    last = by(ROOT, Revoke("key", ADMIN.public))
    for entry in (full, last):
        world.hear(entry)
    assert await file.write()
    assert {BEGUN[0], last} <= set(entries_in(home.authority)), "no admin keeps out a root's word"
    assert home.authority.stat().st_size <= 4096 < PACKED_BYTES_MAX


async def test_a_disk_that_takes_nothing_is_tried_again(home, caplog):
    absent = Home(home.path / "absent")
    file = begun(absent, World(*BEGUN))
    assert [await file.write() for _ in range(3)] == [False] * 3
    assert caplog.text.count("is not complete") == 1, "told once"
    absent.path.mkdir()
    assert await file.write()
    assert set(entries_in(absent.authority)) == set(BEGUN)
