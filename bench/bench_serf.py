"""Thirty nodes beside thirty agents of serf: joining, news, a crash, a freeze, and doing nothing.

Both are the real programs with their defaults, on loopback, one after the other. What a member
notices is heard from itself: serf streams events and its log over its RPC port; a node of ours runs
with `observe` around its protocol core, which writes a line for each change it has taken.
Every instant is when this process heard of it, so both are measured with one ruler; for ours the
node's own instants are given too (perf_counter is one clock for all processes of a machine).

A third side is the floor under our news on this machine: thirty processes with the links that our
rings ask for, which pass on bytes and do nothing else (`flood`), or verify them before that
(`flood-verified`). They run while ours is there and take turns with it at the news, ten items each:
what ours takes in proportion to them tells slow code from a slow hour.

Invariant: whatever was started is ended, by the end, a failure, Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from report import Figure, table
from serf.flood import Flood
from serf.measures import measure
from serf.ours import Ours
from serf.theirs import Serf

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from serf.side import Side

NODES_MIN = 3
NO_SERF = 2
INTERRUPTED = 130
SIDES: dict[str, Callable[[Sequence[str], ExitStack], Side]] = {  # in the order of their starts
    "ours": Ours,
    "flood": Flood,
    "flood-verified": partial(Flood, verifies=True),
    "serf": Serf,
}


def _chosen(told: str) -> list[str]:
    unknown = set(told.split(",")) - SIDES.keys()
    if unknown:
        raise argparse.ArgumentTypeError(f"{min(unknown)!r} is none of {', '.join(SIDES)}")
    return [side for side in SIDES if side in told.split(",")]


def _measured(chosen: Sequence[str], names: Sequence[str]) -> dict[str, list[Figure]]:
    """Measure some sides together, and print what was found of each."""
    load_before = os.getloadavg()[0]
    with ExitStack() as stack:
        sides = [SIDES[name](names, stack) for name in chosen]
        measured = dict(zip(chosen, measure(sides, random.Random(len(names))), strict=True))
        load = f"load {load_before:.1f} before, {os.getloadavg()[0]:.1f} at the end"
    for side, name in zip(sides, chosen, strict=True):
        if name != "ours":  # the limits are ours
            measured[name] = [replace(figure, at_most=None) for figure in measured[name]]
        table(f"{side.title}; {load}", measured[name])
    return measured


def _beside(measured: Mapping[str, Sequence[Figure]]) -> None:
    """Print the first side, and each other with how many times as much the first one took."""
    (first, figures), *others = measured.items()
    heads = "".join(f" {name:>14} {first + ' / it':>9}" for name, _ in others)
    print(f"\n  {'side by side':<52} {first:>14}{heads}")
    known = [{figure.what: figure for figure in found} for _, found in others]
    for figure in figures:
        cells = "".join(_cell(figure, other.get(figure.what)) for other in known)
        print(f"  {figure.what:<52} {_shown(figure)}{cells}   {figure.verdict}")


def _cell(figure: Figure, other: Figure | None) -> str:
    if other is None:
        return f" {'-':>14} {'-':>9}"
    both_took = min(figure.value, other.value) > 0  # news may be there before the answer
    ratio = f"{figure.value / other.value:.3g}" if both_took else "-"
    return f" {_shown(other)} {ratio:>9}"


def _shown(figure: Figure) -> str:
    return f"{figure.value:>9.4g} {figure.unit:<4}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=30, help="how many, of each")
    parser.add_argument(
        "--only",
        type=_chosen,
        default=list(SIDES),
        metavar="SIDE[,SIDE]",
        help=f"some of {', '.join(SIDES)}; floods take turns with ours",
    )
    told = parser.parse_args()
    if told.nodes < NODES_MIN:
        parser.error(f"at least {NODES_MIN} nodes")
    if "serf" in told.only and shutil.which("serf") is None:
        others = ",".join(side for side in told.only if side != "serf") or "ours"
        print(
            f"bench_serf: serf is not installed: apt install serf, or --only {others}",
            file=sys.stderr,
        )
        sys.exit(NO_SERF)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names = [f"n{number:02}" for number in range(told.nodes)]
    together = [side for side in told.only if side != "serf"]
    try:
        measured = _measured(together, names) if together else {}
        if "serf" in told.only:
            measured |= _measured(["serf"], names)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    if len(measured) > 1:
        _beside(measured)


if __name__ == "__main__":
    main()
