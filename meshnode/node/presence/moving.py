"""Noticing that a machine's addresses have changed: it roams, or its network came after its node.

Invariant: a change is believed once two looks SETTLE_S apart agree, so an address that goes for a
second and returns is none, nor is another order; and however often interfaces come and go, at most
one change in CHANGES_EVERY_S is told, after the first CHANGES_BURST.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from meshnode.core.pacing import Buckets
from meshnode.node.presence.addresses import interface_hosts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LOOK_S = 5.0
SETTLE_S = 2.0
CHANGES_EVERY_S, CHANGES_BURST = 60.0, 5  # each is a flush that all members hear
_log = logging.getLogger("session_mesh.node")


async def watch(
    moved: Callable[[tuple[str, ...]], Awaitable[None]],
    now_s: Callable[[], float],
    hosts: Callable[[], tuple[str, ...]] = interface_hosts,
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Look at the interfaces until cancelled; call `moved` after each change with what is there."""
    pace: Buckets[str] = Buckets(1 / CHANGES_EVERY_S, CHANGES_BURST)
    known = before = frozenset(_seen(hosts) or ())
    while True:
        await wait(LOOK_S if before == known else SETTLE_S)
        seen = _seen(hosts)
        if seen is None:
            continue
        found = frozenset(seen)
        if found == before != known and pace.take("", now_s()):
            known = found
            await moved(seen)
        before = found


def _seen(hosts: Callable[[], tuple[str, ...]]) -> tuple[str, ...] | None:
    try:
        return hosts()
    except OSError as error:  # such as too many open files
        _log.warning("cannot see the interfaces: %s", error)
        return None
