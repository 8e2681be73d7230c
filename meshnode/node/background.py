"""The tasks of a node, and what is told of those that fail.

Invariant: one task that fails takes no other down. What fails though it never should is in the
log with one traceback a place, and an alarm until the next start: nobody knows what it left undone.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from meshnode.core.errors import MeshError
from meshnode.core.pacing import Buckets
from meshnode.node.audit.alarming import sound_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from meshnode.app.audit.alarms import Alarms

UNHANDLED_S, UNHANDLED_BURST = 0.1, 20  # lines a second, and at once; more are passed over
_log = logging.getLogger("session_mesh.node")


class Background:
    """Runs what ends with the node, or before."""

    def __init__(self, tasks: asyncio.TaskGroup, alarms: Alarms) -> None:
        self._group = tasks
        self._alarms = alarms
        self._tasks = set[asyncio.Task[None]]()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what ends some time: that it was refused something is no more than a line."""
        self._begin(work, self._passing(work))

    def keep(self, work: Coroutine[Any, Any, None], *, stops_writes: bool = False) -> None:
        """Run what shall go on for as long as the node does: whatever ends it is an alarm."""
        self._begin(work, self._lasting(work, stops_writes=stops_writes))

    def cancel(self) -> None:
        """End all of it."""
        for task in self._tasks:
            task.cancel()

    def _begin(self, work: Coroutine[Any, Any, None], guarded: Coroutine[Any, Any, None]) -> None:
        task = self._group.create_task(guarded)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: work.close())  # it may have been cancelled before it began

    async def _passing(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except MeshError as error:
            _log.warning("a background task failed: %s", error.message)
        except Exception as error:  # noqa: BLE001 - whatever it was
            sound_fault(self._alarms, _name(work), error)

    async def _lasting(self, work: Coroutine[Any, Any, None], *, stops_writes: bool) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - whatever it was
            sound_fault(self._alarms, _name(work), error, "has ended", stops_writes=stops_writes)


def _name(work: object) -> str:
    return getattr(work, "__qualname__", type(work).__name__)


def log_unhandled() -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """Make the handler of a loop that puts into the node's log what nobody else has waited for."""
    pace: Buckets[str] = Buckets(UNHANDLED_S, UNHANDLED_BURST)

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if pace.take("", loop.time()):
            _log.error("%s", context["message"], exc_info=context.get("exception"))

    return handle
