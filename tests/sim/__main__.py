"""./dev sim: the deterministic simulator from the command line.

Invariant: every option is honoured or refused with a sentence and exit 2; none is ignored. Exit 1
says that a run failed or proved nothing, 130 that it was interrupted and showed what there was.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from math import isfinite
from pathlib import Path
from signal import SIGTERM, default_int_handler, signal
from time import process_time
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from sim.faults import FAULTS
from sim.long import NODE_SECONDS, lines_of, run_long
from sim.questions import QUESTIONS, Answer, ask
from sim.report import one_seed, show
from sim.verifying import remembering

if TYPE_CHECKING:
    from collections.abc import Callable

BIG = 64  # nodes; more are made as a big mesh, and asked big questions
NODES_MAX = 5000  # a big mesh takes memory for every pair of nodes
SEEDS = 20


class Preset(NamedTuple):
    """A size and its questions, which --faults may replace."""

    nodes: int
    questions: tuple[str, ...]


PRESETS = {
    "thousand": Preset(1000, ("idle", "news", "crash")),
    "five-thousand": Preset(5000, ("idle", "news")),
}
HELP = f"""The deterministic simulator: whole meshes in virtual time.

./dev sim                                  seeds 0 to {SEEDS - 1}, as the tests run them
./dev sim --seed 7                         one seed, as the tests run it
./dev sim --seed 7 --check-replay          twice, and the traces compared
./dev sim --nodes 9 --faults crash,loss --for 60 --seeds 50
./dev sim --nodes 200 --seed 7 --faults crash,restart
./dev sim --preset thousand

Small meshes (2 to {BIG} nodes) go through faults; --faults names those:
  {", ".join(sorted(FAULTS)[:10])},
  {", ".join(sorted(FAULTS)[10:])}
Big meshes ({BIG + 1} to {NODES_MAX} nodes) are asked questions; --faults names those:
  {", ".join(sorted(QUESTIONS))}
"""
EPILOG = """presets (--faults chooses other questions; times of CPU, one process):
  thousand       1,000 nodes: idle, news (about 1 min, 0.5 GB), crash of 1 % (minutes, about 1 GB:
                 estimated from 200 and 400 nodes). Not in it, since starvation takes tens of
                 minutes and partition an estimated 25.
  five-thousand  5,000 nodes: idle, news; about 9 GB
  long           1e7 node-seconds of meshes of 10 to 17 nodes, each sixteenth of 18 to 50, a tenth
                 of the nodes always starved, in two processes; all of it takes 1 h 30 min or more
"""
# Which options each kind of run knows; any other that is given is refused.
EVERY = {"json"}
SMALL = EVERY | {"nodes", "seed", "seeds", "faults", "for", "check-replay", "trace"}
LARGE = EVERY | {"nodes", "seed", "faults", "check-replay", "trace"}
PRESET = (LARGE | {"preset"}) - {"nodes"}
LONG = EVERY | {"preset", "node-seconds", "out"}


def told(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - progress


def parser_of() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev sim",
        description=HELP,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    number = parser.add_argument
    number("--nodes", type=int, help=f"2 to {NODES_MAX}; default: what the seed says")
    number("--seed", type=int, help="run this one")
    number("--seeds", type=int, help=f"small meshes: run so many, from 0 on; default {SEEDS}")
    number("--faults", help="small: faults, big: questions; by name, with commas")
    number("--for", dest="for", type=float, help="small meshes: virtual seconds of faults")
    number("--check-replay", action="store_true", help="run twice, compare traces")
    number("--trace", action="store_true", help="hash big meshes too; small ones always are")
    number("--preset", choices=[*PRESETS, "long"])
    number("--node-seconds", type=float, help=f"of --preset long; default {NODE_SECONDS:.0e}")
    number("--out", type=Path, help="of --preset long: results by seed; resumed from")
    number("--json", action="store_true", help="the report as one JSON object")
    return parser


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Return what was asked for; exits 2 with a sentence if it cannot be done as asked."""
    parser = parser_of()
    chosen = parser.parse_args(words)
    wrong = contradiction(vars(chosen)) or bad_number(vars(chosen))
    if wrong:
        parser.error(wrong)
    preset = PRESETS.get(chosen.preset)
    chosen.nodes = preset.nodes if preset else chosen.nodes
    chosen.big = (chosen.nodes or 0) > BIG
    chosen.names = chosen.faults.split(",") if chosen.faults is not None else None
    known, what = (QUESTIONS, "question") if chosen.big else (FAULTS, "fault")
    for name in chosen.names or ():
        if name not in known:
            size = f"more than {BIG}" if chosen.big else f"at most {BIG}"
            listed = ", ".join(sorted(known))
            parser.error(f"{name!r} is no {what} of a mesh of {size} nodes: {listed}")
    try:
        lines_of(chosen.out)
        if chosen.out is not None:
            chosen.out.open("a").close()
    except (OSError, ValueError) as error:
        parser.error(f"--out {chosen.out} cannot be used: {error}")
    return chosen


def contradiction(chosen: dict) -> str:
    """Return why these options do not go together; empty if they do."""
    big = (chosen["nodes"] or 0) > BIG
    if chosen["preset"]:
        knows, kind = PRESET, f"--preset {chosen['preset']}"
        if chosen["preset"] == "long":
            knows = LONG
    else:
        knows, kind = (LARGE, f"more than {BIG} nodes") if big else (SMALL, "small meshes")
    given = {  # a 0 is given, though it equals False
        name.replace("_", "-")
        for name, value in chosen.items()
        if value is not None and value is not False
    }
    unknown = sorted(given - knows)
    if unknown:
        return f"--{unknown[0]} does not go with {kind}"
    if "seed" in given and "seeds" in given:
        return "--seed runs one, --seeds so many from 0 on: give one of them"
    if "check-replay" in given and knows is not SMALL and "trace" not in given:
        return f"--check-replay of more than {BIG} nodes compares traces: give --trace too"
    return ""


def bad_number(chosen: dict) -> str:
    """Return which number cannot be; empty if all can."""
    bounds = {
        "nodes": (2, NODES_MAX, f"from 2 to {NODES_MAX}"),
        "seed": (0, float("inf"), "0 or more"),
        "seeds": (1, float("inf"), "1 or more"),
        "node_seconds": (1, float("inf"), "1 or more"),
    }
    for name, (least, most, said) in bounds.items():
        value = chosen[name]
        if value is not None and not (least <= value <= most and isfinite(value)):
            return f"--{name.replace('_', '-')} must be {said}, not {value}"
    for_s = chosen["for"]
    if for_s is not None and not (for_s > 0 and isfinite(for_s)):
        return f"--for must be more than 0 seconds, not {for_s}"
    return ""


def main(words: list[str] | None = None) -> int:
    chosen = arguments(words)
    signal(SIGTERM, default_int_handler)
    answer: Answer = {}
    run: Callable[[argparse.Namespace, Answer], str] = asked if chosen.big else swept
    try:
        with remembering():
            ended = long(chosen, answer) if chosen.preset == "long" else run(chosen, answer)
        code = 0 if ended.startswith("passed") else 1
    except KeyboardInterrupt:
        ended, code = "INTERRUPTED: this is what there was", 130
    if chosen.json:
        print(json.dumps(answer | {"ended": ended}))  # noqa: T201 - the report
    else:
        print(f"{show(answer)}\n{ended}")  # noqa: T201 - the report
    return code


def long(chosen: argparse.Namespace, answer: Answer) -> str:
    """Run starved small meshes; like all runs, fill the answer, and return how it ended."""
    run_long(answer, chosen.node_seconds or NODE_SECONDS, chosen.out, told)
    if answer["failed"]:
        return f"FAILED: seeds {answer['seeds that failed']}: sim.long.one(seed) runs one again"
    return f"passed: {counted(answer['seeds'], 'seed')}, {answer['events']:,} events"


def asked(chosen: argparse.Namespace, answer: Answer) -> str:
    """Ask a big mesh."""
    usual = PRESETS[chosen.preset].questions if chosen.preset else QUESTIONS
    questions = list(dict.fromkeys(chosen.names or usual))
    seed, watched = chosen.seed or 0, sys.stderr.isatty()
    answer |= {"nodes": chosen.nodes, "seed": seed}
    ask(answer, questions, told, tracing=chosen.trace, watched=watched)
    if chosen.check_replay:
        again: Answer = {"nodes": chosen.nodes, "seed": seed}
        ask(again, questions, told, tracing=True, watched=watched)
        answer["replays"] = again["trace"] == answer["trace"]
        answer["failed"] = answer["failed"] or ("" if answer["replays"] else "the traces differ")
    if answer["failed"]:
        return f"FAILED: seed {seed}: {replay_of(chosen, seed)}"
    return f"passed: {counted(len(questions), 'question')} answered, {answer['events']:,} events"


def swept(chosen: argparse.Namespace, total: Answer) -> str:
    """Run seeds of small meshes, telling of each that fails why."""
    seeds = range(chosen.seeds or SEEDS) if chosen.seed is None else [chosen.seed]
    total |= {"seeds": 0, "failed": 0, "events": 0, "node-seconds": 0}
    failed: list[int] = []
    began_s = process_time()
    for seed in seeds:
        answer = ran(chosen, seed)
        total["seeds"] += 1
        if answer["failed"]:
            told(f"seed {seed} failed: {answer['failed']}")
            failed.append(seed)
            total["failed"] = len(failed)
        for key, value in answer.items():
            if isinstance(value, int) and key not in {"seed", "nodes", "replays"}:
                total[key] = total.get(key, 0) + value
        if chosen.check_replay:
            total["replays"] = total.get("replays", True) and answer["replays"]
        if len(seeds) > 1:
            told(f"seed {seed}: {answer['nodes']} nodes, {answer['faults']}")
        else:
            total |= answer
    cpu_s = process_time() - began_s
    total["seconds of CPU"] = round(cpu_s, 1)
    total["events a second of CPU"] = round(total["events"] / cpu_s)
    if failed:
        which = f"seed{'s' * (len(failed) > 1)} {', '.join(map(str, failed))}"
        return f"FAILED: {which}: {replay_of(chosen, failed[0])}"
    return f"passed: {counted(len(seeds), 'seed')}, {total['events']:,} events"


def ran(chosen: argparse.Namespace, seed: int) -> Answer:
    """Run one seed, twice if replays are to be checked."""
    options = seed, chosen.nodes, chosen.names, getattr(chosen, "for")
    answer = one_seed(*options)
    if chosen.check_replay:
        answer["replays"] = one_seed(*options)["trace"] == answer["trace"]
        answer["failed"] = answer["failed"] or ("" if answer["replays"] else "the traces differ")
    return answer


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def replay_of(chosen: argparse.Namespace, seed: int) -> str:
    """Return the command that runs this seed again."""
    words = ["./dev", "sim", "--seed", str(seed)]
    nodes = None if chosen.preset else chosen.nodes
    options = {"preset": chosen.preset, "nodes": nodes, "faults": chosen.faults}
    options["for"] = getattr(chosen, "for")
    for name, value in options.items():
        words += [] if value is None else [f"--{name}", str(value)]
    words += ["--check-replay"] * chosen.check_replay + ["--trace"] * (chosen.trace and chosen.big)
    return shlex.join(words)


if __name__ == "__main__":
    sys.exit(main())
