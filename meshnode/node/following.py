"""Following the usage logs that a node's configuration names, into its ledger and its feed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from meshnode.core.ledger import LEDGER, key_to_row, value_to_row
from meshnode.ingest.follow import SourceState, follow
from meshnode.store import ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any

    from meshnode.app.ports import Clock
    from meshnode.core.ledger import Batch, DiagnosticsKey, LedgerRow, StoredReader
    from meshnode.ingest.follow import SourceConfig
    from meshnode.node.world import NodeWorld
    from meshnode.store.database import Database

LOOK_S = 2.0  # at what others have written in this home


class Following:
    """All log sources of one node, and how far each is read."""

    def __init__(
        self,
        database: Database,
        world: NodeWorld,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._database = database
        self._world = world
        self._clock = clock
        self._spawn = spawn
        self.states: dict[str, SourceState] = {}

    def start(self, sources: Sequence[SourceConfig]) -> None:
        """Publish what the ledger holds already, then follow each source."""
        self._publish(self._database.run_now(ledger.slots))
        for source in sources:
            self.states[source.path] = SourceState(source.source, source.path, 0, "starting")
            self._spawn(follow(source, self._commit, self._publish, self._load, self._note))
        self._spawn(self._publish_what_others_read())

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
        return await self._database.run(ledger.commit, batch, now_ms)

    async def _load(self, key: DiagnosticsKey) -> StoredReader | None:
        return await self._database.run(ledger.load, key)

    def _publish(self, rows: list[LedgerRow]) -> None:
        for key, value in rows:
            self._world.write(LEDGER, key_to_row(key), value_to_row(value))

    def _note(self, state: SourceState) -> None:
        self.states[state.path] = state
