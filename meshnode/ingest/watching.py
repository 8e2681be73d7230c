"""Being told by the kernel when a tree of transcripts changes, instead of looking every second.

Invariant: a watch only makes somebody look sooner. Where there is none, because the kernel refuses
or the files lie on another machine, and now and then in any case, somebody looks unasked.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LOOK_S = 60.0  # a watched tree is looked at this often unasked: kernels drop events when they must
TRY_S = 300.0  # after a watch was refused
DEBOUNCE_MS, STEP_MS = 400, 100  # how long changes are gathered; how often the watch wakes up
WAKE_MS = 10_000  # how often it is checked that what is watched is still what has the path
REMOTE = ("nfs", "cifs", "smb", "9p", "fuse", "afs", "ceph", "gluster", "lustre", "webdav")
"""Kinds of file systems, by how their names begin, whose kernel does not see others' writes."""


class Watch:
    """Watches one path, once `run` runs in a task of its own."""

    def __init__(self, path: str, is_remote: Callable[[Path], bool] | None = None) -> None:
        self._path = Path(path).expanduser()
        self._is_remote = is_remote or on_another_machine
        self._changed = asyncio.Event()
        self.is_on = False

    def look(self) -> None:
        """Tell that somebody looks now, and at all that changed so far."""
        self._changed.clear()

    async def pause(self, pause_s: float, wait: Callable[[float], Awaitable[None]]) -> None:
        """Wait for a change, and then the pause; the pause alone while nothing is watched."""
        if self.is_on:
            unasked = asyncio.ensure_future(wait(max(pause_s, LOOK_S)))  # noqa: TID251 - awaited below
            told = asyncio.ensure_future(self._changed.wait())  # noqa: TID251 - awaited below
            try:
                await asyncio.wait((unasked, told), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in (unasked, told):
                    one.cancel()
                await asyncio.gather(unasked, told, return_exceptions=True)
            if not self._changed.is_set():
                return
        await wait(pause_s)

    async def run(self) -> None:
        """Watch until cancelled; where that cannot be, try again now and then."""
        while True:
            self.is_on = False
            self._changed.set()  # whoever counts on being told must know
            try:
                if await asyncio.to_thread(self._can_be_watched):
                    await self._watch()
                    continue
            except (OSError, RuntimeError):  # too many watches, or a kernel without
                pass
            await asyncio.sleep(LOOK_S if not self._path.exists() else TRY_S)

    def _can_be_watched(self) -> bool:
        return self._path.exists() and not self._is_remote(self._path)

    async def _watch(self) -> None:
        """Watch for as long as the path is what it was."""
        from watchfiles import awatch  # noqa: PLC0415 - nodes without transcripts do not load it

        ident = _ident(self._path)
        found = awatch(
            self._path,
            watch_filter=None,
            debounce=DEBOUNCE_MS,
            step=STEP_MS,
            rust_timeout=WAKE_MS,
            yield_on_timeout=True,
            force_polling=False,
            ignore_permission_denied=True,
        )
        self.is_on = True
        self._changed.set()  # whatever happened before the watch began
        async for changes in found:
            if changes:
                self._changed.set()
            if _ident(self._path) != ident:
                self._changed.set()
                return


def on_another_machine(path: Path) -> bool:
    """Tell whether a path lies on a file system that other machines write to."""
    import psutil  # noqa: PLC0415 - for whoever follows transcripts

    place = path.resolve()
    mounts = [
        one for one in psutil.disk_partitions(all=True) if place.is_relative_to(one.mountpoint)
    ]
    kind = max(mounts, key=lambda one: len(one.mountpoint)).fstype if mounts else ""
    return kind.lower().startswith(REMOTE)


def _ident(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        found = path.stat()
        return (found.st_dev, found.st_ino)
    return None
