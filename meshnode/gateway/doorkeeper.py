"""What stands before every route: the host that was asked for, where a page came from, how much.

Invariant: whatever happens behind it, the caller gets an answer of ours; an unexpected exception is
in the node's log, and not a word of it in the answer. Host and Origin keep web pages away: a page
can make its visitor's browser send requests here, and can neither choose these two nor, since keys
are no cookies, a key. A page of a configured origin may read what is answered (CORS), and no other.
"""

from __future__ import annotations

import logging
import re
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from meshnode.core.pacing import Buckets
from meshnode.gateway.desk import BODY_BYTES_MAX, source_of, too_large
from meshnode.gateway.heads import as_routed, check_length, has_two_lengths, host_of
from meshnode.gateway.places import Places
from meshnode.gateway.problems import Problem
from meshnode.gateway.strict import check_address

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SOURCE_PER_S, SOURCE_BURST = 1000.0, 2000.0  # requests from one address; more: 429
AT_ONCE_MAX = 512  # requests in work; more: 503, and 429 for a source beyond its share
OPEN = re.compile(r"/health|/\.well-known/.*", re.DOTALL)  # without a key; what probes ask
OTHER_SITES = frozenset({"cross-site", "same-site"})  # of a page that names no Origin, as <img>
HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]
PREFLIGHT = {  # of what a page wants to send (Fetch, 4.8): it bears no key yet
    "access-control-allow-methods": "GET, HEAD, POST, DELETE",
    "access-control-allow-headers": "authorization, content-type, idempotency-key",
    "access-control-max-age": "600",
}
_log = logging.getLogger("session_mesh.http")


class Doorkeeper:
    """Lets requests in."""

    def __init__(
        self,
        app: ASGIApp,
        hosts: Collection[str],
        origins: Collection[str],
        steady_s: Callable[[], float],
        limited: Callable[[], None] = lambda: None,
    ) -> None:
        """`hosts`: names beside the address that is listened at; `origins`: of allowed pages.

        `limited` is told of each caller who is to wait.
        """
        self._app = app
        self._hosts = {host.lower().rstrip(".") for host in hosts}
        self._origins = {origin.lower().rstrip("/") for origin in origins}
        self._steady_s = steady_s
        self._pace: Buckets[str] = Buckets(SOURCE_PER_S, SOURCE_BURST)
        self._limited = limited
        self._at_once = Places(AT_ONCE_MAX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        request, routed = Request(scope), as_routed(scope)
        page = self._page(request)
        answering = _Answering(send, self._limited, page, ends=has_two_lengths(scope))
        # What is answered at once needs no place, so that probes are told while others are slow.
        source = None if OPEN.fullmatch(routed["path"]) else source_of(request)
        has_place = source is not None and self._at_once.enter(source)
        try:
            if source is not None and not has_place:
                raise self._crowded()
            if answering.ends:
                raise Problem(400, "usage", "a body has one length: Content-Length, or chunks")
            self._check(request)
            app = Response(None, 204, PREFLIGHT) if _is_preflight(request, page) else self._app
            await app(routed, receive, answering)
        except Problem as problem:
            await problem.response()(scope, receive, answering)
        except Exception:  # noqa: BLE001 - the last place that can word it
            route = getattr(scope.get("route"), "path", "")  # no address: one may hold anything
            _log.exception("a request failed: %s %s", scope["method"], route)
            if not answering.begun:
                failed = Problem(500, "failed", "internal error in the node; its log says more")
                await failed.response()(scope, receive, answering)
        finally:
            if source is not None and has_place:
                self._at_once.leave(source)

    def _crowded(self) -> Problem:
        if self._at_once.full:
            return Problem(503, "busy", f"more than {AT_ONCE_MAX} requests at once")
        return Problem(429, "too_many", "too many requests of this address at once")

    def _check(self, request: Request) -> None:
        source, now_s = source_of(request), self._steady_s()
        if not self._pace.take(source, now_s):
            wait_s = self._pace.wait_s(source, now_s, 1.0)
            raise Problem(429, "too_many", "too many requests of this address", retry_s=wait_s)
        check_length(request.scope)
        self._check_host(request.scope)
        check_address(request.scope)
        origins = request.headers.getlist("origin")
        is_page = not origins and request.headers.get("sec-fetch-site", "").lower() in OTHER_SITES
        if is_page or not all(map(self._may_ask, origins)):
            raise Problem(
                403,
                "origin",
                "no web page may ask here, unless its origin is configured",
                "config.yaml: http: {origins: [...]}",
            )
        length = request.headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length[:20]) > BODY_BYTES_MAX:
            raise too_large()

    def _page(self, request: Request) -> str:
        """Return the origin that a page may read the answer from; empty if none may."""
        origins = request.headers.getlist("origin")
        return origins[0] if len(origins) == 1 and self._may_ask(origins[0]) else ""

    def _may_ask(self, origin: str) -> bool:
        return origin.lower().rstrip("/") in self._origins

    def _check_host(self, scope: Scope) -> None:
        host = _name_in(host_of(scope))
        address = scope["server"][0] if scope["server"] else ""
        names = {_normal(address)} | ({"localhost"} if _is_loopback(address) else set())
        if host not in names and host not in self._hosts:
            raise Problem(
                421,
                "host",
                f"this node is not called {host[:100]!r}",
                "use its address, or configure the name: config.yaml: http: {hosts: [...]}",
            )


class _Answering:
    """Sends an answer, with the headers that each has, and knows whether it was begun.

    `page`: the origin of a page that may read it; `ends`: nothing more is read of its connection.
    """

    def __init__(self, send: Send, limited: Callable[[], None], page: str, *, ends: bool) -> None:
        self._send = send
        self._limited = limited
        self._page = page
        self.ends = ends
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            if message["status"] == 429:  # noqa: PLR2004 - the status itself
                self._limited()
            message["headers"] = [*message.get("headers", ()), *HEADERS, *self._for_page()]
            if self.ends:
                message["headers"].append((b"connection", b"close"))
        await self._send(message)

    def _for_page(self) -> list[tuple[bytes, bytes]]:
        if not self._page:
            return []
        return [
            (b"access-control-allow-origin", self._page.encode("latin-1")),
            (b"access-control-expose-headers", b"retry-after"),
            (b"vary", b"origin"),
        ]


def _is_preflight(request: Request, page: str) -> bool:
    asks = request.method == "OPTIONS" and "access-control-request-method" in request.headers
    return asks and bool(page)


def _name_in(host: str) -> str:
    """Return a Host header without its port, in lower case."""
    host = host.strip().lower()
    if host.startswith("["):
        return _normal(host[1:].partition("]")[0])
    return _normal(host.partition(":")[0].rstrip("."))


def _normal(host: str) -> str:
    """Write an address in one way; of IPv4 that came to a socket of IPv6, as IPv4."""
    try:
        ip = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    return str((ip.ipv4_mapped if isinstance(ip, IPv6Address) else None) or ip)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(_normal(host)).is_loopback
    except ValueError:
        return False
