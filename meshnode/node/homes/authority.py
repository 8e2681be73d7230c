"""Who may what, in a file beside the database: what was given and revoked outlives a lost one.

Invariant: the file only repeats entries of the control set, and each is verified like any other
when it is taken up. Peers return the rest of a lost database; in a mesh of one, or where nobody is
heard, a key that was revoked and a root that was retired would be good again without this.
"""

from __future__ import annotations

import asyncio
import logging
from itertools import chain
from typing import TYPE_CHECKING

from meshnode.app.membership.admission import packed_signed
from meshnode.client.keys.keyfiles import write_whole
from meshnode.core.control.entries import Revoke, entry_from_signed, entry_id_of
from meshnode.core.control.roles import Role
from meshnode.core.control.succession import Admits, RootKeys
from meshnode.core.errors import MeshError
from meshnode.core.packing import PACKED_BYTES_MAX, pack
from meshnode.node.homes.founding import entries_in

if TYPE_CHECKING:
    from meshnode.core.keys import Signed
    from meshnode.node.ground import Ground

KINDS = (Role, Revoke, RootKeys, Admits)
FRAME_BYTES = (
    64  # of an entry in the file, and of the file, beside payloads and signatures; rounded
)
RETRY_S = 60.0
_log = logging.getLogger("session_mesh.node")


class AuthorityFile:
    """Writes the file of one node when that changes.

    What roots have said comes first, then what others have revoked, then the roles that others
    gave: what finds no room, the latest of the last, is left out.
    """

    def __init__(self, ground: Ground) -> None:
        self._path = ground.home.authority
        self._world = ground.world
        self._kept: tuple[dict[bytes, Signed], ...] = ({}, {}, {})  # what comes first, first
        self._due = asyncio.Event()
        self._writing = asyncio.Lock()
        self._written = b""
        self._told: set[str] = set()

    def take_up(self, wall_s: float) -> None:
        """Let the control set have what the database lost; from then on follow it."""
        control, kept = self._world.mesh.control, entries_in(self._path)
        missing = [entry for entry in kept if control.get(entry_id_of(entry)) is None]
        control.wait(control.add_all(missing, wall_s))
        for entry in missing:
            if control.get(entry_id_of(entry)) is not None:
                self._world.persist_control(entry)
        for entry in control.entries():
            self._heard(entry)
        self._world.on_entry.append(self._heard)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._due.wait()
            if not await self.write():
                await asyncio.sleep(RETRY_S)

    async def write(self) -> bool:
        """Write what is new; tell whether the disk takes it."""
        async with self._writing:
            self._due.clear()
            packed = self._packed()
            try:
                if packed != self._written:
                    await asyncio.to_thread(write_whole, self._path, packed)
                    self._written = packed
            except MeshError as error:
                self._warn(error.message)
                self._due.set()
                return False
            return True

    def _heard(self, entry: Signed) -> None:
        mesh = self._world.mesh
        said = entry_from_signed(entry, mesh.genesis.mesh_id)
        if not isinstance(said.body, KINDS):
            return
        if mesh.control.roles.was_root(said.issuer):
            rank = 0
        else:
            rank = 1 if isinstance(said.body, Revoke) else 2
        self._kept[rank][entry_id_of(entry)] = entry
        self._due.set()

    def _packed(self) -> bytes:
        chosen, left = [], PACKED_BYTES_MAX - FRAME_BYTES
        for entry in chain(*(ranked.values() for ranked in self._kept)):
            left -= len(entry.payload) + len(entry.signature) + FRAME_BYTES
            if left < 0:
                self._warn("it has no room for more; should the database be lost, peers return it")
                break
            chosen.append(packed_signed(entry))
        return pack({"control": chosen})

    def _warn(self, why: str) -> None:
        """Say once what will be missing: it is tried again for as long as the node runs."""
        if why not in self._told:
            self._told.add(why)
            _log.warning("%s is not complete: %s", self._path, why)
