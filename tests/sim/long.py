"""Ten million node-seconds with a tenth of the nodes starved, over many meshes and two processes.

Invariant: a seed's line is a function of the seed; a run that was stopped goes on after the seeds
that its file holds.
"""

from __future__ import annotations

import gc
import json
from itertools import accumulate, count
from multiprocessing import get_context
from signal import SIG_IGN, SIGINT, signal
from time import process_time
from typing import TYPE_CHECKING

from sim.questions import Answer, starve
from sim.world import boot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NODE_SECONDS = 1e7
PROCESSES = 2
A_SEED_S = 1000.0  # virtual, once the mesh is whole
SMALL = range(10, 18)
LARGE = range(18, 51)
LARGE_EVERY = 16  # seeds: a node-second costs four times as much in a mesh of 30 as in one of 12
COLLECT_EVERY = 200_000  # objects made: Python's usual 700 cost a tenth of the run


def size_of(seed: int) -> int:
    """Return how many nodes a seed's mesh has: 10 to 17, of each sixteenth 18 to 50."""
    row, place = divmod(seed, LARGE_EVERY)
    if place == LARGE_EVERY - 1:
        return LARGE[row * 7 % len(LARGE)]
    return SMALL[seed % len(SMALL)]


def one(seed: int) -> Answer:
    """Run one mesh of 10 to 50 nodes, a tenth of which is always starved for 5 to 30 s."""
    began_s = process_time()
    size = size_of(seed)
    world = boot(seed, size, tracing=False, checking=False)
    before = world.invariants
    until_s = world.now_s + A_SEED_S
    starve(world, max(1, size // 10), A_SEED_S)
    while world.now_s < until_s:
        world.run(1.0)
        before.count_false()
    world.run(40.0)
    world.settle()
    return {
        "seed": seed,
        "nodes": size,
        "node-seconds": before.node_seconds,
        "false": before.false_node_seconds,
        "timers held": world.counts["timers held"],
        "events": world.events,
        "cpu": round(process_time() - began_s, 2),
    }


def tried(seed: int) -> Answer:
    gc.set_threshold(COLLECT_EVERY, 20, 100)
    try:
        return one(seed)
    except AssertionError as error:
        return {"seed": seed, "node-seconds": 0, "false": 0, "failed": str(error)}


def run_long(
    answer: Answer, node_seconds: float, out: Path | None, told: Callable[[str], None]
) -> None:
    """Run seeds until there are enough node-seconds, adding each to `out` and to the answer."""
    done = lines_of(out)
    answer |= summed(done)
    first = len(done)
    planned = accumulate(size_of(seed) * A_SEED_S for seed in count())
    last = next(seed for seed, total in enumerate(planned) if total >= node_seconds)
    seeds = range(first, max(first, last + 1))
    # An interrupt is the parent's to handle: it ends the pool and shows what there is.
    with get_context("spawn").Pool(PROCESSES, signal, (SIGINT, SIG_IGN)) as pool:
        for line in pool.imap(tried, seeds):
            done.append(line)
            if out is not None:
                with out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
            answer |= summed(done)
            told(f"{line}; {answer['node-seconds']:.3g} of {node_seconds:.3g} node-seconds")


def lines_of(out: Path | None) -> list[Answer]:
    """Return the seeds that a file holds; ValueError or OSError if it is not such a file."""
    if out is None or not out.exists():
        return []
    done = [json.loads(line) for line in out.read_text().splitlines()]
    if not all(
        isinstance(line, dict) and {"seed", "node-seconds", "false"} <= {*line} for line in done
    ):
        raise ValueError("a line is not that of a seed")
    return done


def summed(done: list[Answer]) -> Answer:
    failed = [line["seed"] for line in done if line.get("failed")]
    return {
        "seeds": len(done),
        "node-seconds": sum(line["node-seconds"] for line in done),
        "events": sum(line.get("events", 0) for line in done),
        "healthy nodes shown unreachable, node-seconds": sum(line["false"] for line in done),
        "seconds of CPU": round(sum(line.get("cpu", 0.0) for line in done), 1),
        "failed": len(failed),
        "seeds that failed": str(failed),
    }
