"""The desk where a request is taken: who asks, how often they may, and what they have sent.

Invariant: a bearer is known before anything else of a request is looked at, so that strangers learn
nothing of what there is. There is no secret here to compare with: a key is verified by signatures.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

from meshnode.core.errors import NotAuthenticatedError
from meshnode.core.pacing import Buckets
from meshnode.gateway.problems import Problem
from meshnode.gateway.strict import parse_object, parse_query
from meshnode.rpc.limits import site_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from meshnode.app.bearers import Bearer, Bearers
    from meshnode.app.ports import Clock
    from meshnode.gateway.strict import Fields

BODY_BYTES_MAX = 64 << 10  # more: 413
BODY_S = 10.0  # for all of it; later: 408
KEY_PER_S, KEY_BURST = 500.0, 1000.0  # requests with one key; more: 429
FAILED_PER_S, FAILED_BURST = 5.0, 50.0  # keys that are none, from one address; more: 429
JSON_TYPES = frozenset({"", "application/json", "application/x-www-form-urlencoded"})  # curl's -d


class Desk:
    """Takes requests. `clock` is steady for rates, and wall for the life of keys."""

    def __init__(self, bearers: Bearers, clock: Clock) -> None:
        self._bearers = bearers
        self._clock = clock
        self._of_key: Buckets[str] = Buckets(KEY_PER_S, KEY_BURST)
        self._failed: Buckets[str] = Buckets(FAILED_PER_S, FAILED_BURST)

    def bearer(self, request: Request) -> Bearer:
        """Return who asks; raises NotAuthenticatedError, or Problem 429."""
        source, now_s = source_of(request), self._clock.steady_s()
        if self._failed.left(source, now_s) < 1.0:
            raise _too_many("keys that are none", self._failed.wait_s(source, now_s, 1.0))
        try:
            known = self._bearers.known(_token(request), self._clock.wall_s())
        except NotAuthenticatedError:
            self._failed.charge(source, now_s)
            raise
        if not self._of_key.take(known.key_id, now_s):
            wait_s = self._of_key.wait_s(known.key_id, now_s, 1.0)
            raise _too_many("requests with this key", wait_s)
        return known

    async def posted(self, request: Request) -> tuple[Bearer, Fields]:
        """Return who asks, and the fields of what they have sent; there are no parameters."""
        bearer = self.bearer(request)
        parse_query(request.scope["query_string"], ())
        return bearer, await self.body(request)

    async def body(self, request: Request) -> Fields:
        """Return the fields of a JSON body, as curl sends it too; raises Problem."""
        _check_type(request)
        raw = bytearray()
        try:
            async with asyncio.timeout(BODY_S):
                async for piece in request.stream():
                    raw += piece
                    if len(raw) > BODY_BYTES_MAX:
                        raise too_large()
        except TimeoutError:
            raise Problem(408, "too_slow", f"the body took more than {BODY_S:g} s") from None
        except ClientDisconnect:
            raise Problem(400, "usage", "the body broke off") from None
        return parse_object(bytes(raw))


def too_large() -> Problem:
    """Say that a body is larger than any request needs."""
    return Problem(413, "too_large", f"a body has at most {BODY_BYTES_MAX} bytes")


def source_of(request: Request) -> str:
    """Name the machine that asks."""
    host = request.client.host if request.client else ""
    return site_of(host) or host


def _token(request: Request) -> str:
    given = request.headers.getlist("authorization")
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not token.strip():
        raise NotAuthenticatedError(
            "no session key", "send one: Authorization: Bearer smk1_..., from session-mesh keys new"
        )
    return token


def _check_type(request: Request) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    coding = request.headers.get("content-encoding", "identity").lower()
    if given not in JSON_TYPES or coding != "identity":
        raise Problem(
            415, "not_json", "the body should be JSON", "Content-Type: application/json, or none"
        )


def _too_many(what: str, wait_s: float) -> Problem:
    return Problem(429, "too_many", f"too many {what}", retry_s=wait_s)
