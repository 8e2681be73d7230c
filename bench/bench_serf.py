"""Thirty nodes beside thirty agents of serf: joining, news, a crash, a freeze, and doing nothing.

Both are the real programs with their defaults, on loopback, one after the other. What a member
notices is heard from itself: serf streams events and its log over its RPC port; a node of ours runs
with `observe` around its protocol core, which writes a line for each change it has taken.
Every instant is when this process heard of it, so both are measured with one ruler; for ours the
node's own instants are given too (perf_counter is one clock for all processes of a machine).

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
from typing import TYPE_CHECKING

from report import Figure, table
from serf.measures import measure
from serf.ours import Ours
from serf.theirs import Serf

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from serf.side import Side

NODES_MIN = 3
NO_SERF = 2
INTERRUPTED = 130


def _measured(make: Callable[[Sequence[str], ExitStack], Side], names: list[str]) -> list[Figure]:
    load_before = os.getloadavg()[0]
    with ExitStack() as stack:
        side = make(names, stack)
        figures = measure(side, random.Random(len(names)))
        title = f"{side.title}; load {load_before:.1f} before, {os.getloadavg()[0]:.1f} at the end"
    if isinstance(side, Serf):
        figures = [replace(figure, at_most=None) for figure in figures]  # the limits are ours
    table(title, figures)
    return figures


def _beside(ours: Sequence[Figure], theirs: Sequence[Figure]) -> None:
    print(f"\n  {'side by side':<52} {'ours':>14} {'serf':>14}   serf / ours")
    known = {figure.what: figure for figure in theirs}
    for figure in ours:
        other = known.get(figure.what)
        if other is not None:
            ratio = f"{other.value / figure.value:.2g}" if figure.value > 0 else "-"
            shown = [f"{one.value:>9.4g} {one.unit:<4}" for one in (figure, other)]
            print(f"  {figure.what:<52} {' '.join(shown)} {ratio:>9}   {figure.verdict}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=30, help="how many, of each")
    parser.add_argument("--only", choices=["ours", "serf"], help="one side")
    chosen = parser.parse_args()
    if chosen.nodes < NODES_MIN:
        parser.error(f"at least {NODES_MIN} nodes")
    if chosen.only != "ours" and shutil.which("serf") is None:
        print(
            "bench_serf: serf is not installed: apt install serf, or --only ours", file=sys.stderr
        )
        sys.exit(NO_SERF)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names = [f"n{number:02}" for number in range(chosen.nodes)]
    try:
        ours = [] if chosen.only == "serf" else _measured(Ours, names)
        theirs = [] if chosen.only == "ours" else _measured(Serf, names)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    if ours and theirs:
        _beside(ours, theirs)


if __name__ == "__main__":
    main()
