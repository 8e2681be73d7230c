"""What really runs on this machine: the tour believes /proc, not only the mesh's own word.

Agents, what they start, and their supervisors carry the mesh's marks in their environment. Nodes,
and shells in which somebody tries the tour's commands, do not carry the mark looked for here.
"""

from contextlib import suppress
from pathlib import Path

import psutil

SESSION_MARK = "SESSION_MESH_SESSION_ID"
SOCKET_MARK = "SESSION_MESH_SOCKET"
SWEEPS_MAX = 50  # of at least 0.1 s each, until nothing new turns up
SWEEP_WAIT_S = 0.1


def of_session(session_id: str) -> list[psutil.Process]:
    """Find every process of a session: its supervisor, its agent, and all that they started."""
    return [one for one in psutil.process_iter() if _mark(one, SESSION_MARK) == session_id]


def below(directory: Path) -> list[psutil.Process]:
    """Find every process of every session whose node keeps its home in a directory."""
    return [one for one in psutil.process_iter() if _is_below(_mark(one, SOCKET_MARK), directory)]


def still_there(those: list[psutil.Process]) -> list[int]:
    """Return the pids of those that run on; a pid that somebody else has got since is none."""
    return [one.pid for one in those if _runs(one)]


def end_all(directory: Path) -> list[int]:
    """End all that is `below` a directory, without mercy; returns who is left, usually nobody."""
    for _ in range(SWEEPS_MAX):
        found = below(directory)
        if not found:
            return []
        for one in found:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(found, timeout=SWEEP_WAIT_S)
    return [one.pid for one in below(directory)]


def described(those: list[psutil.Process]) -> str:
    """Name processes by what they are."""
    return ", ".join(f"{_role(one)} {one.pid}" for one in those)


def _role(one: psutil.Process) -> str:
    with suppress(psutil.Error):
        words = one.cmdline()
        if "meshnode.agents.supervise" in words:
            return "supervisor"
        return "helper" if "--helper" in words else "agent"
    return "process"


def _mark(one: psutil.Process, name: str) -> str:
    with suppress(psutil.Error, OSError):
        if _runs(one):
            return one.environ().get(name, "")
    return ""


def _is_below(path: str, directory: Path) -> bool:
    return bool(path) and Path(path).is_relative_to(directory)


def _runs(one: psutil.Process) -> bool:
    try:
        return one.is_running() and one.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
