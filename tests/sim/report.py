"""One seed's run as numbers, and numbers as lines.

Invariant: what is said while a run goes on is no part of the run; its trace stays the same.
"""

from __future__ import annotations

from threading import Event, Thread
from typing import TYPE_CHECKING, Self

from sim.crowding import limits_of
from sim.faults import Schedule, choose
from sim.world import World, boot

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.questions import Answer

TELL_EVERY_S = 5.0  # of wall time
GROUPS = ("fault ", "skipped ", "count ")  # rows sorted by name, after all others


def one_seed(
    seed: int, nodes: int | None = None, names: list[str] | None = None, for_s: float | None = None
) -> Answer:
    """Run a seed as the tests do, unless told otherwise; `failed` is empty if all went well."""
    size, chosen, length_s = choose(seed)
    size, chosen, length_s = nodes or size, names or chosen, for_s or length_s
    failed, world, schedule, calm_s = "", None, None, -1.0
    try:
        world = boot(seed, size, limits=limits_of(seed))
        schedule = Schedule(world, seed, chosen, length_s)
        calm_s = schedule.run()
    except AssertionError as error:
        failed = str(error) or "an assertion without a word"
    answer: Answer = {"seed": seed, "nodes": size, "faults": ",".join(chosen), "failed": failed}
    if world is None or schedule is None:
        return answer | {"trace": "did not boot"}
    answer |= {f"fault {name}": count for name, count in schedule.happened.items()}
    answer |= {f"skipped {name}": count for name, count in schedule.skipped.items()}
    answer["failed"] = failed or nothing_in(schedule)
    return answer | numbers_of(world) | {"calm s": round(calm_s, 2), "trace": world.trace}


def nothing_in(schedule: Schedule) -> str:
    """Return why a run that went well is no evidence; empty if it is."""
    if schedule.vacuous:
        return f"vacuous: {schedule.vacuous}"
    if not schedule.happened:
        return f"nothing happened: skipped {sorted(schedule.skipped)}"
    return ""


def numbers_of(world: World) -> Answer:
    seen = world.invariants
    return {
        "virtual s": round(world.now_s, 1),
        "events": world.events,
        "frames": world.network.frames_sent,
        "bytes": world.network.bytes_sent,
        "checks of all": seen.checks,
        "node-seconds": seen.node_seconds,
        "healthy nodes shown unreachable, node-seconds": seen.false_node_seconds,
        **{f"count {name}": count for name, count in world.counts.items()},
    }


def show(answer: Answer) -> str:
    """Return a line a number; of a story only its beginning, which was told in full before."""

    def place(key: str) -> tuple[int, str]:
        group = next((at for at, start in enumerate(GROUPS, 1) if key.startswith(start)), 0)
        return group, key if group else ""

    width = max(map(len, answer), default=0)
    rows = ((key, str(answer[key]).partition("\n")[0]) for key in sorted(answer, key=place))
    return "\n".join(f"{key:<{width}}  {value}" for key, value in rows)


class Progress:
    """Tells every few seconds of wall time how far a mesh is, from a thread that only reads."""

    def __init__(self, said: Callable[[str], None], every_s: float = TELL_EVERY_S) -> None:
        self.doing, self.world = "making the mesh", None
        self._said, self._every_s = said, every_s
        self._ended = Event()
        self._thread = Thread(target=self._tell, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _tell(self) -> None:
        while not self._ended.wait(self._every_s):
            world: World | None = self.world
            far = f": {world.now_s:.1f} virtual s, {world.events:,} events" if world else ""
            self._said(f"{self.doing}{far}")
