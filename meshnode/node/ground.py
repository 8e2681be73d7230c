"""What every part of a running node stands on: its home and key, its disk, its clock, its world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from meshnode.app.audit.alarms import Alarms
    from meshnode.client.home import Home
    from meshnode.core.keys import Key
    from meshnode.node.clock import SystemClock
    from meshnode.node.world import NodeWorld
    from meshnode.rpc.tls import Identity
    from meshnode.store.database import Database


class Ground(msgspec.Struct, frozen=True):
    """Handed to each part when it is constructed.

    `spawn` runs a task that ends with the node or before; `keep` one whose end before is an alarm.
    """

    home: Home
    key: Key
    identity: Identity
    database: Database
    clock: SystemClock
    alarms: Alarms
    world: NodeWorld
    tasks: asyncio.TaskGroup
    spawn: Callable[[Coroutine[Any, Any, None]], None]
    keep: Callable[[Coroutine[Any, Any, None]], None]
