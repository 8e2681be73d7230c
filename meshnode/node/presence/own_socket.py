"""The socket on which a node answers its user: put back when somebody has removed it.

The end of a login removes $XDG_RUNTIME_DIR, and with it the sockets of homes with long paths.

Invariants: nothing is put into a home but the one that this process has locked; what others put
where the socket was is not ours to remove. Each server listens under a name that only it uses and
is then moved, since gRPC removes the name that it has listened on, at a time of its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from typing import TYPE_CHECKING

from meshnode.app.audit.alarms import Alarm
from meshnode.client.home import link_run, make_run, unwritten
from meshnode.core.errors import ConflictError, MeshError
from meshnode.node.lock import lock_again

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    import grpc.aio

    from meshnode.node.ground import Ground

    Place = tuple[int, int]  # device and inode

LOOK_S = 5.0
LAST_CALLS_S = 60.0  # for calls that came in through a socket that is gone
SOCKET = "socket"  # the alarm
BOUND_AS = "node.new"  # no longer than the name of the socket, which has to fit
_log = logging.getLogger("session_mesh.node")


class OwnSocket:
    """Where one node listens for its user; open it once its home is locked."""

    def __init__(self, ground: Ground, serve: Callable[[Path], Awaitable[grpc.aio.Server]]) -> None:
        """`serve` makes a server that listens at a path."""
        self._ground, self._home, self._alarms = ground, ground.home, ground.alarms
        self._serve = serve
        self._home_at = _place(self._home.path)
        self._lock_at = _place(self._home.lock)
        self._lock: int | None = None  # of a file that was put back
        self._socket_at: Place | None = None
        self._server: grpc.aio.Server | None = None

    async def open(self) -> None:
        """Begin to answer, and to look after the socket; raises a MeshError."""
        await self._listen()
        self._ground.keep(self._watch())

    async def stop(self, grace_s: float) -> None:
        """End, once what is under way is answered, or that long was waited."""
        if self._socket_at is not None and _place(self._home.socket) == self._socket_at:
            self._home.socket.unlink(missing_ok=True)
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(grace_s)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Put back what is missing, or raise an alarm until that is done."""
        if self._server is None:
            return  # this node ends
        try:
            self._check_home()
            is_back = await self._put_back()
        except MeshError as error:
            said = f"nobody on this machine reaches this node: {error.message}"
            fix = error.hint or "move away what is there"
            self._alarms.sound(Alarm(SOCKET, said, f"{fix}; or end it: kill {os.getpid()}"))
            return
        self._alarms.clear(SOCKET)
        if is_back:
            _log.warning("%s was removed, and is put back", self._home.socket)

    def _check_home(self) -> None:
        if _place(self._home.path) != self._home_at:
            said = f"{self._home.path} was moved or replaced under a running node"
            raise ConflictError(said, "move it back")

    async def _put_back(self) -> bool:
        """Make directory, lock and socket anew, as far as they are gone; tell whether any was."""
        is_locked = _place(self._home.lock) == self._lock_at
        is_open = _place(self._home.socket) == self._socket_at
        if is_locked and is_open:
            return False
        make_run(self._home)
        link_run(self._home)
        if not is_locked:
            lock, before = lock_again(self._home), self._lock
            self._lock, self._lock_at = lock, _place(self._home.lock)
            if before is not None:
                os.close(before)
        if not is_open:
            self._check_free()
            before_it = self._server
            await self._listen()
            if before_it is not None:
                self._ground.spawn(_ended(before_it))
        return True

    def _check_free(self) -> None:
        """Raise ConflictError for what is no socket: one that is there answers for nobody."""
        try:
            mode = self._home.socket.lstat().st_mode
        except OSError:
            return
        if not stat.S_ISSOCK(mode):
            raise ConflictError(f"{self._home.socket} is no socket", "move it away")

    async def _listen(self) -> None:
        bound = self._home.run / BOUND_AS
        server = await self._serve(bound)
        await server.start()
        try:
            bound.replace(self._home.socket)
        except OSError as error:
            await server.stop(None)
            raise unwritten(self._home.socket, error) from None
        self._server, self._socket_at = server, _place(self._home.socket)


async def _ended(server: grpc.aio.Server) -> None:
    await server.stop(LAST_CALLS_S)


def _place(path: Path) -> Place | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
