"""Budgets from this user's side: setting one, removing it, and how they stand.

Invariant: what is set is signed by the operator identity of this home, never by a session key, and
it is later than what it takes the place of, whatever the clocks say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshnode.client.commands.standing import check_signs
from meshnode.client.messages import to_plain, to_wire
from meshnode.core.errors import ConflictError, NotFoundError, NotPermittedError
from meshnode.v1 import budget_service_pb2 as budget_pb
from meshnode.v1 import local_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshnode.client.connection.connection import Connection
    from meshnode.core.control.settings import Budget

    Plain = dict[str, Any]

_NOBODY: Plain = {"held": [], "held_more": 0}


def budgets(mesh: Connection) -> Plain:
    """List the budgets that count, by name: `budgets` and `coverage`.

    `ahead` are those that do not count yet, because a clock that was ahead has dated them.
    """
    listed = _listed(mesh)
    del listed["issued"], listed["set_by"]
    return listed


def set_budget(mesh: Connection, said: Mapping[str, str]) -> Plain:
    """Set a budget for the whole mesh, or set it anew; returns it as it stands now.

    It is said with `name, limit, per` and, if need be, `then, warn, owner, agent_id, spec,
    project`. `left_held` and `left_held_more` are those whom the one before has suspended, and
    whom nobody has resumed. Raises UsageError, NotPermittedError where an admin has set it,
    ConflictError if it did not come to count.
    """
    from meshnode.core.ledger.budgets import budget_of  # noqa: PLC0415 - a list needs no cryptography

    budget = budget_of(said)
    budget_id, listed = _say(mesh, budget)
    before = next((one for one in listed["budgets"] if one["name"] == budget.name), _NOBODY)
    left = {f"left_{name}": before[name] for name in _NOBODY}
    return _named(_listed(mesh, budget.name), budget.name, budget_id) | left


def remove_budget(mesh: Connection, name: str) -> Plain:
    """Take a budget back; returns it as it was. Raises NotFoundError, NotPermittedError."""
    from meshnode.core.control.settings import Budget  # noqa: PLC0415 - as above

    listed = _listed(mesh, name)
    _check_ahead(mesh, listed, name)
    before = _named(listed, name)
    if before["issuer"] is None:
        raise ConflictError(
            f"budget {name[:60]} is in the configuration of this node",
            "take it out of the file, and start the node again",
        )
    _say(mesh, Budget(name, None))
    return before


def _say(mesh: Connection, budget: Budget) -> tuple[str, Plain]:
    """Set or remove a budget; return its id, and what was listed of its name before."""
    from meshnode.client.keys.authority import sign_body  # noqa: PLC0415 - as above
    from meshnode.core.control.entries import entry_id_of  # noqa: PLC0415 - as above
    from meshnode.core.ids import b32  # noqa: PLC0415 - as above

    check_signs(mesh)
    listed = _listed(mesh, budget.name)
    _check_ahead(mesh, listed, budget.name)
    role = to_plain(mesh.call(mesh.node.GetStatus, pb.GetStatusRequest()))["role"]
    if role != "admin" and any(
        one["name"] == budget.name and one["by_admin"] for one in listed["budgets"]
    ):
        raise NotPermittedError(
            f"an admin has set budget {budget.name[:60]}",
            "only an admin can change or remove it; set one of another name",
        )
    _check_room(mesh, listed, budget)
    now_s = max(mesh.now(), listed["issued"].get(budget.name, 0) + 1)
    entry = sign_body(mesh.home, budget, now_s, mesh.chance)
    mesh.call(mesh.node.AddControl, pb.AddControlRequest(entry=to_wire(entry)))
    return b32(entry_id_of(entry)), listed


def _check_room(mesh: Connection, listed: Plain, budget: Budget) -> None:
    """Raise ConflictError for one that would not count: what a key has set last comes last."""
    from meshnode.client.keys.authority import operator_id  # noqa: PLC0415 - as above
    from meshnode.core.ledger.budgets import OF_ONE_MAX  # noqa: PLC0415 - as above

    others = listed["set_by"].get(operator_id(mesh.home), 0)
    if budget.terms is not None and others >= OF_ONE_MAX:
        raise ConflictError(
            f"this key has set {others} other budgets, and of one key's only the first"
            f" {OF_ONE_MAX} count: budget {budget.name[:60]} would be ignored from now on",
            "remove others first: session-mesh budget remove NAME",
        )


def _check_ahead(mesh: Connection, listed: Plain, name: str) -> None:
    """Raise ConflictError where this key's word would not be stored, or only without effect."""
    from meshnode.client.keys.authority import operator_id  # noqa: PLC0415 - as above

    mine = (one for one in listed["ahead"] if one["name"] == name)
    found = next((one for one in mine if one["issuer"] == operator_id(mesh.home)), None)
    if found is not None:
        what = "removed" if found["removes"] else "set"
        raise ConflictError(
            f"this key has {what} budget {name[:60]} at {found['issued_at']}, by a clock that was"
            " ahead: nothing else that it says of that name counts before then",
            "set one of another name, or this one with another operator's key",
        )


def _listed(mesh: Connection, name: str = "") -> Plain:
    """List all, or those of a name: a node of an older version returns all, whatever is asked."""
    request = budget_pb.ListBudgetsRequest(name=name)
    return to_plain(mesh.call(mesh.node_budgets.ListBudgets, request))


def _named(listed: Plain, name: str, budget_id: str = "") -> Plain:
    found: Plain | None = next((one for one in listed["budgets"] if one["name"] == name), None)
    if found is None:
        raise NotFoundError(f"no budget {name[:60]!r}", "session-mesh budget list shows them")
    if budget_id and found["budget_id"] != budget_id:
        raise ConflictError(f"another budget {name[:60]!r} counts", "session-mesh budget list")
    return found
