"""Follows one log for a node: read in a thread, keep, publish, wait, again.

Invariant: the position moves only when the records before it are kept, so whatever fails is read
again; and no failure ends the following, it is told in the source's state.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

from msgspec.structs import replace

from meshnode.core.errors import ConflictError
from meshnode.core.ledger.ledger import Batch, Diagnostics, StoredReader
from meshnode.ingest.reading import SourceState, is_news, moved_on
from meshnode.ingest.sources import reader_of, source_named
from meshnode.ingest.watching import Watch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from meshnode.core.ledger.ledger import DiagnosticsKey, LedgerKey, LedgerRow, Slot
    from meshnode.ingest.reading import SourceConfig

READ_BYTES_MAX = 4 << 20  # at a time: a long log is taken in pieces, each kept before the next
BACK_OFF_MAX_S = 60.0


if TYPE_CHECKING:
    Load = Callable[[DiagnosticsKey], Awaitable[StoredReader | None]]
    """Returns how far a reader had read: `store.ledger.load` on the node's connection."""
    Commit = Callable[[Batch], Awaitable[list[LedgerRow]]]
    """Keeps records and places together: `store.ledger.commit` on the node's connection."""
    Publish = Callable[[list[LedgerRow]], None]
    Report = Callable[["SourceState"], None]


async def follow(
    source: SourceConfig,
    commit: Commit,
    publish: Publish,
    load: Load,
    report: Report,
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Follow a log until cancelled; raises UsageError for a source that nobody can read."""
    follower = _Follower(source, commit, publish, load, report)
    watch = Watch(source.path)
    try:
        async with asyncio.TaskGroup() as group:
            if source_named(source.source).is_tree:
                group.create_task(watch.run())
            await _follow(follower, source.refresh_interval_s, watch, wait)
    finally:
        follower.reader.close()


async def _follow(
    follower: _Follower, interval_s: float, watch: Watch, wait: Callable[[float], Awaitable[None]]
) -> NoReturn:
    failures = 0
    while True:
        watch.look()
        try:
            more = await follower.step()
            failures = 0
        except Exception as error:  # noqa: BLE001 - one log must not take the node down
            failures, more = failures + 1, False
            follower.tell(f"{type(error).__name__}: {error}; trying again")
        if failures:
            await wait(_pause_s(interval_s, failures))
        elif not more:
            await watch.pause(interval_s, wait)


def _pause_s(interval_s: float, failures: int) -> float:
    pause_s = interval_s * 2.0 ** min(failures, 16)
    return min(pause_s, max(BACK_OFF_MAX_S, interval_s))


class _Follower:
    def __init__(
        self,
        source: SourceConfig,
        commit: Commit,
        publish: Publish,
        load: Load,
        report: Report,
    ) -> None:
        self.reader = reader_of(source)
        self._source = source
        self._load, self._commit = load, commit
        self._publish, self._report = publish, report
        self._stored: StoredReader | None = None
        self._told: SourceState | None = None
        self._is_overtaken = False  # another process has read on in the same logs
        # What is kept and not published yet: if that fails, the next step tries again.
        self._unpublished: dict[LedgerKey, Slot | Diagnostics] = {}

    async def step(self) -> bool:
        """Read once and keep it; return whether there is more to read at once."""
        stored = self._stored
        if stored is None:
            stored = await self._load(self.reader.key) or StoredReader({}, Diagnostics())
            self._stored = stored
        read = self.reader.read
        reading = await asyncio.to_thread(read, stored.places, READ_BYTES_MAX)
        batch = reading.batch
        if is_news(batch, stored):
            began = None if self._is_overtaken else stored.places  # once in a round: it ends
            try:
                rows = await self._commit(replace(batch, began=began))
            except ConflictError:  # nothing is kept of it: it is read from where the other is now
                self._stored, self._is_overtaken = None, True
                return True
            self._stored = moved_on(stored, batch, rows)
            self._unpublished.update(rows)
        if self._unpublished:
            self._publish([*self._unpublished.items()])  # type: ignore[list-item] # keys and values pair up
            self._unpublished.clear()
        self.tell(reading.detail)
        # What was overtaken is looked at once more, after what is left of this round.
        is_due, self._is_overtaken = self._is_overtaken, self._is_overtaken and reading.more
        return reading.more or is_due

    def tell(self, detail: str) -> None:
        """Report the state if it is another than before."""
        records = self._stored.diagnostics.records if self._stored else 0
        state = self._source.state(records, detail)
        if state != self._told:
            self._told = state
            self._report(state)
