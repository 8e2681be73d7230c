"""Which of the things that cores report are alarms, and how alarms reach the log.

Invariant: an alarm is logged once when it is raised and once when it is over, never in between.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from meshnode.app.audit.alarms import Alarm

if TYPE_CHECKING:
    from meshnode.app.audit.alarms import Alarms
    from meshnode.core.ids import NodeId

CLONED_HOME, COPIED_HOME, REVOKED = "cloned_home", "copied_home", "revoked"
FAULT_CHARS_MAX = 300  # of what an exception says
_log = logging.getLogger("session_mesh.alarms")
_node_log = logging.getLogger("session_mesh.node")


def feed_alarm_id(origin: str) -> str:
    """Name the alarm about one feed."""
    return f"feed:{origin[:12]}"


def alarm_of(event: str, peer: NodeId | None, detail: str) -> Alarm | None:
    """Return the alarm that a core's report stands for; None for one that only the log needs.

    `peer` is the origin of the feed that a `feed_quarantined` is about.
    """
    match event:
        case "cloned_home":
            fix = (
                "here: session-mesh down, then delete this home and join anew with a new invite;"
                " the other machine goes on. Or let this one go on: stop that one, then here:"
                " session-mesh down --keep-sessions, and session-mesh up --detach"
            )
            return Alarm(CLONED_HOME, detail, fix, stops_writes=True)
        case "copied_home":
            fix = (
                "find that machine (session-mesh doctor says cloned_home there), stop its node and"
                " delete its home; then here: session-mesh down --keep-sessions, and session-mesh"
                " up --detach"
            )
            return Alarm(COPIED_HOME, f"{detail}; this node goes on, and told it to stop", fix)
        case "feed_quarantined":
            fix = "restart that node with a home of its own: it goes on in an epoch above"
            return Alarm(feed_alarm_id(peer or ""), detail, fix)
        case "revoked":
            fix = (
                "nothing here: if that was a mistake, ask the mesh's owner for a new invite, and"
                " move this home away before joining with it: its key stays revoked"
            )
            return Alarm(REVOKED, detail, fix)
        case _:
            return None


def sound_fault(
    alarms: Alarms,
    where: str,
    error: Exception,
    became: str = "has failed",
    *,
    stops_writes: bool = False,
) -> None:
    """Raise an alarm for what should never fail, until the next start; the first is in the log."""
    from meshnode.app.diagnosis.diagnosis import RESTART  # noqa: PLC0415 - for what never happens

    alarm_id = f"fault:{where}"
    if all(one.id != alarm_id for one in alarms.standing()):
        _node_log.error("%s %s", where, became, exc_info=error)
    said = f"{type(error).__name__}: {error}"[:FAULT_CHARS_MAX]
    detail = f"a part of this node, {where}, {became} ({said}); its log says where"
    alarms.sound(Alarm(alarm_id, detail, RESTART, stops_writes))


def log_alarm(alarm: Alarm, raised: bool) -> None:  # noqa: FBT001 - as `Alarms` tells it
    """Put an alarm, or its end, into the node's log."""
    fields = {"alarm": alarm.id, "raised": raised}
    if raised:
        fields["fix"] = alarm.fix
        _log.error("alarm: %s (%s)", alarm.detail, alarm.fix, extra={"fields": fields})
    else:
        _log.warning("over: %s", alarm.detail, extra={"fields": fields})
