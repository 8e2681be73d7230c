"""What is asked of a big mesh, one question after the other; each answer is a few numbers.

The bounds that the answers are read against are in docs: how fast news spreads, how much an idle
node sends, how soon a crash is seen by all, how long a healed partition takes, and whether starved
nodes make healthy ones look unreachable.
"""

from __future__ import annotations

import resource
from math import inf
from time import process_time, time_ns
from typing import TYPE_CHECKING

from sim.invariants import OUT, Invariants, alive_of
from sim.report import Progress, show
from sim.scale import OVERHEAD_BYTES, Big

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.machine import Machine

WITHIN_S = 60.0
NEWS = 40
MANY = 500  # nodes; a tenth of more would keep one busy for hours
STARVED_S = (5.0, 30.0)
Answer = dict[str, float | int | str]


def idle(big: Big, for_s: float = 10.0) -> Answer:
    """Count what an idle node sends; it receives as much."""
    network = big.world.network
    frames, sent = network.frames_sent, network.bytes_sent
    big.world.run(for_s)
    frames, sent = network.frames_sent - frames, network.bytes_sent - sent
    share = big.count * for_s
    return {
        "frames a node and second": round(frames / share, 2),
        "bytes a node and second each way": round((sent + frames * OVERHEAD_BYTES) / share),
    }


def news(big: Big, count: int = NEWS) -> Answer:
    """Time single writes of random writers, once each and then again along their trees."""
    rng, world = big.world.rng, big.world
    writers = rng.sample(world.nodes, min(count, big.count))
    answer: Answer = {}
    for turn in ("first", "later"):
        big.news.clear()
        big.copies = 0
        for writer in writers:
            big.write(writer)
            world.run(rng.uniform(0.1, 0.3))
        world.run(3.0)
        took = sorted(one for item in big.news.values() for one in item.arrived_s)
        expected = len(big.news) * (big.count - 1)
        answer |= {
            f"{turn} news p50 s": round(took[len(took) // 2], 3),
            f"{turn} news p99 s": round(took[len(took) * 99 // 100], 3),
            f"{turn} news last s": round(took[-1], 3),
            f"{turn} news heard": f"{len(took)}/{expected}",
            f"{turn} news copies a node": round(big.copies / (len(big.news) * big.count), 2),
        }
    return answer


def crash(big: Big) -> Answer:
    """Crash a tenth at once, of many a hundredth, and see when the rest shows it."""
    rng, world = big.world.rng, big.world
    lost = rng.sample(world.nodes, big.count // (10 if big.count < MANY else 100))
    for machine in lost:
        machine.stop("reset")
    left = frozenset(machine.id for machine in world.up)
    first = big.until(lambda: big.shown(left) > 0, WITHIN_S)
    last = first + big.until(lambda: big.all_show(left), WITHIN_S)
    for machine in lost:
        machine.start()
    everybody = frozenset(world.machines)
    back = big.until(lambda: big.all_show(everybody) and big.all_agree(), WITHIN_S)
    return {
        f"{len(lost)} crashed: first node sees all s": round(first, 2),
        f"{len(lost)} crashed: last node sees all s": round(last, 2),
        f"{len(lost)} came back: all see it s": round(back, 2),
    }


def partition(big: Big) -> Answer:
    """Cut a third off: streams break, dials fail; then heal."""
    world = big.world
    cut = big.count // 3
    small, large = world.nodes[:cut], world.nodes[cut:]
    world.network.partition(small, large)
    sides = [frozenset(m.id for m in side) for side in (small, large)]

    def noticed() -> bool:
        pairs = zip((small, large), sides, strict=True)
        return all(alive_of(m.running) == side for part, side in pairs for m in part)

    seen = big.until(noticed, WITHIN_S)
    world.run(10.0)
    world.heal()
    healed = big.until(lambda: big.all_show(world.machines) and big.all_agree(), WITHIN_S * 2)
    return {"partition 1:2 seen s": round(seen, 2), "healed, all agree s": round(healed, 2)}


def restart(big: Big) -> Answer:
    """Restart everybody within three seconds."""
    frames = big.world.network.frames_sent
    big.restart(3.0)
    big.world.run(3.0)
    took = big.until(lambda: big.all_show(big.world.machines) and big.all_agree(), WITHIN_S * 2)
    frames = big.world.network.frames_sent - frames
    return {
        "all restarted: converged after the last s": round(took, 2),
        "all restarted: frames a node": frames // big.count,
    }


def starvation(big: Big, for_s: float = 60.0) -> Answer:
    """Starve a tenth at any time, 5 to 30 s each; count healthy nodes shown unreachable."""
    world = big.world
    watch = Invariants(world)
    starve(big.world, big.count // 10 or 1, for_s)
    held = world.counts["timers held"]
    for _ in range(int(for_s)):
        world.run(1.0)
        watch.count_false()
    world.run(STARVED_S[1])
    return {
        "starvation node-seconds": watch.node_seconds,
        "timers held": world.counts["timers held"] - held,
        "healthy nodes shown unreachable, node-seconds": watch.false_node_seconds,
    }


def starve(world, at_once: int, for_s: float) -> None:
    """Keep so many nodes starved until then, each for 5 to 30 s, one after the other."""
    until_s = world.now_s + for_s

    def next_one() -> None:
        awake = [m for m in world.nodes if m.healthy]
        if world.now_s < until_s and len(awake) > 1:
            machine = world.rng.choice(awake)
            machine.freeze()
            world.after(world.rng.uniform(*STARVED_S), None, wake, machine)

    def wake(machine: Machine) -> None:
        machine.thaw()
        next_one()

    for _ in range(at_once):
        world.after(world.rng.uniform(0.0, STARVED_S[0]), None, next_one)


def unreached(big: Big) -> int:
    """Count the pairs of running nodes of which one shows the other out."""
    up = {machine.id for machine in big.world.up}
    return sum(m.running.liveness.state(o) in OUT for m in big.world.up for o in up)


QUESTIONS: dict[str, Callable[[Big], Answer]] = {
    "idle": idle,
    "news": news,
    "starvation": starvation,
    "crash": crash,
    "partition": partition,
    "restart": restart,
}


def memory_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def ask(
    answer: Answer,
    questions: list[str],
    said: Callable[[str], None],
    *,
    tracing: bool = False,
    watched: bool = False,
) -> None:
    """Make a big mesh of `nodes` and `seed` and add what it answers, telling each at once.

    `failed` is empty if everything that was waited for came about in time. Watched, it also tells
    how far it is every few seconds.
    """
    began, before = process_time(), memory_bytes()
    began_ns = time_ns()
    seed, count = int(answer["seed"]), int(answer["nodes"])
    answer["failed"] = ""
    with Progress(said if watched else lambda _: None) as progress:
        big = Big(seed, count, tracing=tracing)
        progress.world = big.world
        big.start_linked()
        answer["bytes a pair of node and origin"] = (memory_bytes() - before) // count**2
        answer["seconds of CPU to make"] = round(process_time() - began, 1)
        big.world.run(2.0)
        try:
            for name in questions:
                progress.doing = name
                _ask_one(big, name, answer, said)
        finally:
            cpu_s = process_time() - began
            answer |= {"trace": big.world.trace} if tracing else {}
            answer |= {
                "virtual s": round(big.world.now_s, 1),
                "events": big.world.events,
                "events a second of CPU": round(big.world.events / cpu_s),
                "seconds of CPU": round(cpu_s, 1),
                "wall s": round((time_ns() - began_ns) / 1e9, 1),
                "peak MiB": memory_bytes() >> 20,
            }


def _ask_one(big: Big, name: str, answer: Answer, said: Callable[[str], None]) -> None:
    at = process_time(), big.world.events, big.world.now_s
    answered = QUESTIONS[name](big)
    cpu_s, events = process_time() - at[0], big.world.events - at[1]
    virtual_s = big.world.now_s - at[2]
    late = [key for key, value in answered.items() if value == inf]
    if late and not answer["failed"]:
        answer["failed"] = f"not in time: {', '.join(late)}"
    # Kept before it is told: who hears it may interrupt the run.
    answer |= {key: "never" if value == inf else value for key, value in answered.items()}
    answer[f"seconds of CPU for {name}"] = round(cpu_s, 1)
    said(f"{name}: {virtual_s:.1f} virtual s in {cpu_s:.1f} s of CPU, {events:,} events")
    said(show(answered))
