"""ccusage, the tool that users compare with: installed into a directory of its own, by npm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

VERSION = "20.0.24"
PATIENCE_S = 120.0


def install(directory: Path) -> Path | str:
    """Install it; return its program, or the reason why there is none."""
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not installed, which ccusage is installed with"
    directory.mkdir(parents=True, exist_ok=True)
    quiet = ("--silent", "--no-fund", "--no-audit", "--ignore-scripts")
    command = [npm, "install", *quiet, "--prefix", str(directory), f"ccusage@{VERSION}"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)
    except (subprocess.SubprocessError, OSError) as error:
        return f"npm could not install ccusage {VERSION}: {error}"
    programs = sorted(directory.glob("node_modules/@ccusage/*/bin/ccusage*"))
    if not programs:
        return f"ccusage {VERSION} has no program for this machine"
    programs[0].chmod(0o755)
    return programs[0]


def command_of(
    program: Path,
    root: Path,
    *more: str,
    report: str = "daily",
    tz: str = "UTC",
    source: str = "claude",
) -> tuple[list[str], dict[str, str]]:
    """Return what sums the transcripts under a root, and the environment it is to run in."""
    command = [str(program), source, report, "--offline", "--json", "--timezone", tz, *more]
    places = {"CLAUDE_CONFIG_DIR": str(root), "CODEX_HOME": str(root), "HOME": str(root)}
    return command, os.environ | places


def report(
    program: Path, root: Path, name: str, *more: str, tz: str = "UTC", source: str = "claude"
) -> list[dict[str, Any]]:
    """Return the rows of its report `daily`, `weekly`, `monthly` or `blocks`."""
    command, environment = command_of(program, root, *more, report=name, tz=tz, source=source)
    done = subprocess.run(
        command, env=environment, check=True, capture_output=True, timeout=PATIENCE_S
    )
    rows: list[dict[str, Any]] = json.loads(done.stdout)[name]
    return rows
