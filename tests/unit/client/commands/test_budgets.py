"""Setting a budget: what is asked of the node first, and what would not count."""

from pathlib import Path
from random import Random

import pytest

from meshnode.client.commands import budgets
from meshnode.client.home import Home, make_private
from meshnode.client.keys.authority import operator_id
from meshnode.client.keys.keyfiles import write_secret
from meshnode.core.control.entries import entry_id_of
from meshnode.core.errors import ConflictError
from meshnode.core.ids import b32
from meshnode.core.keys import Key
from meshnode.core.ledger.budgets import OF_ONE_MAX
from meshnode.core.membership.genesis import Genesis
from meshnode.v1 import budget_pb2
from meshnode.v1 import budget_service_pb2 as pb
from meshnode.v1 import local_service_pb2 as local_pb
from meshnode.wire.signed import signed_from_wire

chance = Random(6).randbytes
GENESIS = Genesis((Key.new(chance).public,), 1, "test", bytes(16))
SAID = {"name": "team", "limit": "1usd", "per": "day"}


class Mesh:
    """Takes each entry, and lists it; `set_by` is how many others each key has set."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.chance = chance
        self.environment: dict[str, str] = {}
        self.listed = pb.ListBudgetsResponse()
        self.asked: list[object] = []
        stubs = dict.fromkeys(("ListBudgets", "AddControl", "GetStatus"))
        self.node_budgets = self.node = type("Stub", (), stubs)

    def now(self) -> float:
        return 1_790_000_000.0

    def call(self, _: object, request: object) -> object:
        self.asked.append(request)
        if isinstance(request, local_pb.GetStatusRequest):
            return local_pb.GetStatusResponse(role="operator")
        if isinstance(request, local_pb.AddControlRequest):
            budget_id = b32(entry_id_of(signed_from_wire(request.entry)))
            self.listed.budgets.append(budget_pb2.Budget(budget_id=budget_id, name="team"))
        return self.listed


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    home = Home(tmp_path / "home")
    make_private(home.path)
    write_secret(home.operator_key, chance(32))
    home.genesis.write_bytes(GENESIS.to_bytes())
    return Mesh(home)


def test_who_sets_a_budget_asks_for_no_other(mesh):
    assert budgets.set_budget(mesh, SAID)["name"] == "team"
    questions = [one for one in mesh.asked if isinstance(one, pb.ListBudgetsRequest)]
    assert [one.name for one in questions] == ["team", "team"]
    mesh.asked.clear()
    assert "set_by" not in budgets.budgets(mesh)
    assert mesh.asked == [pb.ListBudgetsRequest()]


def test_a_budget_that_would_not_count_is_not_set_and_one_less_may_be(mesh):
    mesh.listed.set_by[operator_id(mesh.home)] = OF_ONE_MAX
    with pytest.raises(ConflictError, match="team would be ignored") as refused:
        budgets.set_budget(mesh, SAID)
    assert "budget remove" in refused.value.hint
    assert not any(isinstance(one, local_pb.AddControlRequest) for one in mesh.asked)
    mesh.listed.set_by[operator_id(mesh.home)] = OF_ONE_MAX - 1
    assert budgets.set_budget(mesh, SAID)["name"] == "team"
