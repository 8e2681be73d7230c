"""The socket side: connections that cannot be held for nothing, and plain HTTP on loopback only.

Invariant: a connection is cut that has sent no whole request head for HEAD_S, or takes less than
TAKEN_BYTES_MIN of an answer in as long, over TLS as without; so is what one address has beyond its
share, before TLS spends memory on it. Nothing plain leaves this machine: a session key is in every
request.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING

import h11
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from meshnode.core.errors import ConflictError
from meshnode.discovery.seeds import bracketed
from meshnode.gateway.places import Places
from meshnode.gateway.problems import MEDIA_TYPE, Problem
from meshnode.rpc.limits import room_for, site_of

if TYPE_CHECKING:
    import ssl

    from starlette.types import ASGIApp

HEAD_S = 10.0
IDLE_S = 15  # between two requests of a connection
HEAD_BYTES_MAX = 32 << 10  # a session key of four links may have 24 KiB; more: 431
CONNECTIONS_MAX = 1024
OF_FILES = 1 / 4  # of all that this process may open; the other ports have as much again, twice
TAKEN_BYTES_MIN = 64 << 10  # of an answer in HEAD_S, or all of it; fewer: cut
CLOSE_S = 2.0
SECURED_BYTES = 64 << 10  # of an answer wait in TLS, where asyncio takes 512 KiB
BACKLOG = 256


def is_local(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bound(host: str, port: int, flag: str) -> socket.socket:
    """Take an address, for what a flag of `up` asks for; raises ConflictError if it is in use.

    All of IPv6 is all of IPv4 too, as at the members' port and with other servers.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = family == socket.AF_INET6 and host == "::" and socket.has_dualstack_ipv6()
    try:
        sock = socket.create_server(
            (host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both
        )
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise ConflictError(
            f"cannot listen for HTTP on {bracketed(host)}:{port}: {why}",
            f"stop what uses it, or choose another: session-mesh up --{flag} HOST:PORT",
        ) from None
    # Connections inherit it. asyncio does not set it for a socket that names no protocol, and then
    # the body of each answer waits 40 ms for the peer to acknowledge the head.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def all_places() -> Places:
    """Return the places of all connections of HTTP, wherever they come in."""
    return Places(room_for(CONNECTIONS_MAX, OF_FILES))


class Listener:
    """One listening socket and its connections; `tls` is what the next one is met with.

    `places` are those of all listeners of a node together.
    """

    def __init__(
        self, app: ASGIApp, sock: socket.socket, tls: ssl.SSLContext | None, places: Places
    ) -> None:
        for name in ("uvicorn.error", "uvicorn.access"):  # what they tell comes from strangers
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self.sock = sock
        self.tls = tls
        self._server: asyncio.Server | None = None
        self._arriving: set[asyncio.Task[None]] = set()  # one a handshake
        self._state = ServerState()
        self._places = places
        self._config = Config(
            app,
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # anybody could write them
            server_header=False,
            date_header=False,
            timeout_keep_alive=IDLE_S,
            h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        )
        self._config.load()

    async def start(self) -> None:
        """Begin to answer."""
        self._server = await asyncio.get_running_loop().create_server(
            self._connection, sock=self.sock, backlog=BACKLOG
        )

    async def close(self) -> None:
        """Take nothing more, let answers under way go out for CLOSE_S, and cut the rest."""
        if self._server is None:
            return
        self._server.close()
        for task in self._arriving:
            task.cancel()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=CLOSE_S)
        for connection in list(self._state.connections):
            if isinstance(connection, _Connection):  # all are, in a state of our own
                connection.cut()

    def _connection(self) -> _Connection:
        return _Connection(self._config, self._state, self._places, self.tls, self._arriving)


class _Connection(H11Protocol):
    """One connection, with a deadline for whatever it is waited for."""

    _wire: asyncio.Transport  # below TLS, if there is any

    def __init__(
        self,
        config: Config,
        state: ServerState,
        places: Places,
        tls: ssl.SSLContext | None,
        arriving: set[asyncio.Task[None]],
    ) -> None:
        super().__init__(config, state, {})
        self._places = places
        self._tls = tls
        self._arriving = arriving
        self._source: str | None = None  # none: it has no place
        self._early = b""  # what came before `start_tls` has returned
        self._watch: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._unread = 0  # bytes of an answer that the peer has not taken

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        host = transport.get_extra_info("peername")[0]  # of accept(): the peer may be gone by now
        source = site_of(host) or host
        self._wire = transport
        if not self._places.enter(source):
            transport.abort()
            return
        self._source = source
        if self._tls is None:
            self._begin(transport)
            return
        task = self.loop.create_task(self._shake_hands(transport, self._tls))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is not None:
            super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._stop_waiting()
        self._end_stall()
        self._leave()

    def data_received(self, data: bytes) -> None:
        if self.transport is None:
            self._early += data
            return
        was_idle = self.timeout_keep_alive_task is not None
        super().data_received(data)  # whatever it is, it ends the wait of an idle connection
        if self._is_answering():
            self._stop_waiting()  # the body has a deadline of its own, and so has the answer
        elif was_idle or self._watch is None:
            self._wait_for_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unread = self._waiting()
        self._wait_for_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._end_stall()
        self._stall = self.loop.call_later(HEAD_S, self._stalled, self._waiting())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_stall()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        if not self._waiting():
            self._stop_waiting()  # TLS would wait 30 s for the peer to say goodbye too
            self._watch = self.loop.call_later(CLOSE_S, self.cut)

    def cut(self) -> None:
        """End it at once, whatever it still has to send."""
        self._wire.abort()

    def send_400_response(self, msg: str) -> None:
        del msg
        error = sys.exception()
        hint = getattr(error, "error_status_hint", 400)
        status = hint if hint in {400, 431} else 400
        problem = Problem(status, "usage", "not an HTTP request that can be read")
        content = problem.content()
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            headers = [
                ("content-type", MEDIA_TYPE),
                ("content-length", str(len(content))),
                ("connection", "close"),
            ]
            for event in (
                h11.Response(status_code=status, headers=headers, reason=b""),
                h11.Data(data=content),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    async def _shake_hands(self, plain: asyncio.Transport, tls: ssl.SSLContext) -> None:
        try:
            with suppress(OSError):  # no TLS, or too slow: it is closed, and that is all
                secure = await self.loop.start_tls(
                    plain, self, tls, server_side=True, ssl_handshake_timeout=HEAD_S
                )
                if secure is not None:  # none: it was lost meanwhile
                    secure.set_write_buffer_limits(SECURED_BYTES)
                    self._begin(secure)
        finally:
            if self.transport is None:  # nobody tells that it is lost
                self._leave()

    def _begin(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._wait_for_head()
        if self._early:
            early, self._early = self._early, b""
            self.data_received(early)

    def _leave(self) -> None:
        if self._source is not None:
            self._places.leave(self._source)
            self._source = None

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # none before the first request
        return cycle is not None and not cycle.response_complete

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        self._watch = self.loop.call_later(HEAD_S, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _end_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _waiting(self) -> int:
        """Return how many bytes the peer has not taken: TLS counts none that it has sealed."""
        sealed = self._wire.get_write_buffer_size()
        if self.transport is self._wire or self.transport.is_closing():
            return sealed
        return sealed + self.transport.get_write_buffer_size()

    def _stalled(self, before: int) -> None:
        """Cut a connection that has taken too little of an answer meanwhile."""
        unread = self._waiting()
        if before - unread < TAKEN_BYTES_MIN:
            self.cut()
        else:
            self._stall = self.loop.call_later(HEAD_S, self._stalled, unread)

    def _too_slow(self) -> None:
        """Cut a connection, unless it is idle between requests or still takes its answer."""
        self._watch = None
        if self._is_answering():
            return
        unread = self._waiting()
        is_open = self.timeout_keep_alive_task is not None and not self.transport.is_closing()
        if unread and self._unread - unread >= TAKEN_BYTES_MIN:
            self._unread = unread
            self._wait_for_head()
        elif unread or not is_open:  # uvicorn ends an idle one itself
            self.cut()
