"""Revoking a node: what is said when it has no effect."""

from pathlib import Path
from random import Random

import pytest

from meshnode.client.home import Home, make_private
from meshnode.client.keys import revoking
from meshnode.client.keys.keyfiles import write_secret
from meshnode.core.errors import NotPermittedError
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key, key_id_of
from meshnode.core.membership.genesis import Genesis
from meshnode.v1 import authority_service_pb2 as pb

chance = Random(9).randbytes
SECRET = chance(32)
ROOT, RETIRED, BERTA = (Key.new(chance) for _ in range(3))
GENESIS = Genesis((RETIRED.public,), 1, "test", bytes(16))


class Mesh:
    """Takes what it is told; whether berta is out by that is a given."""

    def __init__(self, home: Home, state: str) -> None:
        self.home = home
        self.chance = chance
        self.state = state
        self.told: list[object] = []
        stubs = dict.fromkeys(("ListAuthorities", "AddControl"))
        self.node_authorities = self.node = type("Stub", (), stubs)

    def now(self) -> float:
        return 1_790_000_000.0

    def call(self, _: object, request: object) -> pb.ListAuthoritiesResponse:
        if not isinstance(request, pb.ListAuthoritiesRequest):
            self.told.append(request)
        return pb.ListAuthoritiesResponse(roots=[ROOT.public], removed_roots=[RETIRED.public])

    def nodes(self) -> dict[str, list[dict[str, str]]]:
        return {"nodes": [{"node_id": node_id_of(BERTA.public), "state": self.state}]}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    make_private(home.path)
    write_secret(home.operator_key, SECRET)
    home.genesis.write_bytes(GENESIS.to_bytes())
    return home


def plan() -> revoking.Revocation:
    node = {"node_id": node_id_of(BERTA.public), "name": "berta", "state": "alive"}
    return revoking.Revocation(node, False, False, (), ())


def test_a_root_that_was_retired_signs_nothing(home):
    mesh = Mesh(home, "revoked")
    with pytest.raises(NotPermittedError, match="was retired"):
        revoking.carry_out(mesh, plan(), RETIRED)
    assert mesh.told == []
    assert revoking.carry_out(mesh, plan(), ROOT)["by"] == key_id_of(ROOT.public)


@pytest.mark.parametrize("root", [None, ROOT])
def test_it_is_not_called_done_while_the_node_is_a_member(home, root):
    with pytest.raises(NotPermittedError, match="berta is not out") as refused:
        revoking.carry_out(Mesh(home, "alive"), plan(), root)
    assert "--root FILE" in refused.value.hint
