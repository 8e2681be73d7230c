"""Making a home a member's of a mesh that has admitted it, wherever a crash or a full disk comes.

What was given is first kept whole in one file, `joining.bin`. With that the home has joined: what
is not done yet is done by whoever starts or joins next, and each step can be done again.

Invariant: the keys of an old mesh keep their names for as long as its genesis is there; no node
runs on a home that is half of each mesh.
"""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.app.membership.admission import needed_first
from meshnode.client.home import read_plain, unwritten
from meshnode.client.keys.keyfiles import remove_whole, write_whole
from meshnode.core.errors import DamagedError, MeshError, NotPermittedError, PeerError
from meshnode.core.membership.certificates import from_pem, to_pem
from meshnode.core.membership.genesis import genesis_from_bytes
from meshnode.core.packing import PACKED_BYTES_MAX, pack, typed, unpack_map
from meshnode.node.clock import chance
from meshnode.node.homes.founding import (
    beginning_from,
    packed_beginning,
    read_genesis,
    remember,
    settle,
)
from meshnode.node.homes.roots import packed_roots
from meshnode.store.database import Database

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from meshnode.client.home import Home
    from meshnode.core.control.control import ControlSet
    from meshnode.core.keys import Signed
    from meshnode.core.membership.genesis import Genesis

MESH_CHARS = 12  # of the old mesh, in the name of a key that is put aside
ASIDE_BYTES = 6  # in that name too, if it is taken
FRAME_BYTES = 16  # of the list of entries, and of what it is in, beside the entries; rounded


class Entry(msgspec.Struct, frozen=True):
    """What makes a device a member. `values`: facts; `commands`: its user has a role there.

    `own`: the entries that say so, and those that this device has made.
    """

    genesis: Genesis
    certificates: tuple[bytes, ...]
    control: ControlSet
    own: Sequence[Signed]
    values: dict[str, bytes]
    commands: bool


def enter(home: Home, database: Database, entry: Entry) -> None:
    """Make a home, whose lock the caller holds, a member's; raises a MeshError.

    A home that the error leaves half done is finished by `finish`. Of a control set that is larger
    than one file may be, it keeps what a member needs first; its neighbours return the rest.
    """
    kept: dict[str, Any] = {
        "beginning": packed_beginning(entry.values, ()),
        "roots": packed_roots(entry.genesis, entry.control.succession),
        "certificates": to_pem(entry.certificates),
        "genesis": entry.genesis.to_bytes(),
        "old": _old_mesh(home, entry.genesis),
        "commands": entry.commands,
    }
    room = PACKED_BYTES_MAX - FRAME_BYTES - len(pack(kept))
    if room < 0:
        raise PeerError("what the inviting node said is more than a home may begin with")
    held = needed_first(entry.own, entry.control.entries(), entry.genesis.mesh_id, room)
    kept["beginning"] = packed_beginning(entry.values, held)
    write_whole(home.joining, pack(kept))
    try:
        finish(home, database)
    except MeshError as error:
        hint = f"{error.hint}; then let a start finish the join: session-mesh up --detach"
        raise type(error)(error.message, hint.removeprefix("; then ")) from error


def finish_begun(home: Home) -> None:
    """Do what a join left undone in a home, whose lock the caller holds; raises a MeshError."""
    if home.joining.exists():
        with closing(Database(home.database)) as database:
            finish(home, database)


def finish(home: Home, database: Database) -> None:
    """The same, with the home's database at hand; nothing where no join was cut short."""
    if not home.joining.exists():
        return
    try:
        kept = unpack_map(read_plain(home.joining))
        values, entries = beginning_from(typed(kept["beginning"], bytes))
        roots, old = typed(kept["roots"], bytes), typed(kept["old"], str)
        genesis = genesis_from_bytes(typed(kept["genesis"], bytes))
        certificates = from_pem(typed(kept["certificates"], bytes))
        commands = typed(kept["commands"], bool)
    except OSError as error:
        raise NotPermittedError(f"cannot read {home.joining}: {error.strerror}") from error
    except (PeerError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(
            f"{home.joining} is damaged: what a join has left to do is not known",
            "move it away, and join again with a new invite",
        ) from error
    remember(home, database, values, entries)
    write_whole(home.roots, roots)
    settle(home, genesis, certificates)
    if old:
        _put_aside(home, old, commands=commands)
    remove_whole(home.joining)


def _old_mesh(home: Home, genesis: Genesis) -> str:
    present = read_genesis(home).mesh_id if home.initialised else genesis.mesh_id
    return "" if present == genesis.mesh_id else present


def _put_aside(home: Home, old: str, *, commands: bool) -> None:
    """Rename what made this home the root of its own mesh, and what commanded there alone."""
    secrets = [home.root_key]
    if not commands:
        secrets += [home.operator_key, home.operator_public, home.session_root]
    for path in secrets:
        if os.path.lexists(path):
            try:
                path.rename(_aside(path, old))
            except OSError as error:
                raise unwritten(path, error) from None


def _aside(path: Path, old: str) -> Path:
    aside = path.with_name(f"{path.name}.{old[:MESH_CHARS]}")
    taken = os.path.lexists(aside)  # it was in that mesh before, with another key
    return aside.with_name(f"{aside.name}.{chance(ASIDE_BYTES).hex()}") if taken else aside
