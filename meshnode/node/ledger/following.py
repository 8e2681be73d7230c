"""Following the usage logs that a node's configuration names, into its ledger and its feed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from meshnode.core.errors import RefusedError
from meshnode.node.configuration.pricing import charging_now
from meshnode.node.ledger.keeping import Keeping
from meshnode.node.ledger.rolling import Rolling
from meshnode.store import ledger

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from sqlite3 import Connection

    from meshnode.app.audit.auditing import Auditor
    from meshnode.core.ledger.ledger import Batch, DiagnosticsKey, LedgerRow, StoredReader
    from meshnode.ingest.reading import SourceConfig, SourceState
    from meshnode.node.configuration.pricing import LatePrices
    from meshnode.node.ground import Ground

LOOK_S = 2.0  # at what others have written in this home
AGAIN_S = 60.0  # after what had no room, or failed: what is rolled up meanwhile makes room
_log = logging.getLogger("session_mesh.ledger")


class Following:
    """All log sources of one node, and how far each is read."""

    def __init__(
        self,
        ground: Ground,
        prices: LatePrices,
        auditor: Auditor,
    ) -> None:
        self._database = ground.database
        self._world = ground.world
        self._clock = ground.clock
        self._spawn = ground.spawn
        self._rolling = Rolling(ground)
        self.counting = self._rolling.counting  # for whoever else counts
        self._keeping = Keeping(ground, auditor, self._rolling)
        self._prices = prices  # of the thread of the database alone
        self.states: dict[str, SourceState] = {}

    def take_up(self) -> None:
        """Look at what the disk holds, once our feed was taken from it, and before anybody talks.

        Raises StorageError.
        """
        self._rolling.take_up()

    async def start(self, sources: Sequence[SourceConfig]) -> None:
        """Publish what the ledger holds already, then follow each source."""
        seen = await self._publish_since(None)
        for source in sources:
            self._follow(source)
        self._spawn(self._publish_what_others_read(seen))
        self._spawn(self._keeping.run())

    def _follow(self, source: SourceConfig) -> None:
        from meshnode.ingest.follow import follow  # noqa: PLC0415 - readers, for who names a log

        self._note(source.state(0, "starting"))
        self._spawn(follow(source, self._commit, self.publish, self._load, self._note))

    async def _publish_what_others_read(self, seen: ledger.Mark | None) -> None:
        """Publish what `session-mesh usage` adds to this node's ledger while the node runs."""
        while True:
            waits = seen is None and self._rolling.is_held
            await self._rolling.folding.until_due(AGAIN_S if waits else LOOK_S)
            try:
                seen = await self._publish_since(seen)
            except Exception as error:  # noqa: BLE001 - what comes later is published all the same
                _log.warning("what others have read is not published: %s; trying again", error)
                seen = None

    async def _publish_since(self, seen: ledger.Mark | None) -> ledger.Mark | None:
        """Publish what has changed since a mark; None, to begin anew, if not all could be."""
        async with self._rolling.counting():
            if not self._rolling.all_said or self._rolling.folding.is_due:
                seen = None
            mark = await self._database.run(ledger.mark)
            if seen is not None and mark.commits == seen.commits:
                return mark
            rows = await self._database.run(ledger.published, -1 if seen is None else seen.seq)
            try:
                if seen is None:
                    await self._rolling.publish_all(rows)
                else:
                    self._rolling.publish(rows)
            except RefusedError as error:
                _log.warning("not all of the ledger is published: %s", error)
                return None
        return mark if self._rolling.all_said else None

    async def _commit(self, batch: Batch) -> list[LedgerRow]:
        now_ms = int(self._clock.wall_s() * 1000)
        async with self._rolling.counting():
            return await self._database.run(self._charged, batch, now_ms)

    def _charged(self, connection: Connection, batch: Batch, now_ms: int) -> list[LedgerRow]:
        return ledger.commit(connection, batch, now_ms, charging_now(self._prices))

    async def _load(self, key: DiagnosticsKey) -> StoredReader | None:
        return await self._database.run(ledger.load, key)

    def publish(self, rows: Iterable[LedgerRow]) -> None:
        """Say what was just counted; what has no room is said once there is some."""
        self._rolling.publish(rows)

    def unsaid(self) -> list[str]:
        """Return why not all of the ledger is published, if it is not for want of room."""
        return self._rolling.unsaid()

    def _note(self, state: SourceState) -> None:
        self.states[state.path] = state
