"""Orders to one session or to many, and what became of them.

Invariant: with many targets one failure stops no other; the exit code is that of the worst.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from meshnode.client.errors import MeshError, UsageError
from meshnode.client.targets import Delivery, Selection, Target
from session_mesh.render import Table, View

if TYPE_CHECKING:
    from meshnode.client.mesh import MeshClient

EXIT_OF_OUTCOME = {
    "accepted": 0,
    "delivered": 0,
    "applied": 0,
    "queued": 0,
    "failed": 1,
    "indeterminate": 1,
    "unknown": 3,
    "expired": 6,
    "refused": 8,
}


def one(target: Target, spec: str, labels: Sequence[str] | None) -> list[Target]:
    """Aim at one session; raises UsageError when it is narrowed as only many can be."""
    if spec or labels:
        raise UsageError("--spec and --label go with --all")
    return [target]


def chosen(mesh: "MeshClient", selection: Selection, delivery: Delivery) -> list[Target]:
    """Aim at every session that is selected."""
    if delivery.command_id:
        raise UsageError("--command-id is for one session")
    sessions = mesh.list_sessions(selection)["sessions"]
    return [Target(session_id=session["session_id"]) for session in sessions]


def carry_out(
    targets: Sequence[Target],
    act: Callable[[Target], dict[str, Any]],
    *,
    many: bool,
    wait: str = "delivered",
) -> View:
    """Act on each target; one target's error is raised, of many each is told in its place."""
    if not many:
        result = act(targets[0])
        return replace(outcome_view(result), notes=_unapplied([result], wait))
    results = [_tried(target, act) for target in targets]
    outcomes = Counter(result["outcome"] for result in results)
    rows = [
        (result["target"], result["outcome"], str(result["detail"] or "")) for result in results
    ]
    return View(
        value={"results": results, "summary": {"targets": len(results), **outcomes}},
        human=Table(("SESSION", "OUTCOME", "DETAIL"), rows, empty="no session matches"),
        records="results",
        ids=[str(result["session_id"] or result["target"]) for result in results],
        exit_code=max((_exit_code(result) for result in results), default=0),
        notes=_unapplied(results, wait),
    )


def outcome_view(result: dict[str, Any]) -> View:
    """Show what became of one order."""
    detail = f": {result['detail']}" if result["detail"] else ""
    return View(
        value=result,
        human=f"{result['outcome']}{detail}{_processes(result)}",
        ids=[str(result["session_id"] or result["command_id"])],
        exit_code=_exit_code(result),
    )


def _tried(target: Target, act: Callable[[Target], dict[str, Any]]) -> dict[str, Any]:
    try:
        return {"target": str(target), **act(target)}
    except MeshError as error:
        return {
            "target": str(target),
            "session_id": target.session_id or None,
            "outcome": error.code,
            "detail": error.message,
            "hint": error.hint,
            "exit_code": error.exit_code,
        }


def _exit_code(result: dict[str, Any]) -> int:
    return int(result.get("exit_code", EXIT_OF_OUTCOME.get(result["outcome"], 1)))


def _unapplied(results: Sequence[dict[str, Any]], wait: str) -> list[str]:
    """Say where an agent has the message and nothing tells whether it did anything with it."""
    if wait == "applied" and any(
        result["outcome"] in {"delivered", "queued"} for result in results
    ):
        return ["delivered is all that such an agent lets its node know"]
    return []


def _processes(result: dict[str, Any]) -> str:
    survivors = (result.get("processes") or {}).get("survivors") or []
    return f" (still there: {', '.join(map(str, survivors))})" if survivors else ""
