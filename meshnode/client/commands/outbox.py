"""Commands that may have to be sent again, byte for byte: a retry signed anew would be another one.

Invariant: at most COMMANDS_MAX files of each kind, the oldest go first; they hold no secret. A
command that cannot be kept is still sent. No owner knows of the end of what had ended already, so
that order is kept unsigned, and apart, so that neither pushes out the other: its id must not end
who follows.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from meshnode.core.commands.commands import COMMAND, command_from_signed
from meshnode.core.errors import ConflictError, PeerError
from meshnode.core.keys import Signed
from meshnode.core.packing import PACKED_BYTES_MAX, pack, unpack

if TYPE_CHECKING:
    from pathlib import Path

    from meshnode.client.home import Home
    from meshnode.client.targets.targets import Order

COMMANDS_MAX = 64
ORDER_FIELDS = 4  # node, session, action, arguments
UNSENT = ".unsent"  # how files end that hold an order alone


def keep(home: Home, command_id: str, command: Signed) -> None:
    """Store a command under its id."""
    _write(home, command_id, command.to_list())


def keep_ended(home: Home, command_id: str, order: Order) -> None:
    """Store an order that was not sent, since what it would end had ended already."""
    _write(home, command_id + UNSENT, _meant(order))


def drop(home: Home, command_id: str) -> None:
    """Forget a command that is known not to have been carried out."""
    with suppress(OSError):
        (home.path / "outbox" / command_id).unlink(missing_ok=True)


def kept(home: Home, command_id: str, order: Order) -> Signed | None:
    """Return the command sent under this id; raises ConflictError if it ordered something else.

    It may name an earlier epoch than the order: its owner has lost the journal since.
    """
    sent = _read(home, command_id)
    meant, command = sent if sent[0] else _read(home, command_id + UNSENT)
    if meant and meant != _meant(order):
        raise ConflictError(
            f"command {command_id} ordered something else", "leave --command-id out"
        )
    return command


def _read(home: Home, name: str) -> tuple[list[Any], Signed | None]:
    """Return what was ordered, and the command if one was sent; empty if nothing was."""
    try:
        with (home.path / "outbox" / name).open("rb") as file:
            said = unpack(file.read(PACKED_BYTES_MAX + 1))
        if len(said) == ORDER_FIELDS:
            return list(said), None
        payload, mark = said
        command = Signed(COMMAND, payload, mark)
        sent = command_from_signed(command)
    except (OSError, PeerError, ValueError, TypeError):
        return [], None
    return [sent.node, sent.session, sent.action, sent.args], command


def _write(home: Home, name: str, said: list[Any]) -> None:
    directory = home.path / "outbox"
    with suppress(OSError):
        directory.mkdir(mode=0o700, exist_ok=True)
        written = directory / name
        written.write_bytes(pack(said))
        kind = [one for one in directory.iterdir() if one.suffix == written.suffix]
        for old in sorted(kind, key=_age)[:-COMMANDS_MAX]:
            old.unlink(missing_ok=True)


def _meant(order: Order) -> list[Any]:
    return [order.node_id, order.session_id, order.action, order.args]


def _age(path: Path) -> float:
    return path.stat().st_mtime
