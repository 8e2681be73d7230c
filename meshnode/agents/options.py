"""What a supervisor is told on its command line."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from meshnode.app.sessions.opening import ADAPTERS


class Options(msgspec.Struct, frozen=True):
    """What the supervisor is told on its command line; the paths are absolute."""

    directory: Path
    socket: Path
    session_id: str
    steer_format: str
    interrupt: str  # a signal (INT) for steers that shall be heard now; empty: none
    grace_s: float
    timeout_s: float  # until it is stopped; 0: never
    idle_timeout_s: float  # the same, from the last that happened on
    detached: bool
    adapter: str
    descriptors: tuple[int, ...]  # of our caller, for the agent; beside 0 to 2
    said: tuple[str, ...]  # lines for who waits in front, once the agent is started
    command: tuple[str, ...]


def options_of(argv: list[str]) -> Options:
    """Read a command line; ends the process with a sentence if it makes no sense."""
    parser = argparse.ArgumentParser(prog="session-mesh-supervise", allow_abbrev=False)
    parser.add_argument("--directory", type=_path, required=True)
    parser.add_argument("--socket", type=_path, required=True)
    parser.add_argument("--session-id", required=True)
    parser.add_argument("--steer-format", choices=("none", "text", "json"), default="text")
    parser.add_argument("--interrupt", choices=("", "INT", "USR1", "USR2"), default="")
    parser.add_argument("--grace", dest="grace_s", metavar="GRACE", type=float, default=5.0)
    parser.add_argument("--timeout", dest="timeout_s", metavar="S", type=float, default=0.0)
    parser.add_argument("--idle-timeout", dest="idle_timeout_s", metavar="S", type=float, default=0)
    parser.add_argument("--adapter", choices=ADAPTERS, default=ADAPTERS[0])
    parser.add_argument("--say", dest="said", metavar="LINE", action="append", default=[])
    parser.add_argument("--descriptor", dest="descriptors", type=int, action="append", default=[])
    parser.add_argument("--detached", action="store_true")
    at = argv.index("--") if "--" in argv else len(argv)
    own, command = argv[:at], argv[at + 1 :]
    options = vars(parser.parse_args(own))
    if not command:
        parser.error("a command is missing after --")
    options |= {name: tuple(options[name]) for name in ("said", "descriptors")}
    return Options(**options, command=tuple(command))


def _path(text: str) -> Path:
    return Path(text).absolute()
