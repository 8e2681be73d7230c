"""Stopping a node, and waiting until it is gone, so that `down && up` works."""

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from meshnode.client.errors import UnreachableError, UsageError
from session_mesh.output.render import View

if TYPE_CHECKING:
    from meshnode.client.mesh import MeshClient
    from session_mesh.call import Call

WAIT_S = 30.0
POLL_S = 0.02
_WORDS = {None: "", True: "close", False: "keep"}


def stop(call: "Call", mesh: "MeshClient", *, leave: bool, close: bool | None) -> View:
    """Stop the node and wait for its process to end; raises UnreachableError if it does not.

    With sessions alive somebody must have said what becomes of them: raises UsageError.
    Raises RefusedError where its process could not be seen to end.
    """
    from meshnode.node.containers import check_here  # noqa: PLC0415 - as psutil, for this verb alone

    check_here(call.home)
    status = mesh.status()
    pid = int(status["pid"])
    if status["sessions"] and close is None:
        raise UsageError(
            f"sessions alive on this node: {status['sessions']}",
            "say --keep-sessions or --close-sessions",
        )
    value = mesh.stop(leave=leave, sessions=_WORDS[close])
    polls = int(WAIT_S / POLL_S)
    while lives(pid):
        polls -= 1
        if not polls:
            raise UnreachableError(
                f"the node answered but its process {pid} has not ended", "look at its node.log"
            )
        time.sleep(POLL_S)
    if leave and value["members"] and not value["links"]:
        forget = f"session-mesh nodes forget {status['name']}"
        said = "nobody has heard it, for no neighbour was linked, and this node never says it again"
        call.streams.tell(f"warning: {said}: others show it as unreachable until one says {forget}")
    sessions = f"; sessions kept: {value['kept']}, closed: {value['closed']}"
    told = sessions if value["kept"] or value["closed"] else ""
    return View(value=value, human=f"{'left' if leave else 'stopped'}{told}")


def lives(pid: int) -> bool:
    """Whether a process is there, other than as one that nobody has waited for."""
    import psutil  # noqa: PLC0415 - knows an ended child that nobody has waited for

    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False
