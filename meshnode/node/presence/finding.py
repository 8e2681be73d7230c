"""Everything that may tell a node where others are: mDNS and seeds, turned into hints."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from meshnode.core.errors import MeshError
from meshnode.discovery.seeds import hint_at

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from meshnode.discovery.hints import Announcement, Hint
    from meshnode.discovery.mdns import Discovery
    from meshnode.node.world import NodeWorld

SEED_RETRY_S = 2.0
SEED_RETRY_S_MAX = 30.0
OTHERS_MAX = 256  # nodes of other meshes that are counted; of more, those heard last
OTHERS_SHOWN_MAX = 3
MDNS = "mDNS"
CROWD_CHECK_S = 1.0
QUIET_S = 60.0  # without mDNS, after somebody has shouted too much, or where it is not to be had
LISTENING = "on, listening only: no IPv4 address is told to others"
CONTESTED = (
    "on, listening only: somebody on this network claims each name that this node would take"
)
_log = logging.getLogger("session_mesh.discovery")


class Finding:
    """Looks for members until closed; what it finds are hints, TLS decides."""

    def __init__(
        self, world: NodeWorld, spawn: Callable[[Coroutine[Any, Any, None]], None]
    ) -> None:
        self._world = world
        self._spawn = spawn
        self._announcement: Announcement | None = None
        self._moved = asyncio.Event()
        self._closed = False
        self._discovery: Discovery | None = None
        self.mdns = "off"
        self.heard_by_mdns = 0
        self._others: dict[str, Hint] = {}  # of other meshes, by their names; the latest last

    def listen(self, announcement: Announcement) -> None:
        """Announce this node with mDNS and listen for others, in the background.

        Called again, it begins anew, with other words and on the interfaces that there are now.
        """
        begun, self._announcement = self._announcement is not None, announcement
        self._moved.set()
        if not begun:
            self.mdns = "starting"
            self._spawn(self._run_mdns())

    def follow_seed(self, address: str) -> None:
        """Keep trying an address until somebody of this mesh is linked there."""
        self._spawn(self._follow_seed(address))

    async def close(self) -> None:
        """Fall silent."""
        self._closed = True
        if self._discovery is not None:
            await self._discovery.close()

    async def _run_mdns(self) -> None:
        from zeroconf import Error  # noqa: PLC0415 - zeroconf costs 10 MiB

        while not self._closed:
            self._moved.clear()
            try:
                await self._hear()
            except* (OSError, RuntimeError, Error) as group:
                error = group.exceptions[0]
                said = f"unavailable: {str(error) or type(error).__name__}"
                if said != self.mdns:
                    _log.warning("mDNS is %s; use --seed HOST:PORT", said)
                self.mdns = said
            with suppress(TimeoutError):
                async with asyncio.timeout(QUIET_S):
                    await self._moved.wait()

    async def _hear(self) -> None:
        """Take part in mDNS until this machine moves, or too much is shouted."""
        from meshnode.discovery.mdns import Discovery  # noqa: PLC0415 - as zeroconf

        if self._announcement is None:
            return
        discovery = self._discovery = Discovery(self._announcement, self._on_mdns, self._spawn)
        discovery.on_gone = self._on_gone
        try:
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(self._begin(discovery))
                await self._until_crowded(discovery)
                running.cancel()
        finally:
            self._discovery = None
            self._others.clear()  # who is still there is heard again, on whichever network
            self._tell_of_others()
            if not self._closed:
                await discovery.close()
        if not self._moved.is_set():
            self.mdns = f"silent for {QUIET_S:g} s: too much is announced on this network"
            _log.warning("mDNS is %s; use --seed HOST:PORT", self.mdns)

    async def _begin(self, discovery: Discovery) -> None:
        is_announced = await discovery.run()
        while not is_announced:
            if self.mdns != CONTESTED:
                _log.warning("mDNS is %s; use --seed HOST:PORT", CONTESTED)
            self.mdns = CONTESTED
            await asyncio.sleep(QUIET_S)
            is_announced = await discovery.announce()
        self.mdns = "on" if discovery.announcement.addresses else LISTENING

    async def _until_crowded(self, discovery: Discovery) -> None:
        while not discovery.is_crowded and not self._moved.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(CROWD_CHECK_S):
                    await self._moved.wait()

    def _on_mdns(self, hint: Hint) -> None:
        self.heard_by_mdns += 1
        self._others.pop(hint.name, None)
        if hint.mesh_id == self._world.mesh.genesis.mesh_id:
            self._take(hint)
        else:
            while len(self._others) >= OTHERS_MAX:
                del self._others[next(iter(self._others))]
            self._others[hint.name] = hint
        self._tell_of_others()

    def _on_gone(self, name: str) -> None:
        if self._others.pop(name, None) is not None:
            self._tell_of_others()

    def _tell_of_others(self) -> None:
        """Say in one line who else is there: a crowd of strangers must not hide a real trouble."""
        others = list(self._others.values())
        if not others:
            self._world.troubles.pop(MDNS, None)
            return
        meshes = len({hint.mesh_id for hint in others})
        shown = [", ".join(hint.addresses[:1]) for hint in others[-OTHERS_SHOWN_MAX:]]
        nodes = "a node" if len(others) == 1 else f"{len(others)} nodes"
        whose = "another mesh" if meshes == 1 else f"{meshes} other meshes"
        left_out = len(others) - len(shown)
        more = f" and {left_out} more" if left_out else ""
        self._world.trouble(MDNS, f"heard of {nodes} of {whose}: {', '.join(shown)}{more}")

    def _take(self, hint: Hint) -> bool:
        if hint.mesh_id != self._world.mesh.genesis.mesh_id:
            where = ", ".join(hint.addresses)
            self._world.trouble(where, f"belongs to another mesh ({hint.mesh_id[:12]}…)")
            return False
        if hint.node_id != self._world.mesh.self_id:
            self._world.hint(hint.node_id, hint.addresses)
        return True

    async def _follow_seed(self, address: str) -> None:
        delay_s = SEED_RETRY_S
        while True:
            try:
                hint = await hint_at(address)
            except MeshError as error:
                self._world.trouble(address, error.message.removeprefix(f"{address} "))
            else:
                self._world.troubles.pop(address, None)
                if self._take(hint) and hint.node_id in self._world.mesh.overlay.links:
                    delay_s = SEED_RETRY_S_MAX
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 1.5, SEED_RETRY_S_MAX)
