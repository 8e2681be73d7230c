"""The errors of the mesh, for front ends, and how a failed call becomes one of them.

Invariant: a caller of the client sees a MeshError or nothing; never an exception of gRPC.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from meshnode.core.errors import (
    TEXT_CHARS_MAX,
    ConflictError,
    DamagedError,
    MeshError,
    NoAnswerError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
    PeerError,
    RefusedError,
    StaleError,
    UnreachableError,
    UsageError,
    error_of,
)

if TYPE_CHECKING:
    import grpc

    from meshnode.client.home import Home

__all__ = [
    "ConflictError",
    "DamagedError",
    "MeshError",
    "NoAnswerError",
    "NoNodeError",
    "NotAuthenticatedError",
    "NotFoundError",
    "NotPermittedError",
    "PeerError",
    "RefusedError",
    "SilentNodeError",
    "StaleError",
    "UnreachableError",
    "UsageError",
    "error_from",
]

NO_NODE = "no node is running on this home"
GENESIS_BACK = "put it back from a backup, or enter a mesh with a new invite: session-mesh join -"
ERROR_KEY = "session-mesh-error-bin"
NEVER_CONNECTED = "failed to connect"  # how gRPC begins what it says then


class NoNodeError(UnreachableError):
    """Nobody listens on the socket of this home. Nothing changed.

    `pid`: a node that runs on the home nevertheless, if one is known to.
    """

    def __init__(self, home: Home | None = None, pid: int | None = None) -> None:
        self.pid = pid
        if pid is not None:
            super().__init__(f"the node (pid {pid}) has no socket that answers", socket_hint(pid))
            return
        message = NO_NODE if home is None else f"{NO_NODE}: {home.path}"
        if home is None or home.initialised:
            super().__init__(message, "start one: session-mesh up --detach")
            return
        if home.lacks_genesis:
            super().__init__(f"{message}, whose {home.genesis.name} is missing", GENESIS_BACK)
            return
        # Who has lost SESSION_MESH_HOME, or runs sudo, would found a second mesh.
        is_there = home.path.exists()
        super().__init__(
            f"{message}, which {'belongs to no mesh' if is_there else 'does not exist'}",
            "if you have a home elsewhere: --home DIR or SESSION_MESH_HOME, also with sudo;"
            " to enter a mesh that there is: session-mesh join - --up, with an invite of it;"
            " to make one of your own: session-mesh up --detach",
        )


def socket_hint(pid: int) -> str:
    """Say how a node is reached again that runs, and has no socket that answers."""
    return (
        "wait 10 s: it has just begun, or is about to end, or somebody has removed its socket, and"
        f" it puts that back; if it stays so: kill {pid}, then session-mesh up --detach"
    )


class SilentNodeError(UnreachableError):
    """A process holds the socket of this home and does not answer. Whether it acted is unknown.

    `lasted_s` is how long it had been silent when that ended a stream.
    """

    def __init__(self, pid: str, lasted_s: float = 0.0) -> None:
        super().__init__(f"the node (pid {pid}) does not answer", "session-mesh doctor says why")
        self.lasted_s = lasted_s


def error_from(failure: grpc.RpcError) -> MeshError:
    """Rebuild what the node raised, or say in our words why the call failed."""
    for key, value in _pairs(failure.trailing_metadata()):
        if key == ERROR_KEY:
            return _rebuilt(value)
    code = failure.code().name
    match code:
        case "UNAVAILABLE":
            return NoNodeError()
        case "DEADLINE_EXCEEDED":
            return NoAnswerError("the node did not answer in time", "session-mesh doctor says why")
        case "UNIMPLEMENTED":
            return MeshError(
                "the running node is of another version and does not know this",
                "restart it: session-mesh down --keep-sessions, then session-mesh up --detach",
            )
        case _:
            details = str(failure.details() or code)[:TEXT_CHARS_MAX]
            return MeshError(f"the call to the node failed: {details}")


def was_heard(failure: grpc.RpcError) -> bool:
    """Whether the node was there when it was called, and ended before it answered."""
    return not str(failure.details() or "").startswith(NEVER_CONNECTED)


def _pairs(metadata: Any) -> tuple[tuple[str, Any], ...]:  # noqa: ANN401 - its stubs are off
    return tuple(metadata or ())


def _rebuilt(value: str | bytes) -> MeshError:
    try:
        return error_of(json.loads(value))
    except (ValueError, RecursionError):
        return error_of(None)
