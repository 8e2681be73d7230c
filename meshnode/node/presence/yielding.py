"""Leaving a node's place in the mesh to the other machine that runs with a copy of its home.

Invariant: once that alarm stands, no other node hears of this process any more, nor it of them:
for them there is one node, and whichever process had dialled last would have its links.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.node.audit.alarming import CLONED_HOME

if TYPE_CHECKING:
    from meshnode.app.audit.alarms import Alarm
    from meshnode.node.ground import Ground
    from meshnode.node.presence.finding import Finding
    from meshnode.node.presence.listeners import Listeners


def give_way_to_clones(ground: Ground, finding: Finding, listeners: Listeners) -> None:
    """Hang up, dial nobody, announce nothing and refuse all calls once that alarm is raised."""

    async def give_way(reason: str) -> None:
        ground.world.links.fall_silent(reason)
        await finding.close()
        await listeners.close_to_others()

    def on_alarm(alarm: Alarm, raised: bool) -> None:  # noqa: FBT001 - as `Alarms` tells it
        if alarm.id == CLONED_HOME and raised:
            ground.spawn(give_way(alarm.detail))

    ground.alarms.tell_also(on_alarm)
