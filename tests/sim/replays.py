"""Commands that come doubled, late, out of order and across crashes, at a real desk and journal.

Invariant that is checked: a steer reaches its agent at most once, a kill finds its session at most
once; every receipt of a command says what has happened to it, and later ones say the same.

Each run is a function of its seed, but for the order in which the database's thread gets on.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from doubles import ON_STDIN, Killed, ManualClock, ScriptedAgents
from msgspec.structs import replace
from owner import KEY, NODE, SESSION, Owner, chance

from meshnode.app.commands.quotas import Allowance, Quota
from meshnode.core.commands.commands import KILL_LIFE_S, receipt_from_signed, sign_command
from meshnode.core.errors import MeshError
from meshnode.core.floor import SKEW_S
from meshnode.core.ids import SessionId, b32
from meshnode.node.homes.books import StoredJournal
from meshnode.store import journal as stored
from meshnode.store.database import Database

if TYPE_CHECKING:
    from meshnode.app.ports import JournalEntry, Steered
    from meshnode.core.commands.commands import Receipt
    from meshnode.core.commands.steers import Instruction
    from meshnode.core.keys import Signed
    from meshnode.core.sessions.sessions import SessionRecord

SESSIONS = 40
BATCH = 40
REMEMBERED = 400  # commands that may come again
PLACES = ("begin", "begun", "execute", "executing", "finish", "finished", "agent", "acted")
NOTHING_HAPPENED = {"refused", "expired", "unknown"}


@dataclass
class Report:
    """What was tried, and what must not have been found."""

    commands: int = 0
    deliveries: int = 0
    crashes: Counter[str] = field(default_factory=Counter)
    wipes: int = 0
    clock_steps: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """A few lines."""
        return (
            f"{self.commands:,} commands delivered {self.deliveries:,} times, "
            f"{self.crashes.total()} crashes, {self.wipes} wiped disks, "
            f"{self.clock_steps} steps of the clock: {len(self.faults)} faults\n"
            f"crashes at {dict(self.crashes)}\noutcomes {dict(self.outcomes)}"
        )


class Crash:
    """Where the next crash happens: at the so many-th passage of a place."""

    def __init__(self) -> None:
        self.place, self.left = "", 0
        self.happened = asyncio.Event()

    def plan(self, place: str, passages: int) -> None:
        self.place, self.left = place, passages
        self.happened.clear()

    async def pass_by(self, place: str) -> None:
        if self.happened.is_set():
            await asyncio.Event().wait()  # the process is no more
        if place == self.place:
            self.left -= 1
            if self.left <= 0:
                self.happened.set()
                await asyncio.Event().wait()


class CrashingJournal(StoredJournal):
    """The real one, and a process that may end before and after each of its writes."""

    def __init__(self, database: Database, crash: Crash) -> None:
        super().__init__(database)
        self._crash = crash

    async def begin(self, entry: JournalEntry, now_s: float) -> Signed | None:
        await self._crash.pass_by("begin")
        known = await super().begin(entry, now_s)
        await self._crash.pass_by("begun")
        return known

    async def execute(self, command_id: bytes) -> None:
        await self._crash.pass_by("execute")
        await super().execute(command_id)
        await self._crash.pass_by("executing")

    async def finish(self, command_id: bytes, receipt: Signed) -> None:
        await self._crash.pass_by("finish")
        await super().finish(command_id, receipt)
        await self._crash.pass_by("finished")


class CountingAgents(ScriptedAgents):
    """Agents that live on, and know how often they were told what."""

    def __init__(self, crash: Crash) -> None:
        super().__init__()
        self._crash = crash
        self.told: Counter[str] = Counter()
        self.found: Counter[str] = Counter()  # kills that found something, by session

    async def steer(self, session_id: str, command_id: str, steer: Instruction) -> Steered:
        del session_id, steer
        await self._crash.pass_by("agent")
        self.told[command_id] += 1
        await self._crash.pass_by("acted")
        return ON_STDIN

    async def kill(
        self, session_id: str, command_id: str, grace_s: float, *, force: bool
    ) -> Killed:
        await self._crash.pass_by("agent")
        first = not self.found[session_id]
        self.found[session_id] += first
        if first:
            self.told[command_id] += 1
        if self.on_killed is not None:
            await self.on_killed(session_id)
        await self._crash.pass_by("acted")
        return Killed(int(first), int(first))


class Replays:
    """One owner over many lives, and those who send to it."""

    def __init__(self, seed: int, path: Path) -> None:
        self.rng = Random(seed)
        self.path = path
        self.report = Report()
        self.clock, self.crash = ManualClock(), Crash()
        self.set_back_s = 0
        self.agents = CountingAgents(self.crash)
        self.database = Database(path)
        self.records: list[SessionRecord] = [
            replace(SESSION, session_id=SessionId(f"{n:026d}"), agent_id=f"a{n}")
            for n in range(SESSIONS)
        ]
        self.sent: list[tuple[str, Signed]] = []
        self.said: dict[bytes, Receipt] = {}
        self.owner = self._start()

    async def run(self, commands: int) -> Report:
        """Send so many commands, each perhaps many times; raises AssertionError at a fault."""
        while self.report.commands < commands:
            if self.rng.random() < 0.5:
                self.crash.plan(self.rng.choice(PLACES), self.rng.randint(1, BATCH // 4))
            await self._batch()
            self._step_clock()
        await self._batch()
        self.database.close()
        for command_id, count in self.agents.told.items():
            if count > 1:
                self.report.faults.append(f"{command_id} was carried out {count} times")
        return self.report

    async def _batch(self) -> None:
        new = [self._signed() for _ in range(self.rng.randint(1, BATCH))]
        self.report.commands += len(new)
        self.sent = (self.sent + new)[-REMEMBERED:]
        again = self.rng.choices(self.sent, k=self.rng.randint(0, BATCH))
        deliveries = new + self.rng.choices(new, k=len(new)) + again
        self.rng.shuffle(deliveries)
        self.report.deliveries += len(deliveries)
        callers = asyncio.gather(*(self._deliver(*one) for one in deliveries))
        ended = asyncio.ensure_future(self.crash.happened.wait())
        await asyncio.wait({callers, ended}, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not callers.done():
            callers.cancel()
            await self._restart()
            await asyncio.gather(callers, return_exceptions=True)
        self.crash.plan("", 0)

    async def _deliver(self, command_id: str, signed: Signed) -> None:
        accepted = self.rng.random() < 0.1
        try:
            answer = await self.owner.desk.submit(signed, "peer", until_accepted=accepted)
        except MeshError as error:
            self.report.outcomes[f"error {error.code}"] += 1
            return
        receipt = receipt_from_signed(answer, NODE.public)
        self.report.outcomes[receipt.outcome] += 1
        if receipt.outcome != "accepted":
            self._check(command_id, signed, receipt)

    def _check(self, command_id: str, signed: Signed, receipt: Receipt) -> None:
        first = self.said.setdefault(receipt.command_id, receipt)
        told = self.agents.told[command_id]
        if receipt != first or receipt.command_hash != signed.hash:
            self.report.faults.append(f"{command_id}: {first.outcome}, then {receipt.outcome}")
        if (receipt.outcome == "delivered" and told != 1) or (
            receipt.outcome in NOTHING_HAPPENED and told
        ):
            self.report.faults.append(f"{command_id}: {receipt.outcome}, and carried out {told}")

    async def _restart(self) -> None:
        """End the process where it stands; perhaps lose its disk; start it anew."""
        self.report.crashes[self.crash.place] += 1
        await self.owner.crash()
        self.records = [self.owner.sessions.get(one.session_id) or one for one in self.records]
        self.database.close()
        if self.rng.random() < 0.1:
            self.report.wipes += 1
            for part in self.path.parent.glob(self.path.name + "*"):
                part.unlink()
        self.crash.plan("", 0)
        self.database = Database(self.path)
        self.owner = self._start()

    def _start(self) -> Owner:
        fresh = self.database.run_now(stored.generation, int.from_bytes(chance(8), "big"))
        owner = Owner(
            self.agents,
            CrashingJournal(self.database, self.crash),
            self.clock,
            generation=fresh,
            floor_s=self.database.run_now(stored.floor),
            sessions=self.records,
        )
        everything = Allowance(burst=1 << 40, per_s=1.0)
        owner.desk.of_peer = owner.desk.of_signer = Quota(everything, "anybody")
        owner.resume(self.database.run_now(stored.undone))
        return owner

    def _signed(self) -> tuple[str, Signed]:
        record = self.owner.sessions.get(self.rng.choice(self.records).session_id)
        action = "kill" if self.rng.random() < SESSIONS / 4000 else "steer"
        now_s = int(self.clock.now_s) + self.rng.randint(-SKEW_S, SKEW_S)
        life_s = self.rng.choice((5, 60, 300, KILL_LIFE_S // 2 if action == "kill" else 300))
        command = self.owner.command(
            action,
            command_id=self.rng.randbytes(16),
            session=record.session_id if record else "",
            epoch=record.session_epoch if record else 0,
            issued_s=now_s,
            expires_s=now_s + life_s,
        )
        return b32(command.command_id), sign_command(KEY, command)

    def _step_clock(self) -> None:
        chosen = self.rng.random()
        if self.set_back_s:
            if chosen < 0.3:  # somebody sets it right
                self.clock.now_s += self.set_back_s
                self.set_back_s = 0
        elif chosen < 0.02:
            self.report.clock_steps += 1
            self.set_back_s = self.rng.choice((60, 3600))
            self.clock.now_s -= self.set_back_s
        elif chosen < 0.04:
            self.clock.now_s += self.rng.choice((400, 3600))
        else:
            self.clock.now_s += self.rng.random() * 3
        if len(self.owner.sessions.live()) < SESSIONS // 2:
            self._open_more()

    def _open_more(self) -> None:
        """Let other agents take the places of those that were killed."""
        number = len(self.agents.found)
        live = self.owner.sessions.live()
        fresh = [
            replace(
                SESSION,
                session_id=SessionId(self.rng.randbytes(13).hex()),
                session_epoch=self.owner.generation >> 32 << 32 | 7,
                agent_id=f"b{number}-{place}",
            )
            for place in range(SESSIONS - len(live))
        ]
        self.records = live + fresh
        self.owner.sessions.restore(self.records)


def simulate(seed: int, commands: int) -> Report:
    """Run one simulation in a directory of its own."""
    with tempfile.TemporaryDirectory() as directory:

        async def run() -> Report:
            return await Replays(seed, Path(directory) / "state.db").run(commands)

        return asyncio.run(run())
