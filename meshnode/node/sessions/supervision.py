"""Starting a session: its record at the node, then its supervisor in the caller's surroundings.

Invariant: the supervisor inherits directory, umask and environment from the caller, and nothing of
them is stored; keys never reach the agent's environment.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.agents.agent import FAILED
from meshnode.agents.environment import agent_environment, uncoerced
from meshnode.agents.lifetime import TIMED_OUT
from meshnode.agents.signals import NOTED
from meshnode.agents.supervise import IS_OVER, NOT_STARTED
from meshnode.app.sessions.opening import ADAPTERS, Opening, check_opening
from meshnode.client.targets.targets import NewSession
from meshnode.core.errors import MeshError
from meshnode.core.sessions.sessions import TERMINAL, State
from meshnode.node.containers import check_here
from meshnode.node.init import become
from meshnode.node.names import user_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from meshnode.client.home import Home
    from meshnode.client.mesh import MeshClient

READY_WAIT_S = 20.0  # for a supervisor to be ready, on the busiest machine; then the node waits
SAID_BYTES_MAX = 4096


class RunOptions(msgspec.Struct, frozen=True):
    """What `run` was told.

    `on_session` hears of a detached session. In front its supervisor shows the lines of `said`:
    were they written before there is one, who does not read them would hold up the agent.
    """

    command: tuple[str, ...]
    on_session: Callable[[dict[str, Any]], None]
    said: Callable[[dict[str, Any]], Sequence[str]]
    agent_id: str = ""
    title: str = ""
    specializations: tuple[str, ...] = ()
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    owner: str = ""
    steer_format: str = "text"
    interrupt: str = ""
    adapter: str = ADAPTERS[0]
    timeout_s: int = 0  # then it is stopped; 0: never
    idle_timeout_s: int = 0  # the same, from the last that happened on
    detach: bool = False
    descriptors: tuple[int, ...] = ()  # beside 0 to 2, for an agent in front


def descriptors_given() -> tuple[int, ...]:
    """Return what our caller has opened for its child beside stdin, stdout and stderr.

    `CMD <(...)` of a shell is one. What we open ourselves is never inheritable.
    """
    try:
        listed = os.listdir("/proc/self/fd")  # noqa: PTH208 - names are what is wanted
    except OSError:  # no /proc: then no agent is supervised either, which is told in its place
        return ()
    given = []
    for fd in map(int, listed):
        with suppress(OSError):  # the list's own is closed by now
            if fd > 2 and os.get_inheritable(fd):  # noqa: PLR2004 - stdin, stdout, stderr
                given.append(fd)
    return tuple(given)


def run(home: Home, client: MeshClient, options: RunOptions) -> int:
    """Start an agent under supervision; an error says whether an agent may run for all that.

    Detached, this returns 0 once the agent runs, or the code it already ended with. In the
    foreground it does not return: this process becomes the supervisor (see `init`), so that the
    terminal, its signals and the exit code are the agent's own.
    """
    try:
        check_here(home)
        opened = client.open_session(_session_of(options))
    except MeshError as error:
        raise _not_started(error) from None
    environment = agent_environment(uncoerced(os.environ), opened, str(home.socket))
    del opened["ticket"]  # the agent's alone: what is shown or kept of a session has none
    said = [] if options.detach else options.said(opened)
    argv = _supervisor_argv(opened, options, said)
    if not options.detach:
        become(argv, environment, NOTED)
    if why := _start_detached(argv, environment):
        is_over = IS_OVER in why
        raise MeshError(why, "" if is_over else f"look at the disk: df -h {home.path}")
    try:
        session = client.attach_session(opened["session_id"])
    except MeshError as error:
        raise _not_seen(error, opened["session_id"]) from None
    options.on_session(session)
    return _code_of(session)


def check(options: RunOptions) -> None:
    """Raise UsageError for what no node would accept, before one is started for it."""
    session = _session_of(options)
    check_opening(
        Opening(
            agent_id=session.agent_id,
            title=session.title,
            specializations=session.specializations,
            labels=session.labels,
            owner=session.owner,
            adapter=session.adapter,
        )
    )


def _session_of(options: RunOptions) -> NewSession:
    return NewSession(
        agent_id=options.agent_id,
        title=options.title,
        specializations=options.specializations,
        labels=options.labels,
        owner=options.owner or user_name(),
        cwd=_shown(_directory()),
        steer_format=options.steer_format,
        interrupt=options.interrupt,
        adapter=options.adapter,
    )


def _directory() -> str:
    """Return where the caller is, which may have been removed since; empty if nothing tells."""
    with suppress(FileNotFoundError):
        return os.getcwd()  # noqa: PTH109 - a text is what is shown
    with suppress(OSError):
        return os.readlink("/proc/self/cwd")  # noqa: PTH115 - as above; it says "(deleted)"
    return ""


def _not_started(error: MeshError) -> MeshError:
    error.message = f"{NOT_STARTED}: {error.message}"
    return error


def fail_in_front(error: MeshError) -> None:
    """Let what kept a session from beginning end `run` with a code that is not its agent's own."""
    error.exit_code = FAILED


def _not_seen(error: MeshError, session_id: str) -> MeshError:
    """Word what went wrong after the agent's supervisor was up, which goes on without its node."""
    error.message = f"session {session_id} was started, but: {error.message}"
    error.hint = f"session-mesh show {session_id}"
    return error


def _start_detached(argv: Sequence[str], environment: Mapping[str, str]) -> str:
    """Start a supervisor; returns what it said if it failed before it could start the agent."""
    with subprocess.Popen(  # noqa: S603 - our own interpreter and module
        argv,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        said = b""
        if process.stderr is not None:  # closed by the supervisor once it is ready
            readable, _, _ = select.select([process.stderr], [], [], READY_WAIT_S)
            said = process.stderr.read(SAID_BYTES_MAX) if readable else b""
        process.returncode = 0  # it lives on: leaving the block must not wait for it
    text = said.decode(errors="replace").strip()
    return text.removeprefix("session-mesh: ") if NOT_STARTED in text else ""


def _shown(word: str) -> str:
    """Names of files need not be UTF-8; what the mesh shows of them is."""
    return os.fsencode(word).decode(errors="replace")


def _supervisor_argv(opened: dict[str, Any], options: RunOptions, said: Iterable[str]) -> list[str]:
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
        "--interrupt",
        options.interrupt,
        "--timeout",
        str(options.timeout_s),
        "--idle-timeout",
        str(options.idle_timeout_s),
        "--adapter",
        options.adapter,
        *(["--detached"] if options.detach else []),
        *(f"--descriptor={fd}" for fd in options.descriptors),
        *(f"--say={line}" for line in said),
        "--",
        *options.command,
    ]


def _code_of(session: dict[str, Any]) -> int:
    if session["state"] not in TERMINAL - {State.CLOSED}:
        return 0
    if session["state"] == State.EXPIRED:
        return TIMED_OUT
    return int(session["exit_code"] or 1)
