"""One seed's run as numbers, and numbers as lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.faults import Schedule, choose
from sim.world import World, boot

if TYPE_CHECKING:
    from sim.questions import Answer


def one_seed(
    seed: int, nodes: int | None = None, names: list[str] | None = None, for_s: float | None = None
) -> Answer:
    """Run a seed as the tests do, unless told otherwise; `failed` is empty if all went well."""
    size, chosen, length_s = choose(seed)
    size, chosen, length_s = nodes or size, names or chosen, for_s or length_s
    failed, world, schedule, calm_s = "", None, None, -1.0
    try:
        world = boot(seed, size)
        schedule = Schedule(world, seed, chosen, length_s)
        calm_s = schedule.run()
    except AssertionError as error:
        failed = str(error)
    answer: Answer = {"seed": seed, "nodes": size, "faults": ",".join(chosen), "failed": failed}
    if world is None or schedule is None:
        return answer | {"trace": "did not boot"}
    answer |= {f"fault {name}": count for name, count in sorted(schedule.happened.items())}
    answer |= {f"skipped {name}": count for name, count in sorted(schedule.skipped.items())}
    if schedule.vacuous and not failed:
        answer["failed"] = f"vacuous: {schedule.vacuous}"
    return answer | numbers_of(world) | {"calm s": round(calm_s, 2), "trace": world.trace}


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
        **{f"count {name}": count for name, count in sorted(world.counts.items())},
    }


def show(answer: Answer) -> str:
    width = max(len(key) for key in answer)
    return "\n".join(f"{key:<{width}}  {value}" for key, value in answer.items())
