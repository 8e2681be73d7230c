"""Removing a key: what the one that signs can promise to others."""

from pathlib import Path
from random import Random

import pytest

from meshnode.client.home import Home, make_private
from meshnode.client.keys import authorities
from meshnode.client.keys.keyfiles import write_secret
from meshnode.core.control.roles import NAME_CHARS_MAX
from meshnode.core.errors import ConflictError, NotFoundError, NotPermittedError, UsageError
from meshnode.core.keys import Key, key_id_of
from meshnode.v1 import authority_service_pb2 as pb

chance = Random(5).randbytes
SECRET = chance(32)
OWN, OTHER = Key(SECRET), Key.new(chance)


class Mesh:
    """Knows whom it is told of, and remembers what it was asked to keep."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.found = pb.ListAuthoritiesResponse()
        self.asked: list[object] = []
        self.node_authorities = self.node = type("Stub", (), dict.fromkeys(STUBS))

    def call(self, _: object, request: object) -> object:
        self.asked.append(request)
        return self.found


STUBS = ("ListAuthorities", "AddControl")


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    home = Home(tmp_path / "home")
    make_private(home.path)
    write_secret(home.operator_key, SECRET)
    return Mesh(home)


def plan_for(key: Key) -> authorities.Removal:
    row = {"key_id": key_id_of(key.public), "name": "anna", "role": "operator"}
    return authorities.Removal(key.public, row, (), ())


def test_a_key_that_removes_itself_spares_nobody_and_does_not_say_it_would(mesh):
    spared = {"public_key": OTHER.public.hex(), "key_id": key_id_of(OTHER.public)}
    with pytest.raises(ConflictError, match="spares nobody"):
        authorities.remove(mesh, plan_for(OWN), [spared], None)
    assert [type(one) for one in mesh.asked] == [pb.ListAuthoritiesRequest], "nothing was signed"


@pytest.mark.parametrize(
    ("key", "root", "itself"), [(OWN, None, True), (OTHER, None, False), (OWN, OTHER, False)]
)
def test_it_is_known_whose_own_key_would_go(mesh, key, root, itself):
    assert authorities.removes_itself(mesh, plan_for(key), root) is itself


ROOT, THIEF, ADMIN, CAROL, SPARE = (Key.new(chance) for _ in range(5))


def given(giver: Key, subject: Key, name: str, role: str = "operator", state: str = "active"):
    return pb.GivenRole(
        subject=subject.public, role=role, name=name, giver=giver.public, state=state
    )


def mesh_of(*roles: pb.GivenRole) -> pb.ListAuthoritiesResponse:
    made = [given(ROOT, THIEF, "thea", "admin"), given(ROOT, ADMIN, "ada", "admin")]
    return pb.ListAuthoritiesResponse(roots=[ROOT.public], roles=[*made, *roles])


RELABELLED = [  # by whom carol was made, and in which order the roles are listed
    [given(ADMIN, CAROL, "carol"), given(THIEF, CAROL, "zed"), given(THIEF, SPARE, "carol")],
    [given(THIEF, CAROL, "zed"), given(ADMIN, CAROL, "carol"), given(THIEF, SPARE, "carol")],
    [given(THIEF, SPARE, "carol"), given(THIEF, CAROL, "zed"), given(THIEF, CAROL, "carol")],
]


@pytest.mark.parametrize("roles", RELABELLED)
def test_a_thief_that_calls_its_own_key_like_somebody_is_not_kept_for_them(mesh, roles):
    mesh.found = mesh_of(*roles)
    plan = authorities.planned(mesh, "thea")
    assert {one["public_key"] for one in plan.given} == {CAROL.public.hex(), SPARE.public.hex()}
    with pytest.raises(ConflictError, match="fits 2 keys") as refused:
        authorities.chosen(plan.given, ["carol"])
    assert key_id_of(CAROL.public) in refused.value.hint
    (kept,) = authorities.chosen(plan.given, [key_id_of(CAROL.public)] * 2)
    assert kept["public_key"] == CAROL.public.hex()
    with pytest.raises(ConflictError):
        authorities.planned(mesh, "carol")


def test_two_of_one_name_are_not_both_kept_in_silence(mesh):
    mesh.found = mesh_of(given(THIEF, CAROL, "carol"), given(THIEF, OTHER, "carol"))
    with pytest.raises(ConflictError, match="fits 2 keys"):
        authorities.chosen(authorities.planned(mesh, "thea").given, ["carol"])


@pytest.mark.parametrize("called", [key_id_of(CAROL.public), CAROL.public.hex()])
def test_a_key_id_means_its_key_whatever_another_is_called(mesh, called):
    mesh.found = mesh_of(given(THIEF, SPARE, called), given(ADMIN, CAROL, "carol"))
    assert authorities.planned(mesh, called).subject == CAROL.public


def test_the_start_of_a_key_id_that_is_somebodys_name_means_nobody(mesh):
    start = key_id_of(CAROL.public)[:8]
    mesh.found = mesh_of(given(THIEF, SPARE, start), given(ADMIN, CAROL, "carol"))
    with pytest.raises(ConflictError):
        authorities.planned(mesh, start)
    with pytest.raises(NotFoundError):
        authorities.planned(mesh, "nobody")
    with pytest.raises(UsageError):
        authorities.chosen([], ["nobody"])


def test_somebody_is_shown_as_the_strongest_role_calls_them_and_nobody_as_the_root(mesh):
    roles = [
        given(THIEF, CAROL, "zed", "observer"),
        given(ADMIN, CAROL, "carol"),
        given(THIEF, ADMIN, "the root", "observer"),
        given(THIEF, SPARE, "a" * 4000),
    ]
    rows = {row["public_key"]: row for row in authorities.operators(mesh_of(*roles))}
    carol = rows[CAROL.public.hex()]
    assert (carol["name"], carol["other_names"]) == ("carol", ["zed"])
    assert carol["given_by_name"] == "ada"
    assert rows[ADMIN.public.hex()]["given_by_name"] == "the root"
    assert "carol (operator, " in authorities.called([carol])
    assert "also called zed" in authorities.called([carol])
    assert len(rows[SPARE.public.hex()]["name"]) == NAME_CHARS_MAX
    alone = authorities.operators(
        mesh_of(given(ROOT, OTHER, "the root", "admin"), given(OTHER, CAROL, "c"))
    )
    assert alone[-1]["given_by_name"] is None


def test_an_admin_is_taken_out_by_the_root_alone_and_nothing_is_signed_that_would_not_count(mesh):
    mesh.found = mesh_of(given(OWN, ADMIN, "ada", "observer"))
    plan = authorities.planned(mesh, "ada")
    with pytest.raises(NotPermittedError, match="only the root"):
        authorities.remove(mesh, plan, [], None)
    assert {type(one) for one in mesh.asked} == {pb.ListAuthoritiesRequest}


def test_who_was_revoked_in_vain_is_told_with_whose_word_it_was():
    found = mesh_of(given(ADMIN, CAROL, "carol", state="revoked"), given(ADMIN, SPARE, "s"))
    for subject in (THIEF, CAROL):
        found.revocations.add(what="key", name=subject.public, issuer=ADMIN.public)
    rows = authorities.operators(found)
    told = {row["name"]: row["revoked_in_vain_by"] for row in rows if row["revoked_in_vain_by"]}
    assert told == {"thea": [key_id_of(ADMIN.public)]}


def test_only_those_fall_with_a_key_whom_nobody_else_made_as_much(mesh):
    mesh.found = mesh_of(
        given(THIEF, CAROL, "carol"),
        given(ADMIN, CAROL, "carol"),
        given(THIEF, SPARE, "sam"),
        given(ADMIN, SPARE, "sam", "observer"),
        given(THIEF, OTHER, "olga"),
    )
    plan = authorities.planned(mesh, "thea")
    assert {one["name"] for one in plan.falls} == {"sam", "olga"}
    assert [one["name"] for one in authorities.chosen(plan.given, ["carol"])] == ["carol"]
