"""What judges, executes and forwards commands at a node, put together.

Invariant: a command takes one way through a node, `CommandDesk.submit`, whether it came from the
user's socket, over a connection of its own, or over links.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from meshnode.app.audit.alarms import Alarm
from meshnode.app.audit.auditing import AuditedCourt, AuditedDesk
from meshnode.app.commands.executing import Executor
from meshnode.app.commands.relaying import Desk, Relaying
from meshnode.app.sessions.readings import Readings
from meshnode.app.sessions.registry import Registrar
from meshnode.core.commands.envelopes import Correspondence
from meshnode.core.errors import UnreachableError
from meshnode.core.floor import ClockFloor
from meshnode.core.ledger.rounds import ROUNDS
from meshnode.node.audit.auditing import READ_AUDIT
from meshnode.node.clock import chance
from meshnode.node.homes.books import StoredJournal
from meshnode.node.ledger.rounds import read_rounds
from meshnode.node.sessions.outputs import Outputs
from meshnode.rpc.audit import AuditCourier, AuditServicer
from meshnode.rpc.commands import Bringer, CommandServicer, Courier
from meshnode.store import journal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshnode.app.queries.queries import Queries
    from meshnode.core.commands.commands import Command
    from meshnode.core.ids import NodeId
    from meshnode.node.audit.auditing import Auditing
    from meshnode.node.ground import Ground
    from meshnode.node.sessions.hosting import Hosting

READ_ROUNDS = "read_rounds"
CLOCK = "clock"  # the alarm
CLOCK_NOTED_S = 300.0  # on disk: as long as a steer lives; more often would wake an idle node


class Commanding:
    """The desk of a node, and the ways to the desks of others."""

    def __init__(
        self, ground: Ground, hosting: Hosting, queries: Queries, auditing: Auditing
    ) -> None:
        world, mesh = ground.world, ground.world.mesh
        self._mesh = mesh
        self.journal_generation = hosting.journal_generation
        self.floor = ClockFloor(ground.database.run_now(journal.floor))
        court = AuditedCourt(
            mesh.genesis.mesh_id,
            mesh.self_id,
            mesh.control,
            self.journal_generation,
            self.floor,
            auditor=auditing.auditor,
        )
        executor = Executor(hosting.sessions, Registrar(mesh.roster, world.publish))
        book = StoredJournal(ground.database)
        self.desk = AuditedDesk(
            court, ground.key, hosting.sessions, executor, book, ground.clock
        ).audited_by(auditing.auditor)
        self.desk.spawn = ground.spawn
        self.desk.check_sole = mesh.own.check_sole
        self._ground, self._agents_found = ground, hosting.agents_found
        self._auditing = auditing
        self._outputs = Outputs(hosting, ground.clock)
        judge, recheck = self.desk.judge_reading, self.desk.recheck_reading
        readings = Readings(judge, recheck, self._read, ground.clock)
        correspondence = Correspondence(ground.key, mesh.genesis.mesh_id, chance)
        desk = Desk(self.desk.submit, readings.piece)
        relaying = Relaying(mesh, correspondence, world.perform, desk, ground.spawn)
        self.relaying = world.relaying = relaying
        ways = (ground.identity, self._addresses_of, queries.described, relaying)
        self.courier = Courier(*ways)
        self.bringer = Bringer(mesh.self_id, self.desk, self.courier)
        self.servicer = CommandServicer(self.desk, self._read)
        auditing.court = court
        self.audit_for_members = AuditServicer(auditing)
        self.audit_for_user = AuditServicer(auditing, AuditCourier(*ways))

    def _read(self, command: Command) -> Iterator[bytes]:
        """Begin a reading that was allowed: the audit log, or rounds, as is asked; else output."""
        if command.action == READ_AUDIT:
            return self._auditing.read(command)
        if command.action == READ_ROUNDS or command.args.get("what") == ROUNDS:
            return read_rounds(self._ground.database, command)
        return self._outputs.read(command)

    def _addresses_of(self, owner: NodeId) -> tuple[str, ...]:
        """Return where to dial an owner; raises UnreachableError for one that is revoked."""
        if self._mesh.revoked.has(owner):
            raise UnreachableError(
                f"{self._mesh.tables.name_of(owner)} was revoked: nothing is sent to it any more",
                "stop its agents on that machine",
            )
        return self._mesh.overlay.addresses_of(owner)

    def start(self) -> None:
        """Go on with what the last run left, before anything new comes in; watch the clock."""
        undone = self._ground.database.run_now(journal.undone)
        self.desk.resume(undone, self._agents_found)
        self._ground.keep(self._watch_clock())

    async def _watch_clock(self) -> None:
        while True:
            await self.desk.tick()
            self._judge_clock(self._ground.clock.wall_s())
            await asyncio.sleep(CLOCK_NOTED_S)

    def _judge_clock(self, now_s: float) -> None:
        """Let an alarm stand while the clock is behind what it has shown: steers are refused."""
        if not self.floor.behind_s(now_s):
            self._ground.alarms.clear(CLOCK)
            return
        at = datetime.fromtimestamp(self.floor.at_s, UTC).isoformat(timespec="seconds")
        said = (
            f"this node's clock has shown {at} before, and is behind that: until then steers are"
            " refused, and kills and earlier invites that do not last as long; standing kills of a"
            " session are carried out, while others, and budgets, do not count if they are newer"
            " than the clock"
        )
        fix = (
            "set the clock if it is wrong; if it was ahead then, see Clocks in"
            " docs/protocol/commands.md; session-mesh kill ID --standing ends one meanwhile"
        )
        self._ground.alarms.sound(Alarm(CLOCK, said, fix))
