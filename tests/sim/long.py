"""Ten million node-seconds with a tenth of the nodes starved, over many meshes and two processes.

Invariant: a seed's line is a function of the seed; a run that was stopped goes on after the seeds
that its file holds.
"""

from __future__ import annotations

import json
from math import ceil
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
A_SEED_S = 1000.0  # virtual
SIZES = range(10, 51)


def one(seed: int) -> Answer:
    """Run one mesh of 10 to 50 nodes, a tenth of which is always starved for 5 to 30 s."""
    began_s = process_time()
    size = SIZES[seed * 7 % len(SIZES)]
    world = boot(seed, size, tracing=False, checking=False)
    before = world.invariants
    starve(world, max(1, size // 10), A_SEED_S)
    while world.now_s < A_SEED_S:
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
    mean = A_SEED_S * (SIZES[0] + SIZES[-1]) / 2
    seeds = range(first, max(first, ceil(node_seconds / mean)))
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
