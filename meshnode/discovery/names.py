"""Looking up the names of hosts, and connecting to what they stand for.

Invariant: a lookup, which may block for longer than anybody waits, holds none of asyncio's threads:
kills need those, and the process does not end before they do. At most LOOKUPS_MAX run at once.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LOOKUPS_MAX = 64  # one more fails at once: no name server answers, or somebody names very many
ADDRESSES_MAX = 8  # of one name; the rest is passed over, since nobody waits for so many turns
NEXT_S = 0.25  # for one address, before the next is tried too: RFC 8305 recommends it
THREAD = "looking up a name"  # daemons, so that the process ends without them
_Opened = tuple[str, asyncio.StreamWriter]  # an address, and the connection with it
_room = threading.BoundedSemaphore(LOOKUPS_MAX)


async def resolved(host: str) -> str:
    """Return an IP address of a host; raises OSError or UnicodeError."""
    return (await _all_of(host))[0]


async def connected(host: str, port: int, context: ssl.SSLContext | None = None) -> _Opened:
    """Connect to whichever address of a host answers first, over TLS with a context.

    Returns that address too; raises OSError or UnicodeError.
    """
    name = host if context else None

    async def open_at(ip: str) -> _Opened:
        _, writer = await asyncio.open_connection(ip, port, ssl=context, server_hostname=name)
        return ip, writer

    race = _Race(open_at)
    try:
        return await race.run(await _all_of(host))
    except asyncio.CancelledError:
        race.let_go()
        raise


class _Race:
    """Tries each address beside those before it that are silent (RFC 8305).

    One that drops packets would use up all the time that anybody waits.
    """

    def __init__(self, open_at: Callable[[str], Awaitable[_Opened]]) -> None:
        self._open_at = open_at
        self._won: list[_Opened] = []  # the first counts
        self._errors: list[OSError | UnicodeError] = []
        self._ended = asyncio.Event()

    async def run(self, ips: list[str]) -> _Opened:
        """Return what opens first; raises what says most of why nothing does."""
        begun: list[asyncio.Task[None]] = []
        async with asyncio.TaskGroup() as tasks:
            while not self._won and len(self._errors) < len(ips):
                if len(begun) < len(ips):
                    begun.append(tasks.create_task(self._attempt(ips[len(begun)])))
                self._ended.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(NEXT_S if len(begun) < len(ips) else None):
                        await self._ended.wait()
            for task in begun:
                task.cancel()
        if self._won:
            return self._won[0]
        raise max(self._errors, key=_says_somebody_is_there)

    async def _attempt(self, ip: str) -> None:
        try:
            opened = await self._open_at(ip)
        except (OSError, UnicodeError) as error:
            self._errors.append(error)
        else:
            self._won.append(opened)
            for _, late in self._won[1:]:
                late.transport.abort()
        self._ended.set()

    def let_go(self) -> None:
        """Close what nobody waits for any more."""
        for _, writer in self._won:
            writer.transport.abort()


def _says_somebody_is_there(error: Exception) -> bool:
    return isinstance(error, ConnectionRefusedError | ssl.SSLError)


async def _all_of(host: str) -> list[str]:
    with suppress(ValueError):
        return [str(ip_address(host))]
    if not _room.acquire(blocking=False):
        raise OSError(f"too many names are looked up already: {LOOKUPS_MAX}")
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def look_up() -> None:
        try:
            entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            _tell(loop, found.set_exception, error)
        else:
            ips = dict.fromkeys(str(entry[4][0]) for entry in entries)
            _tell(loop, found.set_result, list(ips)[:ADDRESSES_MAX])
        finally:
            _room.release()

    threading.Thread(target=look_up, name=THREAD, daemon=True).start()
    return await found


def _tell(loop: asyncio.AbstractEventLoop, settle: Callable[[Any], None], value: object) -> None:
    def tell() -> None:
        with suppress(asyncio.InvalidStateError):  # whoever waited has given up
            settle(value)

    with suppress(RuntimeError):  # the loop is closed already
        loop.call_soon_threadsafe(tell)
