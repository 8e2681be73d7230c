"""MeshErrors over gRPC: a status, and JSON {code, message, hint} in the trailing metadata.

Invariant: a caller never sees the text of an unexpected exception; the node's log does.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import TYPE_CHECKING, Any, NoReturn, cast

import grpc
import grpc.aio

from meshnode.core.errors import (
    BY_CODE,
    ClockError,
    ConflictError,
    ExhaustedError,
    ExpiredError,
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
    fields_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

ERROR_KEY = "session-mesh-error-bin"
ERROR_BYTES_MAX = 4096  # gRPC may drop a call whose metadata exceed 8 KiB: longer texts are cut
DETAILS_CHARS_MAX = 200  # of the plain text beside it, in which a character may cost 12 bytes
BEFORE = re.compile(  # what it says before it comes to the point: a status, and whom it called
    r"^(?:[A-Z_]+: +)?(?:(?:ipv[46]|unix|dns):\S+ +)?(?:Failed to connect to remote host: +)?"
    r"(?:connect: +)?"
)
CLOSED = ("Connection reset", "Socket closed")  # as gRPC words it
_STATUS: dict[type[MeshError], grpc.StatusCode] = {
    UsageError: grpc.StatusCode.INVALID_ARGUMENT,
    PeerError: grpc.StatusCode.INVALID_ARGUMENT,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    NotAuthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    NotPermittedError: grpc.StatusCode.PERMISSION_DENIED,
    UnreachableError: grpc.StatusCode.DEADLINE_EXCEEDED,
    NoAnswerError: grpc.StatusCode.DEADLINE_EXCEEDED,
    ExpiredError: grpc.StatusCode.FAILED_PRECONDITION,
    ConflictError: grpc.StatusCode.ALREADY_EXISTS,
    StaleError: grpc.StatusCode.ABORTED,
    RefusedError: grpc.StatusCode.FAILED_PRECONDITION,
    ClockError: grpc.StatusCode.FAILED_PRECONDITION,
    ExhaustedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_log = logging.getLogger("session_mesh.rpc")


async def refuse(context: grpc.aio.ServicerContext[Any, Any], error: BaseException) -> NoReturn:
    """End a call with an error that says what to do, or with as little as possible."""
    if not isinstance(error, MeshError):
        _log.error("internal error while answering a call", exc_info=error)
        error = MeshError("internal error in the node", "its log says more; please report it")
    await context.abort(
        _STATUS.get(BY_CODE.get(error.code, MeshError), grpc.StatusCode.INTERNAL),
        error.message[:DETAILS_CHARS_MAX],
        ((ERROR_KEY, _packed(error)),),
    )


def _packed(error: MeshError) -> bytes:
    fields = fields_of(error)
    packed = json.dumps(fields).encode()
    chars_max = max(map(len, fields.values()))
    while len(packed) > ERROR_BYTES_MAX:
        chars_max //= 2
        packed = json.dumps({key: text[:chars_max] for key, text in fields.items()}).encode()
    return packed


def error_from(failure: grpc.RpcError, peer: str) -> MeshError:
    """Rebuild the MeshError that a peer ended a call with, or say how the call failed."""
    call = cast("grpc.aio.AioRpcError", failure)  # the same methods, in grpc and in grpc.aio
    for key, value in _pairs(call.trailing_metadata()):
        if key == ERROR_KEY and isinstance(value, bytes):
            return _rebuild(value)
    if call.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return NoAnswerError(f"{peer} did not answer in time")
    return UnreachableError(f"cannot reach {peer}: {reason_of(call)}")


def reason_of(failure: grpc.aio.AioRpcError) -> str:
    """Say why a connection failed, as gRPC does behind its status and the address."""
    details = (failure.details() or failure.code().name).splitlines()[0]
    details = details.removeprefix("failed to connect to all addresses; last error: ")
    return (BEFORE.sub("", details) or details)[:200]


def was_closed_on_us(failure: grpc.RpcError) -> bool:
    """Whether the connection was taken and closed at once, as a listener does that is full."""
    details = cast("grpc.aio.AioRpcError", failure).details() or ""
    return any(words in details for words in CLOSED)


def reason_of_dial(error: Exception) -> str:
    """Say why a dial failed; what nobody foresaw is in the log too."""
    if isinstance(error, grpc.aio.AioRpcError):
        return error_from(error, "it").message
    if not isinstance(error, MeshError | asyncio.InvalidStateError | OSError):
        _log.error("internal error while dialling", exc_info=error)
    return str(error)


def reason_of_end(code: grpc.StatusCode, details: str) -> str:
    """Say why a peer ended a stream before it began."""
    return details[:200] or code.name


def _pairs(metadata: Any) -> Sequence[tuple[str, str | bytes]]:  # noqa: ANN401 - grpc's own type
    return tuple(metadata or ())


def _rebuild(value: bytes) -> MeshError:
    try:
        return error_of(json.loads(value))
    except (ValueError, RecursionError):
        return error_of(None)
