"""What the use cases need of the world outside, as small protocols and the values they exchange.

Invariant: use cases know these only; the composition root decides what stands behind them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from meshnode.app.audit.witnessing import Seen
    from meshnode.core.commands.audit import Kept
    from meshnode.core.commands.commands import Command
    from meshnode.core.commands.steers import Instruction
    from meshnode.core.ids import NodeId
    from meshnode.core.keys import Signed


class JournalEntry(msgspec.Struct, frozen=True):
    """A command as the replay journal knows it."""

    command_id: bytes
    content_hash: bytes
    expires_s: int
    signer: bytes = b""  # whose share of the journal it takes: a name for a grant
    is_stop: bool = False  # taken also where there is room for nothing else
    command: Signed | None = None  # kept until it is done, so that a restarted node can go on
    begins: bool = False  # its execution begins with the same write, as `execute` would say


class Undone(msgspec.Struct, frozen=True):
    """A command that a node had taken and not finished when it ended."""

    command: Signed
    has_begun: bool


class OutstandingInvite(msgspec.Struct, frozen=True):
    """An invite as its admitter keeps it."""

    invite_id: bytes
    secret: bytes
    authorization: Signed
    role: str
    uses_left: int
    expires_s: int  # by the latest time that the admitter's clock has shown
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    for_key: bytes = b""  # the only device it admits; empty for any


class Device(msgspec.Struct, frozen=True):
    """Who spends a use of an invite: a node, and the operator key that shall get a role or none."""

    node_key: bytes
    operator_key: bytes = b""


class Sought(msgspec.Struct, frozen=True):
    """Which audit records: all that is not empty must fit. `session` may be how an id begins."""

    since_ms: int = 0
    session: str = ""
    kinds: tuple[str, ...] = ()
    limit: int = 0  # the newest so many; 0 for the whole log, whatever is sought


class Clock(Protocol):
    """Time, twice: steady for timers, wall for people and signatures. Both in seconds."""

    def steady_s(self) -> float:
        """Return a time that never jumps."""

    def wall_s(self) -> float:
        """Return the time since 1970, UTC."""


class Journal(Protocol):
    """The replay journal. What it is told is on disk, synced, when a call returns."""

    async def begin(self, entry: JournalEntry, now_s: float) -> Signed | None:
        """Insert a command; None if new, else its receipt.

        Raises ConflictError, and RefusedError if there is no room or the disk fails.
        """

    async def answered(self, entry: JournalEntry) -> Signed | None:
        """Return a command's receipt, None if it is not known; raises ConflictError."""

    async def execute(self, command_id: bytes) -> None:
        """Mark a command whose execution begins; raises RefusedError if the disk fails."""

    async def finish(self, command_id: bytes, receipt: Signed) -> None:
        """Keep what became of a command."""

    async def raise_floor(self, now_s: float) -> None:
        """Note the latest time that the clock has shown, as far as the disk takes it."""


class OrderBook(Protocol):
    """What became of standing kills, each an order's id and a session's."""

    async def begin(
        self, key: tuple[bytes, str], issuer: bytes, expires_s: int, now_s: float
    ) -> bool:
        """Insert one, synced; False if it was answered before. Raises RefusedError."""

    async def finish(self, key: tuple[bytes, str], outcome: str) -> None:
        """Keep what became of it."""


class InviteBook(Protocol):
    """The invites of an admitter."""

    async def add(self, invite: OutstandingInvite, now_s: float, old_s: float) -> None:
        """Keep an invite, and none that expired before `old_s`; raises ConflictError."""

    async def get(self, invite_id: bytes) -> OutstandingInvite:
        """Return an invite; raises NotFoundError."""

    async def take_use(self, invite_id: bytes, device: Device, now_s: float) -> bool:
        """Take one use for a device, False if it has had one; raises NotPermittedError."""


class AuditBook(Protocol):
    """A node's audit log, and what the node has seen of others'."""

    @property
    def self_id(self) -> NodeId:
        """Whose log it is."""

    def judge(self, signed: Signed, via: str) -> Command:
        """Return a request if it may read the log; raises a MeshError."""

    def check_revocations(self, command: Command) -> None:
        """Raise NotAuthenticatedError if what a request stands on was revoked since."""

    def pages(self, sought: Sought) -> AsyncIterator[tuple[int, list[Kept]]]:
        """Yield the log's number and records, part by part, one part at least."""

    async def heads(self, node_id: str) -> list[Seen]:
        """Return what was seen of a node's log; of all nodes what proves a change, for no id."""

    async def accept(self, node: NodeId) -> int:
        """Forget what was seen of a node's log; return how many heads that was."""

    def neighbours(self) -> tuple[NodeId, ...]:
        """Return who else may have seen heads."""


class Killing(Protocol):
    """What became of a process tree."""

    @property
    def found(self) -> int:
        """How many processes there were."""

    @property
    def gone(self) -> int:
        """How many are verified gone."""

    @property
    def survivors(self) -> tuple[int, ...]:
        """Process ids that are still there."""

    @property
    def needed(self) -> str:
        """The last signal, TERM or KILL, that a tree needed which was asked to end by itself."""

    @property
    def suspended(self) -> bool:
        """Whether what is left stands still, as it did before."""


class Steered(msgspec.Struct, frozen=True):
    """Where a steer has come: into the agent's inbox always, and perhaps into its stdin."""

    on_stdin: bool
    followed: bool  # whether somebody was waiting at the inbox
    interrupted: str = ""  # the signal that the agent was sent first
    behind: int = 0  # steers in the inbox before this one, which the agent has not dealt with


class Agents(Protocol):
    """Processes under supervision."""

    async def attach(self, session_id: str, directory: Path, socket: Path) -> None:
        """Follow a session's supervisor until the session ends."""

    async def answers(self, session_id: str, directory: Path, socket: Path) -> bool:
        """Whether a supervisor answers for a session that is not followed."""

    async def steer(self, session_id: str, command_id: str, steer: Instruction) -> Steered:
        """Hand a steer to an agent; raises RefusedError or UnreachableError.

        MeshError: it was interrupted, and told nothing.
        """

    def ordered(self, session_id: str, whose: str) -> None:
        """Note whose the next kill or close is; its words go on with "the agent was killed"."""

    async def kill(
        self, session_id: str, command_id: str, grace_s: float, *, force: bool
    ) -> Killing:
        """Stop a whole process tree and verify that it is gone."""

    async def ask_to_end(self, session_id: str, command_id: str, grace_s: float) -> Killing:
        """Ask an agent to end by itself, and wait; raises RefusedError or UnreachableError."""

    async def suspend(self, session_id: str) -> int:
        """Stop all processes of a tree; returns how many. Raises RefusedError, UnreachableError."""

    async def resume(self, session_id: str) -> int:
        """Let a tree run on; returns how many processes. Raises as `suspend` does."""


class Publish(Protocol):
    """Writes a row into this node's feed; returns once it is on disk and on its way."""

    async def __call__(self, table: str, key: bytes, value: bytes | None) -> None:
        """Write, or delete where value is None."""
