"""Starting a node in the background, what of it is not kept, and its first news of others."""

import time
from typing import Any

from meshnode.client.connection.silence import pid_of
from meshnode.client.errors import ConflictError, UnreachableError
from meshnode.client.home import Home
from meshnode.client.mesh import MeshClient
from meshnode.client.targets.nodes import is_awaited
from meshnode.node.configuration.options import UpOptions
from meshnode.node.main import READY_WAIT_S, up_detached
from session_mesh.call import Call
from session_mesh.nodes.stopping import lives
from session_mesh.output import words

ASKED_EVERY_S = 0.1
NEWS_WAIT_S = 3.0  # for the tables of those whom a node has joined; they go on coming


def start(home: Home, listen: str | None = None) -> dict[str, Any]:
    """Start a detached node with what its configuration says; returns its ready event."""
    return up_detached(home, UpOptions(listen=listen))


def start_unless_another_does(home: Home) -> str:
    """Have a node, whoever starts it; returns in words how it came to be there."""
    try:
        ready = start(home)
        new = f"; {home.path} is new, and so is its mesh" if ready.get("founded") else ""
        return f"no node was running: started {ready['name']} in the background{new}"
    except ConflictError as refusal:
        name = _await_another(home, refusal)["name"]
        return f"no node was running: another command has just started {name}"


def _await_another(home: Home, refusal: ConflictError) -> dict[str, Any]:
    """Ask until the node answers that holds this home; raises the refusal if none does."""
    for _ in range(int(READY_WAIT_S / ASKED_EVERY_S)):
        try:
            with MeshClient(home) as mesh:
                return mesh.status()
        except UnreachableError:
            time.sleep(ASKED_EVERY_S)
        pid = pid_of(home)
        if not (pid.isdecimal() and lives(int(pid))):  # something else was in our node's way
            break
    raise refusal


def await_news(call: Call) -> list[str]:
    """Wait a while until there is something of all members; returns who is missing if there is not.

    Whoever asks at once what the mesh has spent would else be told of this node alone.
    """
    missing: list[str] = []
    with call.mesh() as mesh:
        for asked in range(int(NEWS_WAIT_S / ASKED_EVERY_S)):
            listed = mesh.nodes()
            if not any(map(is_awaited, listed["nodes"])):
                return []
            missing = words.coverage_notes(listed["coverage"])
            if not asked:
                call.streams.tell("waiting for the tables of the other members")
            time.sleep(ASKED_EVERY_S)
    return missing


def notes_on(home: Home, options: UpOptions) -> list[str]:
    """Say which flags the next start will not know of, and how it will."""
    from meshnode.node.configuration.configuring import not_kept  # noqa: PLC0415 - YAML, and the readers of logs

    lines, file = not_kept(home, options), options.config or home.config
    if not lines:
        return []
    return [
        f"these flags hold until it is down; to keep them, write into {file}:",
        *(f"  {line}" for line in lines),
    ]
