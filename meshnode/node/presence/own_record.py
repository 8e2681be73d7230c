"""What a node says of itself in its row of the table `node`: who it is, where, and whether it goes.

Invariant: a node says that it has left only when its disk has that; until then it stays.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec.structs import replace

from meshnode.app.audit.alarms import Alarm
from meshnode.core.errors import MeshError, StorageError
from meshnode.core.membership.members import (
    LABELS_SAID,
    LINKS,
    NODE,
    ONLY_ROW,
    LinksRecord,
    labels_beyond,
    links_to_row,
    node_to_row,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshnode.app.audit.alarms import Alarms
    from meshnode.core.membership.members import NodeRecord
    from meshnode.node.world import NodeWorld
    from meshnode.rpc.tls import Identity

LAST_WRITE_S = 2.0  # then the node ends without its last word, or does not leave
NAMED_MAX = 4  # of the labels that have no room
LABELS = "labels"  # the alarm
TRY_AGAIN = "make room on it, or see why it is slow, then session-mesh leave again"


def fitting(labels: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Return the labels that have room in a node's record, and what is said of the others."""
    beyond = labels_beyond(labels)
    kept = {key: value for key, value in labels.items() if key not in beyond}
    named = ", ".join(f"{key[:40]!r}" for key in beyond[:NAMED_MAX])
    more = f" and {len(beyond) - NAMED_MAX} more" if len(beyond) > NAMED_MAX else ""
    return kept, f"{LABELS_SAID}: left out are {named}{more}" if beyond else ""


def labels_of(told: Mapping[str, str], held: Mapping[str, str], alarms: Alarms) -> dict[str, str]:
    """Return a node's labels, what it is told first: from an invite it may hold too many."""
    first = {**told, **{key: value for key, value in held.items() if key not in told}}
    kept, said = fitting(first)
    if said:
        fix = "nothing else is lost: name those that matter in config.yaml, which come first"
        alarms.sound(Alarm(LABELS, said, fix))
    return kept


class OwnRecord:
    """The record of a node that runs; `record` has what does not change while it does."""

    def __init__(self, world: NodeWorld, identity: Identity, record: NodeRecord) -> None:
        self._world, self._identity = world, identity
        self._record = record

    def move(self, addresses: tuple[str, ...]) -> None:
        """Be elsewhere, from what is said next on."""
        self._record = replace(self._record, addresses=addresses)

    async def publish(self) -> None:
        """Say it as it is now; raises as `NodeWorld.publish` does."""
        await self._world.publish(NODE, ONLY_ROW, self._row())

    async def publish_last(self, standing: str) -> None:
        """Say how this node goes; raises a MeshError, or TimeoutError in the end."""
        self._record = replace(self._record, standing=standing)
        await self.publish()
        if standing == "left":
            await self._world.publish(LINKS, ONLY_ROW, links_to_row(LinksRecord()))

    async def withdraw(self) -> None:
        """Write that this node has left. If the disk does not take it this raises: it has not."""
        before, self._record = self._record, replace(self._record, standing="left")
        try:
            async with asyncio.timeout(LAST_WRITE_S):
                await self.publish()
        except (TimeoutError, MeshError) as error:
            self._record = before
            with suppress(MeshError):  # instead of what waits for the disk, or after it
                self._world.write(NODE, ONLY_ROW, self._row())
            if isinstance(error, MeshError):
                raise
            raise StorageError("this node stays: its disk takes nothing", TRY_AGAIN) from None

    def _row(self) -> bytes:
        return node_to_row(replace(self._record, certificates=self._identity.chain))
