"""Leaving a node's place in the mesh to the other machine that runs with a copy of its home.

Invariant: once that alarm stands, no other node hears of this process any more, nor it of them:
for them there is one node, and whichever process had dialled last would have its links. The home
keeps that, so a start anew gives way again at once if the other still runs; once it has had links
for UNDISPUTED_S without an answer, it does not: the other may be started again years later, as the
one whose disk is old.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING

from meshnode.core.errors import MeshError
from meshnode.node.audit.alarming import CLONED_HOME
from meshnode.store import facts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from meshnode.app.audit.alarms import Alarm
    from meshnode.core.feeds.clones import Clones
    from meshnode.node.ground import Ground
    from meshnode.node.presence.finding import Finding
    from meshnode.node.presence.listeners import Listeners

GAVE_WAY_FACT = "gave_way"  # one or two boots: one of them wrote the disk that gave way
BOOT_BYTES = 8  # each
UNDISPUTED_S, LOOK_S = 300.0, 10.0


def give_way_to_clones(ground: Ground, finding: Finding, listeners: Listeners) -> None:
    """Hang up, dial nobody, announce nothing and refuse all calls once that alarm is raised.

    Raises DamagedError, StorageError.
    """
    clones = ground.world.mesh.own.clones
    kept = ground.database.run_now(facts.recall, GAVE_WAY_FACT) or b""
    places = range(0, min(len(kept), 2 * BOOT_BYTES), BOOT_BYTES)
    clones.gave_way = {int.from_bytes(kept[at : at + BOOT_BYTES], "big") for at in places}

    async def give_way(reason: str) -> None:
        ground.world.links.fall_silent(reason)
        await finding.close()
        await listeners.close_to_others()
        writers = b"".join(boot.to_bytes(BOOT_BYTES, "big") for boot in clones.writers)
        with suppress(sqlite3.Error, MeshError):  # without it, the next start has to find out anew
            await ground.database.run(facts.remember, {GAVE_WAY_FACT: writers})

    def on_alarm(alarm: Alarm, raised: bool) -> None:  # noqa: FBT001 - as `Alarms` tells it
        if alarm.id == CLONED_HOME and raised:
            ground.spawn(give_way(alarm.detail))

    ground.alarms.tell_also(on_alarm)
    if clones.gave_way:
        overlay = ground.world.mesh.overlay
        ground.spawn(trusted_once_undisputed(clones, lambda: bool(overlay.links)))


async def trusted_once_undisputed(
    clones: Clones,
    is_linked: Callable[[], bool],
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Have a home trusted that gave way once, after UNDISPUTED_S with links, seen each LOOK_S."""
    left_s = UNDISPUTED_S
    while left_s > 0:
        await wait(LOOK_S)
        if is_linked():
            left_s -= LOOK_S
    clones.trust_own()
