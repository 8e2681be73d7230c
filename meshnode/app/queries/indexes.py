"""What a node keeps beside its feeds so that questions are answered quickly.

Invariant: an index says what the rows say, or it is not asked. Nothing here waits, and building
goes on between other work: half of the time at most, PIECE_S at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from meshnode.app.cost.cells import Cells
from meshnode.app.cost.tally import Rated
from meshnode.app.cost.totals import Totals
from meshnode.app.pieces import pauses
from meshnode.app.queries.directory import Directory

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from meshnode.app.cost.tally import Prices
    from meshnode.app.mesh.mesh import Mesh
    from meshnode.core.effects import Announce


class Indexes:
    """All indexes of one node."""

    def __init__(self, mesh: Mesh, prices: Prices) -> None:
        replicas = mesh.replication.replicas
        self.rated = Rated(prices)
        self.cells = Cells(replicas)
        self.totals = Totals(mesh.tables, replicas, self.cells, self.rated)
        self.directory = Directory(mesh.tables, replicas)
        self._stale = asyncio.Event()

    def begin(self) -> None:
        """Start from what the feeds hold now; from here on `take` must be told of every change."""
        self.cells.begin()
        self._stale.set()

    def before(self, others: Callable[[Announce], None]) -> Callable[[Announce], None]:
        """Begin, and return what takes all news first, and then hands them on."""

        def heard(news: Announce) -> None:
            self.take(news)
            others(news)

        self.begin()
        return heard

    def take(self, news: Announce) -> None:
        """Follow what the mesh announces."""
        self.cells.take(news)
        self.directory.take(news)
        if self.cells.waiting:
            self._stale.set()

    def build(self) -> Generator[None, None, None]:
        """Bring everything up to date; a chance to pause at each yield."""
        yield from self.cells.build()
        yield from self.totals.warm()

    async def run(self) -> None:
        """Build whatever is to be built, for as long as the node runs."""
        loop = asyncio.get_running_loop()
        while True:
            await self._stale.wait()
            self._stale.clear()
            began_s = loop.time()
            for _ in pauses(self.build(), loop.time):
                await asyncio.sleep(loop.time() - began_s)  # as long as that piece has taken
                began_s = loop.time()
