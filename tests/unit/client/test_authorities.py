"""Removing a key: what the one that signs can promise to others."""

from pathlib import Path
from random import Random

import pytest

from meshnode.client import authorities
from meshnode.client.home import Home, make_private
from meshnode.client.keyfiles import write_secret
from meshnode.core.errors import ConflictError
from meshnode.core.keys import Key, key_id_of
from meshnode.v1 import authority_service_pb2 as pb

chance = Random(5).randbytes
SECRET = chance(32)
OWN, OTHER = Key(SECRET), Key.new(chance)


class Mesh:
    """Knows nobody, and remembers what it was asked to keep."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.asked: list[object] = []
        self.node_authorities = self.node = type("Stub", (), dict.fromkeys(STUBS))

    def call(self, _: object, request: object) -> object:
        self.asked.append(request)
        return pb.ListAuthoritiesResponse()


STUBS = ("ListAuthorities", "AddControl")


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    home = Home(tmp_path / "home")
    make_private(home.path)
    write_secret(home.operator_key, SECRET)
    return Mesh(home)


def plan_for(key: Key) -> authorities.Removal:
    row = {"key_id": key_id_of(key.public), "name": "anna"}
    return authorities.Removal(key.public, row, ())


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
