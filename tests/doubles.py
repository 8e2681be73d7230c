"""Stand-ins for what use cases need; the books pass the same contract tests as the real ones.

The contracts are in tests/integration/store/test_journal.py and test_invites.py.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from meshnode.app.ports import Steered, Undone
from meshnode.core.errors import (
    ConflictError,
    ExhaustedError,
    NotFoundError,
    NotPermittedError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from meshnode.app.ports import Device, JournalEntry, OutstandingInvite
    from meshnode.core.commands.steers import Instruction
    from meshnode.core.keys import Signed


@dataclass
class ManualClock:
    """Time that moves when told to; the wall clock may be ahead."""

    now_s: float = 1_790_000_000.0
    ahead_s: float = 0.0

    def steady_s(self) -> float:
        return self.now_s - 1_000_000_000.0

    def wall_s(self) -> float:
        return self.now_s + self.ahead_s


@dataclass
class MemoryJournal:
    """A replay journal without a disk; every call takes a turn of the loop, as a disk does."""

    commands_max: int = 100_000
    signer_max: int = 25_000
    begun: Counter[bytes] = field(default_factory=Counter)
    floor_s: float = 0.0
    kept: dict[bytes, tuple[JournalEntry, Signed | None]] = field(default_factory=dict)
    executing: set[bytes] = field(default_factory=set)

    async def begin(self, entry: JournalEntry, now_s: float) -> Signed | None:
        await asyncio.sleep(0)
        left = {i: kept for i, kept in self.kept.items() if kept[0].expires_s >= int(now_s)}
        if len(left) < len(self.kept):
            self.kept = left
            await self.raise_floor(now_s)
        if entry.command_id in self.kept:
            return await self.answered(entry)
        shares = Counter(kept.signer for kept, _ in self.kept.values())
        for held, most in (
            (len(self.kept), self.commands_max),
            (shares[entry.signer], self.signer_max),
        ):
            if held >= (most if entry.is_stop else most - most // 10):
                raise ExhaustedError("this node's journal is full")
        self.kept[entry.command_id] = (entry, None)
        self.begun[entry.command_id] += 1
        if entry.begins:
            self.executing.add(entry.command_id)
        return None

    async def answered(self, entry: JournalEntry) -> Signed | None:
        await asyncio.sleep(0)
        if entry.command_id not in self.kept:
            return None
        known, receipt = self.kept[entry.command_id]
        if known.content_hash != entry.content_hash:
            raise ConflictError("another command was sent with the same id")
        if receipt is None:
            raise ConflictError("the outcome is not known")
        return receipt

    async def execute(self, command_id: bytes) -> None:
        await asyncio.sleep(0)
        self.executing.add(command_id)

    async def raise_floor(self, now_s: float) -> None:
        self.floor_s = max(self.floor_s, int(now_s))

    async def undone(self) -> list[Undone]:
        return [
            Undone(entry.command, command_id in self.executing)
            for command_id, (entry, receipt) in self.kept.items()
            if receipt is None and entry.command is not None
        ]

    async def finish(self, command_id: bytes, receipt: Signed) -> None:
        await asyncio.sleep(0)
        if command_id in self.kept:
            self.kept[command_id] = (self.kept[command_id][0], receipt)


@dataclass
class MemoryInvites:
    """The invites of an admitter without a disk."""

    invites_max: int = 1000
    _kept: dict[bytes, OutstandingInvite] = field(default_factory=dict)
    _admitted: dict[tuple[bytes, bytes], bytes] = field(default_factory=dict)

    async def add(self, invite: OutstandingInvite, now_s: float, old_s: float) -> None:
        await asyncio.sleep(0)
        self._kept = {i: kept for i, kept in self._kept.items() if kept.expires_s >= old_s}
        over = [one for one in self._kept.values() if not one.uses_left or one.expires_s < now_s]
        if len(self._kept) - len(over) >= self.invites_max:
            raise ConflictError(f"{self.invites_max} invites are outstanding")
        over.sort(key=lambda one: (one.uses_left > 0, one.expires_s))
        for one in over[: max(0, len(self._kept) + 1 - 2 * self.invites_max)]:
            del self._kept[one.invite_id]
        self._kept[invite.invite_id] = invite

    async def get(self, invite_id: bytes) -> OutstandingInvite:
        await asyncio.sleep(0)
        if invite_id not in self._kept:
            raise NotFoundError("this invite is not known here")
        return self._kept[invite_id]

    async def take_use(self, invite_id: bytes, device: Device, now_s: float) -> bool:
        await asyncio.sleep(0)
        again = self._admitted.get((invite_id, device.node_key))
        if again == device.operator_key:
            return False
        if again is not None:
            raise NotPermittedError("this invite was used with another operator key")
        kept = self._kept.get(invite_id)
        if kept is None or kept.uses_left < 1 or kept.expires_s < int(now_s):
            raise NotPermittedError("this invite is used up or has expired")
        self._kept[invite_id] = replace(kept, uses_left=kept.uses_left - 1)
        self._admitted[invite_id, device.node_key] = device.operator_key
        return True


@dataclass(frozen=True)
class Killed:
    """What became of a process tree."""

    found: int = 1
    gone: int = 1
    survivors: tuple[int, ...] = ()
    needed: str = ""
    suspended: bool = False


ON_STDIN = Steered(on_stdin=True, followed=False)


@dataclass
class ScriptedAgents:
    """Agents that do as they are told, and remember it; `gate` holds them until it is set."""

    fault: Exception | None = None
    killed: Killed = Killed()
    gate: asyncio.Event | None = None
    landed: Steered = ON_STDIN
    on_killed: Callable[[str], Awaitable[None]] | None = None  # what a supervisor would report
    steered: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    kills: list[str] = field(default_factory=list)
    whose: dict[str, str] = field(default_factory=dict)
    asked_to_end: list[str] = field(default_factory=list)
    suspended: set[str] = field(default_factory=set)
    answering: set[str] = field(default_factory=set)  # supervisors that nobody follows
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    async def attach(self, session_id: str, directory: Path, socket: Path) -> None:
        del session_id, directory, socket

    async def answers(self, session_id: str, directory: Path, socket: Path) -> bool:
        del directory, socket
        return session_id in self.answering

    async def steer(self, session_id: str, command_id: str, steer: Instruction) -> Steered:
        del command_id
        await self._act()
        self.steered.append((session_id, steer.direction or None, steer.message or None))
        return self.landed

    def ordered(self, session_id: str, whose: str) -> None:
        self.whose[session_id] = whose

    async def kill(
        self, session_id: str, command_id: str, grace_s: float, *, force: bool
    ) -> Killed:
        del command_id, grace_s, force
        await self._act()
        self.kills.append(session_id)
        if self.on_killed is not None:
            await self.on_killed(session_id)
        return self.killed

    async def ask_to_end(self, session_id: str, command_id: str, grace_s: float) -> Killed:
        del command_id, grace_s
        await self._act()
        self.asked_to_end.append(session_id)
        return self.killed

    async def suspend(self, session_id: str) -> int:
        await self._act()
        self.suspended.add(session_id)
        return 2

    async def resume(self, session_id: str) -> int:
        await self._act()
        was = session_id in self.suspended
        self.suspended.discard(session_id)
        return 2 if was else 0

    async def _act(self) -> None:
        self.reached.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.fault is not None:
            raise self.fault


@dataclass
class Published:
    """Rows that were published, newest last, by table and key."""

    rows: dict[tuple[str, bytes], bytes | None] = field(default_factory=dict)

    async def __call__(self, table: str, key: bytes, value: bytes | None) -> None:
        await asyncio.sleep(0)
        self.rows[table, key] = value


class InBackground:
    """Runs background work as a node does; `tasks` are those that have not ended."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()

    def __call__(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


def nowhere(session_id: str) -> tuple[Path, Path]:
    """Give a session a place that nobody looks at."""
    return Path("sessions", session_id), Path("run", session_id)
