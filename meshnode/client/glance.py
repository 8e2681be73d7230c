"""What a status line asks of a node: a few sums, with little patience.

Invariant: a node that does not answer costs PATIENCE_S and little more, however much is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshnode.client import clock
from meshnode.client.commands.budgets import budgets
from meshnode.client.durations import rfc3339
from meshnode.client.targets.targets import Selection

if TYPE_CHECKING:
    from meshnode.client.connection.asking import Asking
    from meshnode.client.inside import Inside

    Plain = dict[str, Any]

PATIENCE_S = 1.0  # for all answers together
LEAST_S = 0.05  # for one of them, once the others have taken all of it
ALIVE_MAX = 100  # counted; of more it is said that there are more
_PRESSED = ("warned", "exceeded")


def of_mesh(mesh: Asking, since_s: float) -> Plain:
    """Return `mesh_today, budgets, alive_sessions, more_alive, coverage`; raises a MeshError."""
    until_s = clock.steady_s() + PATIENCE_S
    _hurry(mesh, until_s)
    answer = mesh.cost(since=rfc3339(since_s))
    _hurry(mesh, until_s)
    pressed = [_pressed(one) for one in budgets(mesh)["budgets"] if _is_pressed(one)]
    _hurry(mesh, until_s)
    alive = _alive(mesh)
    heard = {name: answer["coverage"][name] for name in ("nodes_heard", "nodes_known")}
    spent = {"cost_usd": answer["cost_usd"], "unpriced": bool(answer["unpriced"]), **heard}
    pressed.sort(key=lambda one: (not one["held"], one["state"] == "warned", -one["percent"]))
    return {"mesh_today": spent, "budgets": pressed, **alive, "coverage": answer["coverage"]}


def of_session(inside: Inside) -> tuple[Plain, Plain]:
    """Return what a ticket lets an agent know: its session, as `self` has it, and the rest.

    That is `alive_sessions, more_alive, coverage`. Raises a MeshError.
    """
    return inside.who(), _alive(inside)


def _hurry(mesh: Asking, until_s: float) -> None:
    mesh.patience_s = max(until_s - clock.steady_s(), LEAST_S)


def _alive(asked: Asking | Inside) -> Plain:
    listed = asked.list_sessions(Selection(filter="alive"), ALIVE_MAX + 1)
    count = len(listed["sessions"])
    return {
        "alive_sessions": min(count, ALIVE_MAX),
        "more_alive": count > ALIVE_MAX,
        "coverage": listed["coverage"],
    }


def _is_pressed(budget: Plain) -> bool:
    return budget["state"] in _PRESSED or bool(budget["held"])


def _pressed(budget: Plain) -> Plain:
    kept = {name: budget[name] for name in ("name", "state", "percent")}
    return kept | {"held": len(budget["held"]) + budget["held_more"]}
