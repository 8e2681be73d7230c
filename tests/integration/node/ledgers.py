"""A node that keeps a ledger, without listeners: its feed, its disk, and time for it alone."""

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from types import SimpleNamespace

from doubles import InBackground, ManualClock
from integration.node.test_world import Node
from integration.rpc.fleet import WAIT_S, Founded
from msgspec.structs import replace
from usage_records import usage_record

from meshnode.app.sessions.reporting import ReportDesk
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.room import ALWAYS, OTHERS_PART
from meshnode.core.ids import session_id_of
from meshnode.core.ledger.charges import Charge
from meshnode.core.ledger.ledger import (
    LEDGER,
    SLOT_S,
    Diagnostics,
    DiagnosticsKey,
)
from meshnode.core.ledger.ledger_rows import (
    diagnostics_from_row,
    diagnostics_to_row,
    key_from_row,
    key_to_row,
    slot_from_row,
    slot_to_row,
)
from meshnode.core.membership.genesis import Limits
from meshnode.core.periods import DAY_S
from meshnode.core.sessions.sessions import SessionRecord, State
from meshnode.node.configuration.pricing import LatePrices
from meshnode.node.homes import persistence
from meshnode.node.ledger import following
from meshnode.node.ledger.following import Following
from meshnode.node.sessions.inside import StoredReports
from meshnode.store import folds, ledger, reports, usage_log
from meshnode.store.database import Database

ROOM = 20
LIMITS = Limits(rows_max=ROOM + len(ALWAYS))
MOST = ROOM - ROOM // OTHERS_PART


class Kept(Node):
    """A node that publishes what is in its ledger; time passes for the ledger alone."""

    def __init__(self, database: Database, limits: Limits = LIMITS, boot: int = 1) -> None:
        founded = Founded(3)
        founded.genesis = replace(founded.genesis, limits=limits)
        super().__init__(founded, database, boot)
        self.clock = ManualClock()
        self.tasks = InBackground()
        self.ground = ground = SimpleNamespace(
            database=database,
            world=self.world,
            clock=self.clock,
            alarms=self.alarms,
            spawn=self.tasks,
            key=founded.root,
        )
        self.following = Following(ground, None, SimpleNamespace(note=lambda _: None))
        self.counted = 0

    async def use(
        self, session: str, slots: int, days_ago: int = 0, source: str = "report"
    ) -> list:
        """Count a response in each of some half hours of a day; returns the rows to publish."""
        begin_s = (self.clock.now_s // DAY_S - days_ago) * DAY_S
        rows = []
        for number in range(slots):
            self.counted += 1
            record = usage_record(
                f"r{self.counted}", source=source, at_s=begin_s + number * SLOT_S, session=session
            )
            rows += await self.database.run(reports.count, record, lambda _: Charge())
        return rows

    async def read(self, path_hash: str, records: int) -> None:
        """Note that some responses were read of a path."""
        row = ("claude", path_hash, "path", diagnostics_to_row(Diagnostics(records)))
        statement = "INSERT OR REPLACE INTO usage_readers VALUES (?, ?, ?, ?)"
        await self.database.run(lambda connection: connection.execute(statement, row).rowcount)

    async def pass_days(self, days: int) -> None:
        """Let days pass, and the ledger be looked after."""
        self.clock.now_s += days * DAY_S
        await self.following._keeping.look()

    async def pass_s(self, steady_s: float, jump_s: float = 0.0) -> int:
        """Let time pass, and the clock jump; return how many records are kept then."""
        self.clock.now_s += steady_s
        self.clock.ahead_s += jump_s
        await self.following._keeping.look()
        query = "SELECT count(*) FROM usage_log"
        return (await self.database.run(lambda connection: connection.execute(query).fetchone()))[0]

    def said(self) -> dict:
        rows = ((key_from_row(k), v) for k, v in self.mesh.own.values(LEDGER).items())
        return {k: slot_from_row(v) for k, v in rows if not isinstance(k, DiagnosticsKey)}

    async def on_disk_are(self) -> dict:
        rows = await self.database.run(folds.published)
        return {key: value for key, value in rows if not isinstance(key, DiagnosticsKey)}

    def readers(self) -> dict[str, int]:
        """Return how many records each reader of logs is said to have read."""
        rows = ((key_from_row(k), v) for k, v in self.mesh.own.values(LEDGER).items())
        readers = ((k, v) for k, v in rows if isinstance(k, DiagnosticsKey))
        return {k.path_hash: diagnostics_from_row(v).records for k, v in readers}

    def desk(self, prices: Path) -> tuple[ReportDesk, StoredReports]:
        """Return what takes reports, and the book in which it counts them."""
        writable, counting = self.alarms.check_writable, self.following.counting
        book = StoredReports(self.database, LatePrices(prices, str), writable, counting)
        live = SimpleNamespace(live=list)
        return ReportDesk(live, book, self.following.publish, self.clock, self.tasks), book

    @property
    def session(self) -> SessionRecord:
        """Return one of its sessions."""
        session_id = session_id_of(self.mesh.self_id, Random(1).getrandbits(60))
        return SessionRecord(session_id, 1, "a", State.RUNNING, 1.0, 1.0)

    def give_back(self, rows: dict) -> None:
        """Take up what peers hold of a feed that our disk has lost."""
        mesh = self.mesh
        lost = OwnFeed(self.key, mesh.genesis.mesh_id, mesh.genesis.limits, 1)
        for key, slot in rows.items():
            lost.write(LEDGER, key_to_row(key), slot_to_row(slot))
        while lost.flush(1.0) is not None:
            pass
        mesh.own.continue_after(lost.header, lost.rows)

    async def looked_again(self) -> None:
        """Wait until a look at what others have written has begun and ended."""
        looked, looks, look = asyncio.Event(), 0, self.following._publish_since

        async def counted(seen: ledger.Mark | None) -> ledger.Mark | None:
            nonlocal looks
            try:
                return await look(seen)
            finally:
                looks += 1
                looked.set()

        self.following._publish_since = counted
        for wanted in (1, 2, 3):
            while looks < wanted:
                looked.clear()
                await looked.wait()
        self.following._publish_since = look

    async def end(self) -> None:
        """End at once, as if killed: what waits is not written any more."""
        self.world.close()
        for task in self.tasks.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks.tasks, return_exceptions=True)
        self.database.close()

    @property
    def told(self) -> list[str]:
        return [alarm.id for alarm in self.alarms.standing()]


@asynccontextmanager
async def kept(tmp_path, monkeypatch, limits=LIMITS):
    """Run one that waits for little; its own feed is written to its disk.

    While days pass, it is used: what is old is so by what was used, too.
    """
    wait_for_little(monkeypatch)
    node = Kept(Database(tmp_path / "state.db"), limits)
    monkeypatch.setattr(usage_log, "newest_s", lambda _: node.clock.wall_s())
    node.tasks(node.writer.run())
    async with asyncio.timeout(WAIT_S):
        yield node
    await node.end()


def wait_for_little(monkeypatch):
    """Have a node look at its ledger all the time."""
    for module, name in ((following, "LOOK_S"), (following, "AGAIN_S"), (persistence, "RETRY_S")):
        monkeypatch.setattr(module, name, 0.01)
