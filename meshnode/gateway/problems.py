"""Every failure that a caller may meet over HTTP, as application/problem+json (RFC 9457).

Invariant: the status belongs to the class of the error or to the outcome, so that the command line
and HTTP agree; no text of an unexpected exception and no key is ever in an answer.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response

from meshnode.app.commands.bearers import KeyStateError
from meshnode.client.public import public
from meshnode.client.targets.targets import CANDIDATES_SHOWN_MAX, AmbiguousError
from meshnode.client.targets.wishes import EndedError
from meshnode.core.errors import (
    ClockError,
    ConflictError,
    ExhaustedError,
    ExpiredError,
    MeshError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
    PeerError,
    RefusedError,
    StaleError,
    StorageError,
    UnreachableError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meshnode.client.targets.targets import Target

MEDIA_TYPE = "application/problem+json"
RETRY_S = 1  # where nothing tells when it may work
TITLES = {
    400: "The request is off",
    401: "No good key",
    403: "Not permitted",
    404: "Not found",
    405: "No such method here",
    408: "The request came too slowly",
    409: "Conflict",
    410: "Ended",
    413: "Too large",
    415: "Not JSON",
    421: "Not the host that was asked for",
    429: "Too many requests",
    431: "Headers too large",
    500: "Failed",
    502: "The owner failed, or cannot tell",
    503: "Not now",
    504: "The owner was not reached in time",
}
STATUS_OF_ERROR: dict[type[MeshError], int] = {
    UsageError: 400,
    NotAuthenticatedError: 401,
    NotPermittedError: 403,
    NotFoundError: 404,
    EndedError: 410,
    ConflictError: 409,
    StaleError: 409,
    ExhaustedError: 429,
    ClockError: 503,
    RefusedError: 409,
    StorageError: 503,
    ExpiredError: 504,
    UnreachableError: 504,
    PeerError: 502,
}
STATUS_OF_OUTCOME = {
    "accepted": 200,
    "delivered": 200,
    "applied": 200,
    "queued": 200,
    "parked": 202,
    "unknown": 404,
    "refused": 409,
    "failed": 502,
    "indeterminate": 502,
    "expired": 504,
}
ROUTE_OF_COMMAND = {  # as hints name them, the longest first
    "session-mesh list --filter all": "GET /sessions?filter=all",
    "session-mesh list": "GET /sessions",
    "session-mesh nodes": "GET /api/session-mesh/nodes",
    "with it: session-mesh keys new": "with it: POST /api/session-mesh/keys",
}
CODE_OF_KEY = {"expired": "key_expired", "revoked": "key_revoked", "early": "key_early"}


class Problem(Exception):  # noqa: N818 - as RFC 9457 calls it
    """An answer that is no success; `more` are further members of its JSON."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        hint: str = "",
        more: Mapping[str, Any] | None = None,
        retry_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.hint = hint
        self.more = dict(more or {})
        needs_wait = status in {429, 503}
        self.retry_s = RETRY_S if needs_wait and retry_s is None else retry_s

    def content(self) -> bytes:
        """Return the JSON."""
        said = {
            "type": "about:blank",
            "title": TITLES.get(self.status, "Failed"),
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "hint": self.hint or None,
        }
        return msgspec.json.encode(said | self.more)

    def headers(self) -> dict[str, str]:
        """Return what belongs to such a status."""
        headers: dict[str, str] = {}
        if self.retry_s is not None:
            headers["retry-after"] = str(max(1, ceil(self.retry_s)))
        if self.status == 401:  # noqa: PLR2004 - the status itself
            headers["www-authenticate"] = 'Bearer realm="session-mesh"'
        return headers

    def response(self) -> Response:
        """Return the answer."""
        return Response(self.content(), self.status, self.headers(), MEDIA_TYPE)


def off(field: str, why: str, hint: str = "") -> Problem:
    """Say which field of a request is off."""
    return Problem(400, "usage", f"{field}: {why}", hint, {"field": field})


def problem_of(error: MeshError, more: Mapping[str, Any] | None = None) -> Problem:
    """Return what an error of the mesh is over HTTP, with further members."""
    kinds = (STATUS_OF_ERROR[kind] for kind in type(error).__mro__ if kind in STATUS_OF_ERROR)
    status = next(kinds, 500)
    code, hint, said = error.code, error.hint, dict(more or {})
    for command, named in ROUTE_OF_COMMAND.items():
        hint = hint.replace(command, named)
    if isinstance(error, KeyStateError):
        code = CODE_OF_KEY.get(error.state, code)
    if isinstance(error, EndedError):
        code = "ended"
    if isinstance(error, AmbiguousError):
        said["candidates"] = _candidates(error.candidates)
        hint = f"say which: {'node, or ' * error.by_node}session_id"
    return Problem(status, code, error.message, hint, said)


def partly_ambiguous(target: Target, seen: Sequence[dict[str, Any]]) -> Problem:
    """Say that a name fits several sessions, to who may see these of them alone."""
    detail = f"{str(target)!r} fits several sessions, of which this key may see {len(seen)}"
    hint = "say which: node, or session_id"
    return Problem(409, ConflictError.code, detail, hint, {"candidates": _candidates(seen)})


def _candidates(sessions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    names = ("session_id", "agent_id", "node_id", "node_name", "state")
    return [{name: one[name] for name in names} for one in sessions[:CANDIDATES_SHOWN_MAX]]


def answer_of(outcome: dict[str, Any]) -> Response:
    """Return what became of an order: the outcome, or a problem that holds it."""
    status = STATUS_OF_OUTCOME.get(outcome["outcome"], 502)
    if status < 400:  # noqa: PLR2004 - where failures begin
        return json_response(outcome, status)
    detail = outcome["detail"] or f"the owner says: {outcome['outcome']}"
    return Problem(
        status,
        outcome["outcome"],
        detail,
        more={"command_id": outcome["command_id"], "outcome": outcome},
    ).response()


def json_response(value: dict[str, Any], status: int = 200) -> Response:
    """Return a success, without what is no part of the contract."""
    return Response(msgspec.json.encode(public(value)), status, media_type="application/json")
