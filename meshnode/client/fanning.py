"""One order to many sessions at once.

Invariants. Every target has one result, in the order of the targets. One that cannot be reached
holds up no other: an owner that is known to be away is asked once, for all of its sessions.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

from meshnode.client.targets import Target
from meshnode.core.errors import MeshError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Plain = dict[str, Any]
    Aimed = Target | Plain
    Act = Callable[[Aimed], Plain]
    Job = list[tuple[int, Aimed]]

AT_ONCE = 16  # targets, or owners that are away; the others wait their turn


def fan_out(
    targets: Sequence[Aimed],
    act: Act,
    find: Callable[[Target], Plain],
    told: Callable[[int], None] = lambda _: None,
    at_once: int = AT_ONCE,
) -> list[Plain]:
    """Act on each target, `at_once` at a time; an error becomes the result of its target.

    `find` looks up who is only named; `told` hears after each how many are done.
    """
    results: dict[int, Plain] = {}

    def work(job: Job) -> None:
        lost: MeshError | None = None
        for place, target in job:
            known = _known(target)
            try:
                if lost is not None:
                    raise lost
                session = find(target) if isinstance(target, Target) else target
                known = {**_known(session), "target": known["target"]}
                results[place] = {**known, **act(session)}
            except MeshError as error:
                lost = error if isinstance(error, UnreachableError) else lost
                results[place] = {**known, **_failed(error)}
            told(len(results))

    pool = ThreadPoolExecutor(at_once)
    try:
        for done in as_completed([pool.submit(work, job) for job in _jobs(targets)]):
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)  # whoever interrupts waits for those under way
    return [results[place] for place in range(len(targets))]


def _jobs(targets: Sequence[Aimed]) -> list[Job]:
    """Put the sessions of each owner that is away into one job, after all others."""
    alone: list[Job] = []
    away: dict[str, Job] = {}
    for place, target in enumerate(targets):
        if isinstance(target, Target) or target["state"] != "unreachable":
            alone.append([(place, target)])
        else:
            away.setdefault(str(target["node_id"]), []).append((place, target))
    return [*alone, *away.values()]


def _known(target: Aimed) -> Plain:
    if isinstance(target, Target):
        return {"target": str(target), "session_id": target.session_id or None}
    return {
        "target": target["session_id"],
        "session_id": target["session_id"],
        "agent_id": target["agent_id"],
        "node_id": target["node_id"],
        "node_name": target["node_name"],
    }


def _failed(error: MeshError) -> Plain:
    return {
        "outcome": error.code,
        "detail": error.message,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }
