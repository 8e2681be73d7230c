"""One order to many sessions at once.

Invariants. Every target has one result, in the order of the targets, also when it is interrupted.
One that cannot be reached holds up no other: an owner that is known to be away is asked once, for
all of its sessions.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from threading import Event
from typing import TYPE_CHECKING, Any

from meshnode.client.targets.targets import Target
from meshnode.core.errors import MeshError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Plain = dict[str, Any]
    Aimed = Target | Plain
    Act = Callable[[Aimed], Plain]
    Job = list[tuple[int, Aimed]]

AT_ONCE = 16  # targets, or owners that are away; the others wait their turn
INTERRUPTED = 130  # 128 + SIGINT, the exit code of who was not ordered


class CutShortError(KeyboardInterrupt):
    """Somebody interrupted it: no further target is ordered, and these are the results."""

    def __init__(self, results: list[Plain]) -> None:
        super().__init__()
        self.results = results


def fan_out(
    targets: Sequence[Aimed],
    act: Act,
    find: Callable[[Target], Plain],
    told: Callable[[int], None] = lambda _: None,
    interrupted: Callable[[], None] = lambda: None,
    at_once: int = AT_ONCE,
) -> list[Plain]:
    """Act on each target, `at_once` at a time; an error becomes the result of its target.

    `find` looks up who is only named; `told` hears after each how many are done. At an
    interrupt it calls `interrupted`, waits for those under way until another one, and raises
    CutShortError.
    """
    results: dict[int, Plain] = {}
    ordered: set[int] = set()
    is_over = Event()

    def work(job: Job) -> None:
        lost: MeshError | None = None
        for place, target in job:
            if is_over.is_set():
                return
            ordered.add(place)
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
    except KeyboardInterrupt:
        is_over.set()
        with suppress(KeyboardInterrupt):
            interrupted()
            pool.shutdown(cancel_futures=True)
        raise CutShortError(
            [
                results.get(place) or {**_known(target), **_unfinished(is_ordered=place in ordered)}
                for place, target in enumerate(targets)
            ]
        ) from None
    finally:
        pool.shutdown(wait=not is_over.is_set(), cancel_futures=True)
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


def _unfinished(*, is_ordered: bool) -> Plain:
    if is_ordered:
        said = "it was under way, and nobody waited for what came of it"
        return {"outcome": "indeterminate", "detail": said, "hint": "", "exit_code": 1}
    said = "interrupted before its turn"
    return {"outcome": "not_ordered", "detail": said, "hint": "", "exit_code": INTERRUPTED}
