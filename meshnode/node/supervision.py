"""Starting a session: its record at the node, then its supervisor in the caller's surroundings.

Invariant: the supervisor inherits directory, umask and environment from the caller, and nothing of
them is stored; keys never reach the agent's environment.
"""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from meshnode.agents.environment import agent_environment
from meshnode.client.targets import NewSession

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshnode.client.home import Home
    from meshnode.client.mesh import MeshClient


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What `run` was told. `on_session` hears of the session before its agent starts."""

    command: tuple[str, ...]
    on_session: Callable[[dict[str, Any]], None]
    agent_id: str = ""
    title: str = ""
    specializations: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    owner: str = ""
    steer_format: str = "text"
    detach: bool = False


def run(home: Home, client: MeshClient, options: RunOptions) -> int:
    """Start an agent under supervision.

    Detached, this returns 0 once the agent runs, or the code it already ended with. In the
    foreground it does not return: this process becomes the supervisor, so that the terminal, its
    signals and the exit code are the agent's own.
    """
    opened = client.open_session(
        NewSession(
            agent_id=options.agent_id,
            title=options.title,
            specializations=options.specializations,
            labels=options.labels,
            owner=options.owner or getpass.getuser(),
            cwd=_shown(str(Path.cwd())),
            command=tuple(map(_shown, options.command)),
            steer_format=options.steer_format,
        )
    )
    argv = _supervisor_argv(opened, options)
    environment = agent_environment(os.environ, opened, str(home.socket))
    del opened["ticket"]  # the agent's alone: what is shown or kept of a session has none
    if not options.detach:
        options.on_session(opened)
        _become(argv, environment)
    subprocess.Popen(  # noqa: S603 - our own interpreter and module
        argv,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    session = client.attach_session(opened["session_id"])
    options.on_session(session)
    return _code_of(session)


def _shown(word: str) -> str:
    """Names of files need not be UTF-8; what the mesh shows of them is."""
    return os.fsencode(word).decode(errors="replace")


def _supervisor_argv(opened: dict[str, Any], options: RunOptions) -> list[str]:
    return [
        sys.executable,
        "-P",  # the caller's directory must not shadow our modules
        "-m",
        "meshnode.agents.supervise",
        "--directory",
        opened["directory"],
        "--socket",
        opened["socket"],
        "--session-id",
        opened["session_id"],
        "--steer-format",
        options.steer_format,
        *(["--detached"] if options.detach else []),
        "--",
        *options.command,
    ]


def _become(argv: list[str], environment: Mapping[str, str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(argv[0], argv, environment)  # noqa: S606 - our own interpreter and module


def _code_of(session: dict[str, Any]) -> int:
    if session["state"] in {"pending", "running", "closed"}:
        return 0
    return int(session["exit_code"] or 1)
