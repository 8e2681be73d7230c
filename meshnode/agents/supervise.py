"""One session's supervisor: a small process that starts the agent and outlives the node.

    python -I -m meshnode.agents.supervise --directory DIR --socket SOCK --session-id ID -- CMD...

It keeps the agent's log and `state.json` in DIR, answers newline-delimited JSON on SOCK
(`info`, `steer`, `kill`, `close`, `suspend`, `resume`, `subscribe`) and stops, halts or lets go of
the whole process tree when told to.
This is its front: the command line, the order of starting, and what happens if we fail ourselves.

Invariant: once the agent is started, it never runs on without a supervisor: if we fail, it is
stopped. Standard library only: start-up must stay light.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from meshnode.agents import cgroup, tree
from meshnode.agents.agent import FAILED, Agent, reap, start, why_not_started
from meshnode.agents.clients import Door
from meshnode.agents.log import Log
from meshnode.agents.options import options_of
from meshnode.agents.signals import Signals
from meshnode.agents.state_file import OverError, StateFile
from meshnode.agents.supervisor import Supervisor
from meshnode.agents.terminal import opened
from meshnode.app.sessions.opening import PTY

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshnode.agents.options import Options

PR_SET_CHILD_SUBREAPER = 36
NOT_STARTED = "the agent was not started"
IS_OVER = "its session is over already"


def main(argv: list[str]) -> int:
    """Run one supervisor; returns the agent's exit code, 124 if it timed out, or 125 to 127.

    For a 0 it is 1 if the caller lacks some of its output.
    """
    _open_missing_streams()
    try:
        return _supervise(
            options_of(argv),
            clock=time.monotonic,  # noqa: TID251  # the composition root of this program
            wall_clock=time.time,  # noqa: TID251 - the same
        )
    except SystemExit:  # argparse has said what is wrong
        return FAILED
    except Exception as error:  # noqa: BLE001  # 125 is the answer to whatever failed here
        sys.stderr.write(f"session-mesh: the supervisor failed: {error}\n")
        return FAILED


def _supervise(
    options: Options, *, clock: Callable[[], float], wall_clock: Callable[[], float]
) -> int:
    group = cgroup.create(options.session_id, apart=options.detached)
    try:
        state = StateFile(options.directory, options.session_id, group, clock=wall_clock)
        log = Log(options.directory, wall_clock)
        door = Door(options.socket)
        signals = Signals(in_group=not options.detached and options.adapter != PTY)
    except (OSError, OverError) as error:
        if group is not None:
            group.remove()
        sys.stderr.write(f"session-mesh: {NOT_STARTED}: {_why(error, options)}\n")
        return FAILED
    if options.detached:
        _leave_the_terminal()
    try:
        _adopt_orphans()
        with opened(options.adapter, in_front=not options.detached) as terminal:
            try:
                process = start(options, group, terminal, signals.let_through)
            except OSError as error:
                return _not_started(options, state, log, error)
            session_id, detached = options.session_id, options.detached
            agent = Agent(process, log, group, terminal, session_id=session_id, detached=detached)
            agent.say(*options.said)
            return Supervisor(options, agent, state, door, signals, clock=clock).run()
    except Exception as error:
        # Whatever went wrong here, an agent without a supervisor must not stay behind.
        tree.stop_tree(
            options.session_id,
            [state.supervisor],
            grace_s=0.0,
            force=True,
            clock=clock,
            reach=tree.Reach(group),
        )
        for _ in reap():
            pass
        state.ended(FAILED, None, f"its supervisor failed: {type(error).__name__}: {error}")
        door.announce({"event": "ended", **state.fields})
        raise
    finally:
        door.close()
        options.socket.unlink(missing_ok=True)
        if group is not None:
            group.remove()


def _why(error: OSError | OverError, options: Options) -> str:
    if isinstance(error, OverError):
        return IS_OVER
    return f"{(error.strerror or str(error)).lower()} ({options.directory})"


def _not_started(options: Options, state: StateFile, log: Log, error: OSError) -> int:
    code, why = why_not_started(error)
    # A name in argv may be any bytes; what the node records of it is UTF-8.
    reason = f"{options.command[0]}: {why}".encode(errors="replace").decode()
    message = f"session-mesh: {reason}\n"
    log.write(message.encode())
    if not options.detached:
        sys.stderr.writelines([*(f"{line}\n" for line in options.said), message])
    state.ended(code, None, reason)
    return code


def _adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies: a double fork stays ours."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become the subreaper")


def _open_missing_streams() -> None:
    """Give 0, 1 and 2 something harmless if the caller closed them, before a socket takes them."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004  # stdin, stdout, stderr
        os.set_inheritable(fd, True)  # noqa: FBT003 - os names no parameter
    os.close(fd)


def _leave_the_terminal() -> None:
    with suppress(PermissionError):  # the caller has made us a session's leader already
        os.setsid()
    fd = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(fd, stream)
    os.close(fd)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
