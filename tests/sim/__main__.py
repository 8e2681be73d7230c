"""./dev sim: the deterministic simulator from the command line.

./dev sim                                     the next 20 seeds of the tests' mixes
./dev sim --seed 7                            one seed, as the tests run it
./dev sim --seed 7 --check-replay             twice, and the traces compared
./dev sim --nodes 9 --faults crash,loss --for 60 --seeds 50
./dev sim --nodes 1000 --seed 7 --faults starvation,partition
./dev sim --preset thousand | five-thousand | long
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from time import process_time

sys.path.insert(0, str(Path(__file__).parents[1]))

from sim.faults import FAULTS
from sim.long import NODE_SECONDS, run_long
from sim.questions import QUESTIONS, Answer, ask
from sim.report import one_seed, show

BIG = 64  # nodes; more are made as a big mesh, and asked big questions
PRESETS = {"thousand": 1000, "five-thousand": 5000}


def told(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - progress


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./dev sim",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    both = sorted({*FAULTS, *QUESTIONS})
    parser.add_argument("--nodes", type=int, help="default: what the seed says")
    parser.add_argument("--seed", type=int, help="run this one")
    parser.add_argument("--seeds", type=int, default=20, help="run so many, from 0 on")
    parser.add_argument("--faults", help=f"by name, with commas: {', '.join(both)}")
    parser.add_argument("--for", dest="for_s", type=float, help="virtual seconds of faults")
    parser.add_argument("--check-replay", action="store_true", help="run twice, compare traces")
    parser.add_argument("--trace", action="store_true", help="hash big runs too")
    parser.add_argument("--preset", choices=[*PRESETS, "long"])
    parser.add_argument("--node-seconds", type=float, default=NODE_SECONDS, help="of --preset long")
    parser.add_argument("--out", type=Path, help="of --preset long: results by seed; resumed from")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    chosen = arguments(words)
    names = chosen.faults.split(",") if chosen.faults else None
    if chosen.preset == "long":
        answer = run_long(chosen.node_seconds, chosen.out, told)
    elif chosen.preset or (chosen.nodes or 0) > BIG:
        answer = asked(chosen, names)
    else:
        answer = swept(chosen, names)
    print(json.dumps(answer) if chosen.json else show(answer))  # noqa: T201 - the report
    return 1 if answer.get("failed") else 0


def asked(chosen: argparse.Namespace, names: list[str] | None) -> Answer:
    count = chosen.nodes or PRESETS[chosen.preset]
    questions = [name for name in names or QUESTIONS if known(name, QUESTIONS)]
    return ask(chosen.seed or 0, count, questions, told, tracing=chosen.trace)


def swept(chosen: argparse.Namespace, names: list[str] | None) -> Answer:
    """Run seeds of small meshes, telling of each that fails how to replay it."""
    for name in names or ():
        known(name, FAULTS)
    seeds = range(chosen.seeds) if chosen.seed is None else [chosen.seed]
    total: Answer = {"seeds": len(seeds), "failed": 0, "events": 0, "node-seconds": 0}
    began_s = process_time()
    for seed in seeds:
        answer = one_seed(seed, chosen.nodes, names, chosen.for_s)
        if chosen.check_replay:
            again = one_seed(seed, chosen.nodes, names, chosen.for_s)
            answer["replays"] = again["trace"] == answer["trace"]
            total["replays"] = bool(total.get("replays", True)) and answer["replays"]
            total["failed"] += not answer["replays"]
        if answer["failed"]:
            told(f"seed {seed} failed: {answer['failed']}")
            total["failed"] += 1
        for key, value in answer.items():
            if isinstance(value, int) and key not in {"seed", "nodes", "replays"}:
                total[key] = total.get(key, 0) + value
        if len(seeds) == 1:
            return answer | {"failed": total["failed"]}
        told(f"seed {seed}: {answer['nodes']} nodes, {answer['faults']}")
    cpu_s = process_time() - began_s
    total["seconds of CPU"] = round(cpu_s, 1)
    total["events a second of CPU"] = round(total["events"] / cpu_s)
    return total


def known(name: str, names: object) -> bool:
    if name not in names:
        raise SystemExit(f"{name} is none of {', '.join(sorted(names))}")
    return True


if __name__ == "__main__":
    sys.exit(main())
