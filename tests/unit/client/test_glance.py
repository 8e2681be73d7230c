"""What a status line asks of a node: sums and counts, the budget that presses most first."""

import pytest

from meshnode.client import glance
from meshnode.client.errors import UnreachableError

COVERAGE = {"nodes_known": 3, "nodes_heard": 2, "oldest_s": 4.0, "missing": [], "missing_more": 0}
SINCE_S = 1_795_132_800.0  # 2026-11-20T00:00Z


class Mesh:
    """A mesh of so many sessions; each answer takes a while, and notes how long it might."""

    def __init__(self, alive: int = 2, took_s: float = 0.0) -> None:
        self.alive, self.took_s = alive, took_s
        self.patience_s = 30.0
        self.now_s = 0.0
        self.patiences: list[float] = []

    def answered(self) -> None:
        self.patiences.append(round(self.patience_s, 3))
        self.now_s += self.took_s

    def cost(self, since):
        self.answered()
        assert since == "2026-11-20T00:00:00.000Z"
        return {"cost_usd": "1.5", "unpriced": [{"model": "m"}], "coverage": COVERAGE}

    def list_sessions(self, selection, limit):
        self.answered()
        assert selection.filter == "alive"
        return {"sessions": [{}] * min(self.alive, limit), "coverage": COVERAGE}

    def who(self):
        return {"session_id": "s"}


@pytest.fixture
def asked(monkeypatch):
    """Ask a mesh that has these budgets."""

    def ask(mesh, *budgets):
        def listed(_):
            mesh.answered()
            return {"budgets": list(budgets)}

        monkeypatch.setattr(glance, "budgets", listed)
        monkeypatch.setattr(glance.clock, "steady_s", lambda: mesh.now_s)
        return glance.of_mesh(mesh, SINCE_S)

    return ask


def budget(name, state, percent, held=0, held_more=0):
    told = {"name": name, "state": state, "percent": percent, "held": [{}] * held}
    return told | {"held_more": held_more, "limit": "1usd", "reason": "because"}


def test_what_the_mesh_has_spent_says_for_how_many_nodes_it_speaks(asked):
    spent = {"cost_usd": "1.5", "unpriced": True, "nodes_heard": 2, "nodes_known": 3}
    told = asked(Mesh())
    assert (told["mesh_today"], told["coverage"]) == (spent, COVERAGE)
    assert (told["alive_sessions"], told["more_alive"], told["budgets"]) == (2, False, [])


@pytest.mark.parametrize(("alive", "more"), [(99, False), (100, False), (101, True), (5000, True)])
def test_sessions_are_counted_up_to_a_bound(asked, alive, more):
    told = asked(Mesh(alive))
    assert (told["alive_sessions"], told["more_alive"]) == (min(alive, 100), more)


def test_budgets_are_told_that_press_who_holds_somebody_first(asked):
    told = asked(
        Mesh(),
        budget("fine", "ok", 10),
        budget("far", "ignored", 0),
        budget("near", "warned", 95),
        budget("over", "exceeded", 101),
        budget("well over", "exceeded", 120),
        budget("holds", "ok", 1, held=2),
    )
    names = [one["name"] for one in told["budgets"]]
    assert names == ["holds", "well over", "over", "near"]
    assert told["budgets"][0] == {"name": "holds", "state": "ok", "percent": 1, "held": 2}


def test_sessions_are_counted_that_a_budget_holds_beside_those_it_names(asked):
    told = asked(Mesh(), budget("holds", "exceeded", 120, held=50, held_more=150))
    assert told["budgets"][0]["held"] == 200


def test_all_answers_together_may_take_a_second(asked):
    mesh = Mesh(took_s=0.4)
    asked(mesh)
    assert mesh.patiences == [1.0, 0.6, 0.2]
    late = Mesh(took_s=0.7)
    asked(late)
    assert late.patiences == [1.0, 0.3, glance.LEAST_S]


def test_a_node_that_does_not_answer_is_asked_nothing_more(asked, monkeypatch):
    mesh = Mesh()

    def silent(**_):
        mesh.answered()
        raise UnreachableError("the node did not answer in time")

    monkeypatch.setattr(mesh, "cost", silent)
    with pytest.raises(UnreachableError):
        asked(mesh)
    assert len(mesh.patiences) == 1


def test_a_ticket_tells_of_its_session_and_of_who_is_alive():
    own, rest = glance.of_session(Mesh(3))
    assert own == {"session_id": "s"}
    assert rest == {"alive_sessions": 3, "more_alive": False, "coverage": COVERAGE}
