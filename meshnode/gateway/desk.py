"""The desk where a request is taken: who asks, how often they may, and what they have sent.

Invariants: a bearer is known before anything else of a request is looked at, so that strangers
learn nothing of what there is. Who fails is charged for it, and nobody else: whatever strangers
send from an address, keys that were good here lately are taken from there without delay. There is
no secret here to compare with: a key is verified by signatures, and remembered by its hash.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from hashlib import sha256
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

from meshnode.core.errors import NotAuthenticatedError
from meshnode.core.pacing import Buckets
from meshnode.gateway.problems import Problem
from meshnode.gateway.repeats import family_of
from meshnode.gateway.strict import parse_object, parse_query
from meshnode.rpc.limits import site_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from meshnode.app.commands.bearers import Bearer, Bearers
    from meshnode.app.ports import Clock
    from meshnode.gateway.strict import Fields

BODY_BYTES_MAX = 64 << 10  # more: 413
SMALLER = "put what is long into a file, and name that"
BODY_S = 10.0  # for all of it; later: 408
KEY_PER_S, KEY_BURST = 500.0, 1000.0  # requests with keys made of one; more: 429
FAILED_PER_S, FAILED_BURST = 5.0, 50.0  # told why, of one address; more: 429, whatever it was
# Texts that prove to be no good key, from one address; more: unknown texts are not looked at, 429.
# A forged chain takes 0.8 ms to see through (4 signatures), so this is 4 % of a core.
FORGED_PER_S, FORGED_BURST = 50.0, 100.0
GOOD_MAX = 1024  # keys remembered as good lately; beyond, the one unused for longest is forgotten
JSON_TYPES = frozenset({"", "application/json", "application/x-www-form-urlencoded"})  # curl's -d


class Desk:
    """Takes requests. `clock` is steady for rates, and wall for the life of keys."""

    def __init__(self, bearers: Bearers, clock: Clock) -> None:
        self._bearers = bearers
        self._clock = clock
        self._of_key: Buckets[bytes] = Buckets(KEY_PER_S, KEY_BURST)
        self._failed: Buckets[str] = Buckets(FAILED_PER_S, FAILED_BURST)
        self._forged: Buckets[str] = Buckets(FORGED_PER_S, FORGED_BURST)
        self._good: OrderedDict[bytes, None] = OrderedDict()  # SHA-256 of what was a good key

    def bearer(self, request: Request) -> Bearer:
        """Return who asks; raises NotAuthenticatedError, or Problem 429."""
        source, now_s = source_of(request), self._clock.steady_s()
        try:
            known = self._known(_token(request), source, now_s)
        except NotAuthenticatedError:
            if not self._failed.take(source, now_s):
                wait_s = self._failed.wait_s(source, now_s, 1.0)
                raise _too_many("keys that are none", wait_s) from None
            raise
        family = family_of(known)
        if not self._of_key.take(family, now_s):
            wait_s = self._of_key.wait_s(family, now_s, 1.0)
            raise _too_many("requests with this key", wait_s)
        return known

    def _known(self, token: str, source: str, now_s: float) -> Bearer:
        """Verify a key, each time; but of what never was good here, only so many a second."""
        name = sha256(token.encode()).digest()
        is_new = name not in self._good
        if is_new and self._forged.left(source, now_s) < 1.0:
            raise _too_many("keys that are none", self._forged.wait_s(source, now_s, 1.0))
        try:
            known = self._bearers.known(token, self._clock.wall_s())
        except NotAuthenticatedError:
            if is_new:
                self._forged.charge(source, now_s)
            raise
        self._good[name] = None
        self._good.move_to_end(name)
        if len(self._good) > GOOD_MAX:
            self._good.popitem(last=False)
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
    return Problem(413, "too_large", f"a body has at most {BODY_BYTES_MAX} bytes", SMALLER)


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
