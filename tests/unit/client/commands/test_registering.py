"""Many registrations at once: as if one after another, and sooner."""

import threading

import pytest

from meshnode.client.commands.registering import AT_ONCE, register_all
from meshnode.client.targets.targets import Delivery
from meshnode.core.errors import RefusedError
from meshnode.core.sessions.registry import Specialist


class Mesh:
    """Registers; `gate` holds back until so many are at it."""

    def __init__(self, *, together: int = 1, refused: str = "") -> None:
        self.gate = threading.Barrier(together) if together > 1 else None
        self.refused = refused
        self.told = []

    def register(self, agent_id, specialization, attributes, delivery):
        if self.gate is not None and agent_id != "first":
            self.gate.wait(10)
        if agent_id == self.refused:
            raise RefusedError("no")
        self.told.append((agent_id, specialization, attributes))
        return {"agent_id": agent_id, "attributes": attributes}


def entries(*agents: str) -> list[Specialist]:
    return [Specialist(agent, "docs", {"n": str(n)}) for n, agent in enumerate(agents)]


def test_results_are_in_the_order_of_the_entries():
    agents = [f"a{number}" for number in range(50)]
    counts = []
    results = register_all(Mesh(), entries(*agents), Delivery(), counts.append)
    assert [one["agent_id"] for one in results] == agents
    assert max(counts) == 50


def test_several_are_under_way_at_a_time():
    mesh = Mesh(together=AT_ONCE)
    agents = ["first", *(f"a{number}" for number in range(AT_ONCE))]
    assert len(register_all(mesh, entries(*agents), Delivery())) == AT_ONCE + 1
    assert not mesh.gate.broken


def test_entries_of_one_place_keep_their_order():
    agents = ["first", *["same", "other"] * 20]
    mesh = Mesh()
    register_all(mesh, entries(*agents), Delivery())
    same = [int(attributes["n"]) for agent, _, attributes in mesh.told if agent == "same"]
    assert same == sorted(same)
    assert len(same) == 20


def test_what_is_wrong_with_the_first_is_said_at_once():
    mesh = Mesh(refused="a0")
    with pytest.raises(RefusedError):
        register_all(mesh, entries(*(f"a{number}" for number in range(50))), Delivery())
    assert mesh.told == []


def test_after_an_error_no_more_are_begun():
    mesh = Mesh(refused="a5")
    agents = [f"a{number}" for number in range(500)]
    with pytest.raises(RefusedError, match="no"):
        register_all(mesh, entries(*agents), Delivery())
    assert len(mesh.told) < 400, "those under way are finished, the rest is left"
