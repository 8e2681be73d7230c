"""Nodes whose machine has a wrong clock: a library in front of libc says so."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from e2e.fleet import Node

if TYPE_CHECKING:
    from e2e.fleet import Fleet

SOURCE = Path(__file__).with_name("faked_time") / "clock.c"


@dataclass
class Surrounded(Node):
    """A node in an environment of its own."""

    extra: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | self.extra


def clock_library_in(directory: Path) -> Path:
    """Compile the library; skips the test where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("a wrong clock is made by a library that wants a C compiler")
    library = directory / "clock.so"
    made = [compiler, "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(made, check=True)
    return library


def with_clock_off(fleet: Fleet, name: str, library: Path, offset_s: int) -> Node:
    """Return a node of the fleet, not started, whose clock is that much ahead."""
    extra = {"LD_PRELOAD": str(library), "SM_TEST_CLOCK_OFFSET_S": str(offset_s)}
    node = Surrounded(fleet.directory / name, name, extra=extra)
    fleet.nodes.append(node)
    return node
