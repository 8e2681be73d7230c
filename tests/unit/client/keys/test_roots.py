"""Exchanging the root while others speak: what is said in the end is what counts."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from meshnode.app.membership.authorities import Authorities
from meshnode.client.home import Home, make_private
from meshnode.client.keys import authorities, roots
from meshnode.client.keys.rootfile import Sealed, read_root
from meshnode.core.control.control import ControlSet
from meshnode.core.control.entries import Body, Revoke, is_of, role_entry, sign_entry
from meshnode.core.control.roles import Role
from meshnode.core.control.succession import Admits, RootKeys
from meshnode.core.errors import ConflictError, NoAnswerError, UnreachableError
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key, key_id_of
from meshnode.core.membership.certificates import issue_admitter
from meshnode.core.membership.genesis import Genesis
from meshnode.rpc.authorities import AuthorityServicer
from meshnode.v1 import authority_service_pb2 as pb
from meshnode.v1 import local_service_pb2 as local_pb
from meshnode.wire.signed import signed_from_wire

NOW_S = 1_790_000_000
WORDS = "correct horse battery"
chance = Random(21).randbytes
OLD, NEW, THIEF, ADA, CAROL, DORA, BERTA = (Key.new(chance) for _ in range(7))
GENESIS = Genesis((OLD.public,), 1, "test", bytes(16))


class Mesh:
    """A node's control set, asked as the command line asks.

    `meanwhile` is done once, by somebody else, before the first entry of a kind that is added.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self.chance = chance
        self.control = ControlSet(GENESIS)
        self.meanwhile: dict[type, Callable[[], object]] = {}
        self.full = False  # the disk: an exchange is taken, and not called done
        self.silent = False  # from the first entry on, which may have come or not
        self.asked_in_vain = 0
        stubs = dict.fromkeys(("ListAuthorities", "AddControl"))
        self.node_authorities = self.node = type("Stub", (), stubs)

    def now(self) -> float:
        return float(NOW_S)

    def call(self, _: object, request: object) -> pb.ListAuthoritiesResponse | None:
        is_entry = isinstance(request, local_pb.AddControlRequest)
        if self.silent and (is_entry or self.asked_in_vain):
            self.asked_in_vain += 1
            raise NoAnswerError("nothing came")
        if is_entry:
            entry = signed_from_wire(request.entry)
            for kind in [kind for kind in self.meanwhile if is_of(entry, kind)]:
                self.meanwhile.pop(kind)()
            self.control.add(entry, NOW_S)
            if self.full and is_of(entry, RootKeys):
                raise UnreachableError("other nodes have it")
            return None
        known = AuthorityServicer(Authorities(self.control))
        return asyncio.run(known.ListAuthorities(request, None))

    def says(self, issuer: Key, body: Body) -> None:
        entry = sign_entry(issuer, GENESIS.mesh_id, body, chance, issued_s=NOW_S)
        assert self.control.add(entry, NOW_S)

    def gives(self, issuer: Key, subject: Key, role: str, name: str = "") -> None:
        value = Role(subject.public, role, name, issuer.public, NOW_S, None)
        assert self.control.add(role_entry(issuer, GENESIS.mesh_id, value, chance), NOW_S)

    def promotes(self, root: Key, node: Key) -> None:
        der = issue_admitter(root, GENESIS.mesh_id, node_id_of(node.public), NOW_S, chance)
        self.says(root, Admits(node.public, der))

    def exchanges(self, root: Key, version: int, *keys: Key) -> None:
        self.says(root, RootKeys(version, tuple(key.public for key in keys)))

    @property
    def present(self) -> tuple[bytes, ...]:
        return self.control.succession.present

    def roles(self, *keys: Key) -> list[str]:
        return [self.control.role_of(key.public) for key in keys]


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    home = Home(tmp_path / "home")
    make_private(home.path)
    home.genesis.write_bytes(GENESIS.to_bytes())
    mesh = Mesh(home)
    mesh.gives(OLD, ADA, "admin", "ada")
    mesh.gives(OLD, CAROL, "operator", "carol")
    mesh.promotes(OLD, BERTA)
    return mesh


@pytest.fixture
def rotated(mesh: Mesh) -> Mesh:
    mesh.exchanges(OLD, 2, OLD, NEW)
    return mesh


def plan_of(mesh: Mesh) -> roots.Retirement:
    return roots.retirement(mesh, key_id_of(OLD.public), NEW)


def test_what_the_root_that_goes_has_revoked_while_a_person_was_asked_stays_revoked(rotated):
    plan = plan_of(rotated)
    rotated.says(OLD, Revoke("key", CAROL.public))
    rotated.meanwhile[Role] = lambda: rotated.says(OLD, Revoke("node", BERTA.public))
    roots.retire(rotated, plan, NEW, ())
    assert rotated.present == (NEW.public,)
    assert rotated.roles(ADA, CAROL, OLD) == ["admin", "", ""]
    assert rotated.control.revocations.has_node(BERTA.public, admits=True)


def exchange(mesh: Mesh) -> None:
    mesh.exchanges(OLD, 3, OLD, NEW, THIEF)


def new_role(mesh: Mesh) -> None:
    mesh.gives(OLD, THIEF, "operator", "mallory")


def higher_role(mesh: Mesh) -> None:
    mesh.gives(OLD, CAROL, "admin", "carol")


def new_admitter(mesh: Mesh) -> None:
    mesh.promotes(OLD, THIEF)


@pytest.mark.parametrize("speak", [exchange, new_role, higher_role, new_admitter])
def test_nothing_is_signed_where_the_root_that_goes_has_given_more_meanwhile(
    rotated: Mesh, speak: Callable[[Mesh], None]
):
    plan = plan_of(rotated)
    speak(rotated)
    before = rotated.control.entries()
    with pytest.raises(ConflictError, match=r"meanwhile|while you were asked"):
        roots.retire(rotated, plan, NEW, ())
    assert rotated.control.entries() == before
    assert OLD.public in rotated.present


def test_a_root_is_not_called_retired_that_exchanges_last(rotated):
    plan = plan_of(rotated)
    rotated.meanwhile[RootKeys] = lambda: exchange(rotated)
    with pytest.raises(ConflictError, match="meanwhile"):
        roots.retire(rotated, plan, NEW, ())
    assert set(rotated.present) == {OLD.public, NEW.public, THIEF.public}


def test_the_new_root_gives_the_role_that_the_old_one_gave_and_no_more(rotated):
    """Else who takes back what an admin has added would take back nothing."""
    rotated.gives(OLD, DORA, "observer", "dora")
    rotated.gives(ADA, DORA, "operator", "dorothea")
    plan = plan_of(rotated)
    assert {row["name"]: row["role"] for row in plan.given}["dorothea"] == "observer"
    roots.retire(rotated, plan, NEW, ())
    assert rotated.roles(DORA) == ["operator"]
    assert [one.name for one in rotated.control.roles.of(DORA.public)][-1] == "dora"
    rotated.says(NEW, Revoke("key", ADA.public))
    assert rotated.roles(ADA, DORA) == ["", "observer"]


def test_whom_a_dropped_admin_made_falls_with_it_and_who_has_as_much_by_others_does_not(rotated):
    rotated.gives(NEW, CAROL, "operator", "carol")
    rotated.gives(ADA, DORA, "operator", "dora")
    plan = plan_of(rotated)
    dropped = authorities.chosen(plan.given, ["ada", "carol"])
    assert {row["name"] for row in roots.falling(plan, dropped)} == {"ada", "dora"}
    value = roots.retire(rotated, plan, NEW, dropped)
    assert set(value["falls"]) == {key_id_of(key.public) for key in (ADA, DORA)}
    assert rotated.roles(ADA, CAROL, DORA) == ["", "operator", ""]


def test_whom_the_old_root_spared_when_it_removed_an_admin_stays(rotated):
    rotated.gives(ADA, DORA, "operator", "dora")
    rotated.says(OLD, Revoke("key", ADA.public, (DORA.public,)))
    assert rotated.roles(ADA, DORA) == ["", "operator"]
    roots.retire(rotated, plan_of(rotated), NEW, ())
    assert rotated.roles(ADA, CAROL, DORA) == ["", "operator", "operator"]


def test_a_new_root_that_does_not_count_is_not_called_made(mesh, tmp_path):
    mesh.meanwhile[RootKeys] = lambda: mesh.exchanges(OLD, 2, OLD, THIEF)
    with pytest.raises(ConflictError, match="meanwhile"):
        roots.rotate(mesh, OLD, Sealed(tmp_path / "new.pem", WORDS))
    assert mesh.present == (OLD.public, THIEF.public)
    assert not (tmp_path / "new.pem").exists(), "of a root that never was"


def test_a_new_root_stands_beside_one_that_came_while_its_file_was_written(mesh, tmp_path):
    def chance_after_an_exchange(size: int) -> bytes:
        mesh.chance = chance
        mesh.exchanges(OLD, 2, OLD, NEW)
        return chance(size)

    mesh.chance = chance_after_an_exchange
    made = roots.rotate(mesh, OLD, Sealed(tmp_path / "new.pem", WORDS))
    assert made["version"] == 3
    assert made["roots"] == list(map(key_id_of, mesh.present))
    assert mesh.present[:2] == (OLD.public, NEW.public)
    assert {one.root for one in authorities.known(mesh).admitters} == {OLD.public, mesh.present[2]}


def test_the_only_file_of_a_root_that_the_mesh_has_taken_is_kept_whatever_failed(mesh, tmp_path):
    mesh.full = True
    with pytest.raises(UnreachableError) as failed:
        roots.rotate(mesh, OLD, Sealed(tmp_path / "new.pem", WORDS))
    assert failed.value.message.startswith(
        f"other nodes have it; {tmp_path / 'new.pem'} holds root"
    )
    assert failed.value.message.endswith("keep it")
    assert read_root(tmp_path / "new.pem", lambda _: WORDS).public == mesh.present[1]


def test_the_file_of_a_root_that_the_mesh_may_have_taken_is_kept(mesh, tmp_path):
    mesh.silent = True
    with pytest.raises(NoAnswerError) as failed:
        roots.rotate(mesh, OLD, Sealed(tmp_path / "new.pem", WORDS))
    assert "may count or not: session-mesh root list" in failed.value.message
    assert mesh.asked_in_vain > 1, "it was asked whether it is one"
    assert read_root(tmp_path / "new.pem", lambda _: WORDS).public not in mesh.present
