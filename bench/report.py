"""What all benches share: a fleet of real nodes, and how a table of figures is printed.

Run a bench on an otherwise idle machine; the figures of record are in docs/performance.md.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))  # the fleet that e2e tests drive

from copying import copied
from e2e import fleet as fleet_module
from e2e.fleet import PROGRAM, Fleet, Node, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "PROGRAM",
    "Figure",
    "Fleet",
    "Node",
    "copied",
    "spread",
    "table",
    "wait_for_nodes",
    "wait_until",
]


@dataclass(frozen=True)
class Figure:
    """One measured line: what, how much, and the most it should be."""

    what: str
    value: float
    unit: str
    at_most: float | None = None

    @property
    def verdict(self) -> str:
        """`ok`, or by how much it is over."""
        if self.at_most is None:
            return ""
        ratio = self.value / self.at_most
        return f"ok ({ratio:.0%} of the limit)" if ratio <= 1 else f"OVER: {ratio:.2f} x the limit"


def wait_for_nodes(patience_s: float) -> None:
    """Give nodes longer to come up than tests do."""
    fleet_module.PATIENCE_S = patience_s


def spread(what: str, values: Sequence[float], unit: str, at_most: float) -> list[Figure]:
    """Turn samples into their median and their worst; the limit is for the worst."""
    return [
        Figure(f"{what}, median of {len(values)}", statistics.median(values), unit),
        Figure(f"{what}, worst", max(values), unit, at_most),
    ]


def table(title: str, figures: Sequence[Figure]) -> None:
    """Print figures with their limits."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(f"\n{title}  ({machine})")
    for figure in figures:
        limit = "" if figure.at_most is None else f"<= {figure.at_most:g} {figure.unit}"
        measured = f"{figure.value:>9.4g} {figure.unit:<4}"
        print(f"  {figure.what:<52} {measured} {limit:<12} {figure.verdict}")
