"""Commands that may have to be sent again, byte for byte: a retry signed anew would be another one.

Invariant: at most COMMANDS_MAX files, the oldest go first; they hold no secret. A command that
cannot be kept is still sent.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from meshnode.core.commands import COMMAND, command_from_signed
from meshnode.core.errors import ConflictError, PeerError
from meshnode.core.keys import Signed
from meshnode.core.packing import PACKED_BYTES_MAX, pack, unpack

if TYPE_CHECKING:
    from pathlib import Path

    from meshnode.client.home import Home
    from meshnode.client.targets import Order

COMMANDS_MAX = 64


def keep(home: Home, command_id: str, command: Signed) -> None:
    """Store a command under its id."""
    directory = home.path / "outbox"
    with suppress(OSError):
        directory.mkdir(mode=0o700, exist_ok=True)
        (directory / command_id).write_bytes(pack(command.to_list()))
        for old in sorted(directory.iterdir(), key=_age)[:-COMMANDS_MAX]:
            old.unlink(missing_ok=True)


def drop(home: Home, command_id: str) -> None:
    """Forget a command that is known not to have been carried out."""
    with suppress(OSError):
        (home.path / "outbox" / command_id).unlink(missing_ok=True)


def kept(home: Home, command_id: str, order: Order) -> Signed | None:
    """Return the command sent under this id; raises ConflictError if it ordered something else.

    It may name an earlier epoch than the order: its owner has lost the journal since.
    """
    try:
        with (home.path / "outbox" / command_id).open("rb") as file:
            payload, mark = unpack(file.read(PACKED_BYTES_MAX + 1))
        command = Signed(COMMAND, payload, mark)
        sent = command_from_signed(command)
    except (OSError, PeerError, ValueError, TypeError):
        return None
    if (sent.node, sent.session, sent.action, sent.args) != (
        order.node_id,
        order.session_id,
        order.action,
        order.args,
    ):
        raise ConflictError(
            f"command {command_id} ordered something else", "leave --command-id out"
        )
    return command


def _age(path: Path) -> float:
    return path.stat().st_mtime
