"""Keeping a node's ledger in bounds: checkpoints, dropping what is old, and rolling up the rest.

Invariant: no total changes by it. Each checkpoint is also a record of the audit log, whose signed
heads all members see: so not even who has this node's key can rewrite the ledger unseen. Nothing
is dropped or rolled up by a clock that has just jumped.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from meshnode.app.audit.auditing import Happening
from meshnode.app.settling import Settling
from meshnode.core.commands.audit import dropped_detail
from meshnode.core.ledger.checkpoints import CHECKPOINT, Checkpoint, sign_checkpoint
from meshnode.store import checkpoints, log_sessions, rounds, usage_log

if TYPE_CHECKING:
    from meshnode.app.audit.auditing import Auditor
    from meshnode.core.keys import Signed
    from meshnode.node.ground import Ground
    from meshnode.node.ledger.rolling import Rolling

LOOK_S = 300.0
EVERY_RECORDS = 1000  # a checkpoint, or
EVERY_S = 3600.0  # if there is anything new
KEPT_S = 90 * 86400.0  # raw records, and texts with them, from when they were recorded
PAUSE_S = 0.05  # between two steps, for whoever else needs the database
_log = logging.getLogger("session_mesh.ledger")


class Keeping:
    """Looks after one ledger."""

    def __init__(self, ground: Ground, auditor: Auditor, rolling: Rolling) -> None:
        self._ground = ground
        self._rolling = rolling
        self._auditor = auditor
        self._due_at_s = 0.0  # on the steady clock
        self._settling = Settling(ground.clock)

    async def run(self) -> None:
        """Work for as long as the node runs; what fails is tried again."""
        while True:
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - the node goes on; `audit --verify` says more
                _log.warning("the ledger is not kept in bounds: %s", error)
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Do what is due."""
        run, steady_s = self._ground.database.run, self._ground.clock.steady_s()
        last, _ = await run(usage_log.tail)
        fresh = last - await run(checkpoints.newest)
        if fresh >= EVERY_RECORDS or (fresh > 0 and steady_s >= self._due_at_s):
            await self._sign(last)
            self._due_at_s = steady_s + EVERY_S
        is_settled = self._settling.look()
        if is_settled:
            await self._drop()
        more = True
        while more:
            more = await run(rounds.prune)
            await asyncio.sleep(PAUSE_S)
        if is_settled:
            await self._rolling.look()

    async def _sign(self, last: int) -> None:
        """Write checkpoints up to a seq, or beyond; the audit log has the newest."""
        node, written = self._ground.world.mesh.self_id, None
        while step := await self._ground.database.run(checkpoints.write, node, self._signed):
            written = step
            if step[0] >= last:
                break
            await asyncio.sleep(PAUSE_S)
        self._note(written)

    async def _drop(self) -> None:
        now_ms = int(self._ground.clock.wall_s() * 1000)
        times = now_ms - int(KEPT_S * 1000), now_ms
        dropped: tuple[int, bytes] | None = None
        while step := await self._ground.database.run(checkpoints.drop, *times, self._signed):
            dropped = step
            await asyncio.sleep(PAUSE_S)
        self._note(dropped)
        await self._ground.database.run(log_sessions.forget, times[0] / 1000)

    def _signed(self, seq: int, hash_: bytes, totals: tuple[int, ...]) -> Signed:
        now_ms = int(self._ground.clock.wall_s() * 1000)
        node = self._ground.world.mesh.self_id
        said = Checkpoint(node, seq, hash_, now_ms, totals, dropped=not totals)
        return sign_checkpoint(self._ground.key, said)

    def _note(self, place: tuple[int, bytes] | None) -> None:
        if place is not None:
            self._auditor.note(Happening(CHECKPOINT, detail=dropped_detail(*place)))
