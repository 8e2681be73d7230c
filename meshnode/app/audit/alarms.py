"""What is wrong with a node until somebody or something puts it right: raised once, cleared once.

Invariant: at most ALARMS_MAX stand at a time; beyond that the oldest ends that does not stop this
node's writes. Whoever was told of a beginning is told of its end. An alarm that stands is told
again to nobody, however often it is raised. While one that stops writes stands, nothing is begun
that would have to be written.

Ids are a kind, or kind:what, such as `disk`, `cloned_home`, `feed:` and the start of a node id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from meshnode.core.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

ALARMS_MAX = 64
DISK = "disk"


class Alarm(msgspec.Struct, frozen=True):
    """One thing that is wrong. `since_s` is since 1970; `fix` is imperative.

    `stops_writes`: this node answers and listens, and takes on nothing new.
    """

    id: str
    detail: str
    fix: str
    stops_writes: bool = False
    since_s: float = 0.0


class Alarms:
    """The alarms of one node; `tell` hears of each when it is raised, and when it is cleared."""

    def __init__(self, wall_s: Callable[[], float], tell: Callable[[Alarm, bool], None]) -> None:
        self._wall_s = wall_s
        self._tells = [tell]
        self._standing: dict[str, Alarm] = {}
        self.on_stopped: Callable[[Alarm], None] = lambda _alarm: None

    def tell_also(self, tell: Callable[[Alarm, bool], None]) -> None:
        """Let one more hear of each, and now of those that stand."""
        self._tells.append(tell)
        for alarm in self._standing.values():
            tell(alarm, True)  # noqa: FBT003 - raised, not cleared

    def sound(self, alarm: Alarm) -> None:
        """Raise an alarm; one that stands already gets the newest words, and nobody is told."""
        known = self._standing.get(alarm.id)
        if known is not None:
            self._standing[alarm.id] = replace(alarm, since_s=known.since_s)
            return
        if len(self._standing) >= ALARMS_MAX:
            others = (one.id for one in self._standing.values() if not one.stops_writes)
            self.clear(next(others, next(iter(self._standing))))
        alarm = replace(alarm, since_s=self._wall_s())
        self._standing[alarm.id] = alarm
        self._told(alarm, raised=True)
        if alarm.stops_writes:
            self.on_stopped(alarm)

    def clear(self, alarm_id: str) -> None:
        """End an alarm, if it stands."""
        alarm = self._standing.pop(alarm_id, None)
        if alarm is not None:
            self._told(alarm, raised=False)

    def standing(self) -> tuple[Alarm, ...]:
        """Return all alarms that stand, the oldest first."""
        return tuple(self._standing.values())

    def stop(self) -> Alarm | None:
        """Return an alarm that stops writes, if one stands."""
        return next((one for one in self._standing.values() if one.stops_writes), None)

    def check_writable(self) -> None:
        """Raise RefusedError while nothing new may be taken on."""
        stop = self.stop()
        if stop is not None:
            raise RefusedError(f"this node takes nothing new: {stop.detail}", stop.fix)

    def _told(self, alarm: Alarm, *, raised: bool) -> None:
        for tell in self._tells:
            tell(alarm, raised)
