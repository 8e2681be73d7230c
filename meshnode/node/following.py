"""Following the usage logs that a node's configuration names, into its ledger and its feed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from meshnode.core.ledger import LEDGER, Buckets, Slot, SlotKey, merged
from meshnode.core.ledger_rows import key_from_row, key_to_row, slot_from_row, value_to_row
from meshnode.ingest.reading import SourceState
from meshnode.node.keeping import Keeping
from meshnode.node.pricing import charging
from meshnode.store import ledger

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from sqlite3 import Connection

    from meshnode.app.auditing import Auditor
    from meshnode.core.ledger import Batch, DiagnosticsKey, LedgerRow, StoredReader
    from meshnode.ingest.reading import SourceConfig
    from meshnode.node.ground import Ground
    from meshnode.node.pricing import RunningPrices

NO_SLOT = Slot(0, Buckets())
LOOK_S = 2.0  # at what others have written in this home


class Following:
    """All log sources of one node, and how far each is read."""

    def __init__(
        self,
        ground: Ground,
        prices: RunningPrices,
        auditor: Auditor,
    ) -> None:
        self._database = ground.database
        self._world = ground.world
        self._clock = ground.clock
        self._spawn = ground.spawn
        self._keeping = Keeping(ground, auditor)
        self._imported: dict[SlotKey, Slot] = {}  # at most as many as there are rows of ours
        self._epoch = 0  # of our feed, when it was last held against the disk
        self._prices = prices  # of the thread of the database alone
        self.states: dict[str, SourceState] = {}

    def start(self, sources: Sequence[SourceConfig]) -> None:
        """Publish what the ledger holds already, then follow each source."""
        self._publish(self._database.run_now(ledger.slots))
        for source in sources:
            self._follow(source)
        self._spawn(self._publish_what_others_read())
        self._spawn(self._keeping.run())

    def _follow(self, source: SourceConfig) -> None:
        from meshnode.ingest.follow import follow  # noqa: PLC0415 - readers, for who names a log

        self.states[source.path] = SourceState(source.source, source.path, 0, "starting")
        self._spawn(follow(source, self._commit, self._publish, self._load, self._note))

    async def _publish_what_others_read(self) -> None:
        """Publish what `session-mesh usage` adds to this node's ledger while the node runs."""
        seen = await self._database.run(ledger.mark)
        while True:
            await asyncio.sleep(LOOK_S)
            mark = await self._database.run(ledger.mark)
            if mark.commits != seen.commits:
                self._publish(await self._database.run(ledger.slots, seen.seq))
            seen = mark

    async def _commit(self, batch: Batch) -> list[LedgerRow]:
        now_ms = int(self._clock.wall_s() * 1000)
        return await self._database.run(self._charged, batch, now_ms)

    def _charged(self, connection: Connection, batch: Batch, now_ms: int) -> list[LedgerRow]:
        self._prices.source_text()  # takes up what has changed in the user's file
        return ledger.commit(connection, batch, now_ms, charging(self._prices))

    async def _load(self, key: DiagnosticsKey) -> StoredReader | None:
        return await self._database.run(ledger.load, key)

    def _publish(self, rows: Iterable[LedgerRow]) -> None:
        if self._epoch != self._world.mesh.own.epoch:
            self._take_back()
        for key, value in rows:
            if isinstance(key, SlotKey) and isinstance(value, Slot) and key in self._imported:
                value = merged(value, self._imported[key])  # noqa: PLW2901 - what is said of it
            self._world.write(LEDGER, key_to_row(key), value_to_row(value))

    def _take_back(self) -> None:
        """Keep what our own feed says beyond this disk: counted on one that is lost.

        Logs that were deleted since are in it alone; those still there are read again, and of each
        count the larger is published, so that nothing is counted twice.
        """
        own = self._world.mesh.own
        known = self._database.run_now(ledger.imported)
        for key, slot in self._database.run_now(ledger.slots):
            if isinstance(key, SlotKey) and isinstance(slot, Slot):
                known[key] = merged(slot, known.get(key, slot))
        found: dict[SlotKey, Slot] = {}
        for packed in own.keys(LEDGER):
            place, said = key_from_row(packed), own.latest(LEDGER, packed)
            if isinstance(place, SlotKey) and said is not None:
                slot = merged(slot_from_row(said), known.get(place, NO_SLOT))
                if slot != known.get(place):
                    found[place] = slot
        if found:
            self._database.run_now(ledger.keep_imported, found)
        self._imported = self._database.run_now(ledger.imported)
        self._epoch = own.epoch

    def _note(self, state: SourceState) -> None:
        self.states[state.path] = state
