"""Who talks to the supervisor: its Unix socket, newline-delimited JSON both ways.

Invariants: the socket is private from its first moment, and put back if it is removed; a client
that sends too much or reads too little is hung up on, and costs nobody else anything.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Reply = dict[str, object]
    Watch = tuple[int, int, Callable[[], object]]  # a descriptor, poll's mask, what to do then

LINE_BYTES_MAX = 256 << 10  # of one request; a longer one is answered with an error and hung up on
OUTBOX_BYTES_MAX = 256 << 10  # waiting for one client; beyond, it is hung up on
CLIENTS_MAX = 32  # beyond, a connection is closed at once
CHUNK_BYTES = 64 << 10
LOOK_S = 5.0  # until we look whether our socket is where it was
SOCKETS_MAX = 8  # that somebody may have moved: the one before that is closed


class RequestError(Exception):
    """The client asked for something we cannot do; the text says why. Nothing changed."""


def text_of(request: Reply, name: str) -> str | None:
    """Return a field that is a text or absent; raises RequestError."""
    value = request.get(name)
    if value is not None and not isinstance(value, str):
        raise RequestError(f"{name} is a text")
    return value


def id_of(request: Reply) -> int | str | None:
    """Return what a reply is to bear; raises RequestError: not all that is read can be written."""
    value = request.get("id")
    if value is not None and not isinstance(value, int | str):
        raise RequestError("an id is a whole number or a text")
    return value


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Return pid and uid of whoever connected, or of whoever listens, as the kernel knows them."""
    size = struct.calcsize("3i")
    pid, uid, _ = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    return pid, uid


class Client:
    """One connection to the supervisor's socket."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(0.0)
        self.connection = connection
        self.pid = peer_of(connection)[0]
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.subscribed = False
        self.gone = False

    def send(self, message: Reply) -> None:
        """Queue one line, and write at once what the connection takes."""
        self.outbox += json.dumps(message).encode() + b"\n"
        self.flush()
        if len(self.outbox) > OUTBOX_BYTES_MAX:
            self.gone = True

    def flush(self) -> None:
        """Write what the connection takes."""
        try:
            while self.outbox and not self.gone:
                del self.outbox[: self.connection.send(self.outbox)]
        except BlockingIOError:
            return
        except OSError:
            self.gone = True

    def lines(self) -> Iterator[bytes]:
        """Read once; yields the complete lines."""
        try:
            chunk = self.connection.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        self.gone = self.gone or not chunk
        self.inbox += chunk
        *complete, rest = bytes(self.inbox).split(b"\n")
        self.inbox[:] = rest
        for line in complete:
            if line and len(line) <= LINE_BYTES_MAX:
                yield line
        if max(map(len, (*complete, rest))) > LINE_BYTES_MAX:
            self.send({"id": None, "ok": False, "error": "the request line is too long"})
            self.gone = True


class Door:
    """The supervisor's socket, and everybody who came in through it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._clients: list[Client] = []
        self._listeners = [_listener(path)]

    def watches(self, handle: Callable[[Client, bytes], None]) -> Iterator[Watch]:
        """Yield what to poll for; every request line is given to `handle`."""
        for listener in self._listeners:
            yield listener.fileno(), select.POLLIN, partial(self._accept, listener)
        for client in self._clients:
            mask = select.POLLIN | (select.POLLOUT if client.outbox else 0)
            yield client.connection.fileno(), mask, partial(_serve, client, handle)

    def announce(self, event: Reply) -> None:
        """Tell all who have subscribed."""
        for client in self._clients:
            if client.subscribed:
                client.send(event)

    @property
    def has_clients(self) -> bool:
        """Whether anybody is left."""
        return bool(self._clients)

    def close(self) -> None:
        """Hang up on all, and let nobody in."""
        for one in (*self._listeners, *(client.connection for client in self._clients)):
            one.close()

    def forget_gone(self) -> None:
        """Hang up on those who have gone, or were found to send too much or read too little."""
        for client in [one for one in self._clients if one.gone]:
            client.connection.close()
            self._clients.remove(client)

    def look(self) -> None:
        """Put the socket back if it was removed, as at the end of a login; who has come in stays.

        So does the one before: its home may only have been moved, and come back. The directory is
        the node's to make anew.
        """
        if os.path.lexists(self._path):
            return
        with suppress(OSError):  # until there is a directory
            self._listeners.append(_listener(self._path))
        for former in self._listeners[:-SOCKETS_MAX]:
            former.close()
        del self._listeners[:-SOCKETS_MAX]

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        if len(self._clients) >= CLIENTS_MAX:
            connection.close()
        else:
            self._clients.append(Client(connection))


def _serve(client: Client, handle: Callable[[Client, bytes], None]) -> None:
    client.flush()
    for line in client.lines():
        handle(client, line)


def _listener(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)  # private from its first moment; the agent gets the caller's mask
    try:
        listener.bind(str(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(mask)
    listener.listen(CLIENTS_MAX)
    listener.settimeout(0.0)
    return listener
