"""Making a home: a mesh of one with its root, its first operator and its first admitter."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from shlex import quote
from typing import TYPE_CHECKING, Any

from meshnode.app.membership.admission import packed_signed, unpacked_signed
from meshnode.client.durations import rfc3339
from meshnode.client.errors import GENESIS_BACK
from meshnode.client.home import Home, check_private, make_private, read_plain, unwritten
from meshnode.client.keys.keyfiles import read_secret, write_secret, write_whole
from meshnode.client.keys.rootfile import write_root
from meshnode.core.control.entries import role_entry, sign_entry
from meshnode.core.control.roles import Role
from meshnode.core.control.succession import Admits
from meshnode.core.errors import (
    ConflictError,
    DamagedError,
    MeshError,
    NotPermittedError,
    PeerError,
    RefusedError,
    UsageError,
)
from meshnode.core.ids import node_id_of
from meshnode.core.keys import KEY_BYTES, Key, Signed, key_id_of
from meshnode.core.membership.certificates import issue_admitter, issue_node_ca, to_pem
from meshnode.core.membership.genesis import Genesis, genesis_from_bytes
from meshnode.core.membership.members import NODE
from meshnode.core.packing import pack, typed, unpack_map
from meshnode.node.clock import SystemClock, chance
from meshnode.node.lock import HomeLock
from meshnode.node.names import checked_name, default_node_name, user_name
from meshnode.store import facts, feeds
from meshnode.store.database import Database
from meshnode.store.frozen import read_home

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from meshnode.client.keys.rootfile import Sealed

NAME_FACT = "node_name"
FOUNDED_S_MIN = 1_767_225_600  # 2026-01-01: no clock that is right has shown less to this code
ASIDE_BYTES = 6  # in the name of a root key that is put aside: no two of a home are alike


def init(
    home: Home, mesh_name: str | None, node_name: str | None, root_out: Sealed | None
) -> dict[str, Any]:
    """Make a mesh of one in an empty home; raises ConflictError if there is one already.

    `root_out`: where the root key is put instead of the home, sealed.
    """
    make_private(home.path)
    _check_new(home)  # before the lock: a node may run on it, which is no better reason
    with HomeLock(home, "init"):
        _check_new(home)
        return found(home, mesh_name, node_name, root_out)


def _check_clock() -> None:
    """Raise RefusedError at a time that cannot be: nobody would take what is issued then."""
    now_s = SystemClock().wall_s()
    if now_s < FOUNDED_S_MIN:
        raise RefusedError(
            f"this machine's clock says {rfc3339(now_s)}: the certificates of a mesh that is made"
            " now would have expired once it is right",
            "set the clock first: timedatectl set-ntp true",
        )


def found(
    home: Home, mesh_name: str | None, node_name: str | None, root_out: Sealed | None
) -> dict[str, Any]:
    """Make a mesh of one in a home without any, whose lock the caller holds; see `init`.

    A `root.key` that is there already is of a mesh whose founding a crash cut short, or that no
    node has run in since: it is put aside, never overwritten.
    Raises DamagedError for a home that was of a mesh.
    """
    _check_never_of_a_mesh(home)
    _check_clock()
    name = checked_name(node_name or default_node_name())
    mesh = checked_name(mesh_name or f"{_user()}-mesh")
    root, operator = Key.new(chance), operator_key(home)
    node = device_key(home)
    genesis = Genesis((root.public,), 1, mesh, chance(16))
    now_s = SystemClock().wall_s()
    node_id = node_id_of(node.public)
    admitter = issue_admitter(root, genesis.mesh_id, node_id, now_s, chance)
    certificates = (issue_node_ca(node, node_id, now_s, chance), admitter)
    role = Role(operator.public, "admin", _user(), root.public, int(now_s), None)
    entries = [
        role_entry(root, genesis.mesh_id, role, chance),
        sign_entry(
            root, genesis.mesh_id, Admits(node.public, admitter), chance, issued_s=int(now_s)
        ),
    ]
    root_key = root_out.path.absolute() if root_out else home.root_key
    earlier = _put_aside(home.root_key)
    if root_out:
        write_root(root_out, root, chance)
    else:
        write_secret(root_key, root.seed)
    try:
        database = Database(home.database)
        try:
            remember(home, database, {NAME_FACT: name.encode()}, entries)
        finally:
            database.close()
        settle(home, genesis, certificates)
    except MeshError:
        if not home.initialised:
            root_key.unlink()  # of a mesh that never was: outside the home it would be in the way
        raise
    said = {"earlier_root_key": str(earlier)} if earlier else {}
    return {
        "home": str(home.path),
        "mesh_id": genesis.mesh_id,
        "mesh_name": mesh,
        "node_id": node_id,
        "name": name,
        "root_key": str(root_key),
    } | said


def _check_new(home: Home) -> None:
    if home.initialised:
        raise ConflictError(
            f"{home.path} belongs to a mesh already", "use it, or name another --home"
        )
    if home.joining.exists():
        raise ConflictError(
            f"{home.path} is about to belong to a mesh: its join was cut short",
            "finish it: session-mesh up --detach; or name another --home",
        )


def _check_never_of_a_mesh(home: Home) -> None:
    """Raise DamagedError where a node has run, whose certificates a founding would overwrite."""
    if home.lacks_genesis or _has_members(home.database):
        raise _lacking(home)


def _has_members(path: Path) -> bool:
    if not path.exists() or path.stat().st_size == 0:  # as a crash may leave it
        return False
    return read_home(path, lambda disk: disk.run_now(feeds.has_table, NODE), checked=False)


def _lacking(home: Home) -> DamagedError:
    return DamagedError(f"this home was of a mesh, and {home.genesis} is missing", GENESIS_BACK)


def _put_aside(root_key: Path) -> Path | None:
    """Give a root key of no mesh that is known here another name; returns it, if there was one."""
    if not os.path.lexists(root_key):
        return None
    aside = root_key.with_name(f"{root_key.name}.{chance(ASIDE_BYTES).hex()}")
    try:
        root_key.rename(aside)
    except OSError as error:
        raise unwritten(root_key, error) from None
    return aside


def identity(home: Home, *, operator: bool = False) -> dict[str, Any]:
    """Return this device's public identity, making its key if there is none yet.

    `operator`: making the key that commands, too; it commands nothing before it is given a role.
    """
    make_private(home.path)
    node = device_key(home)
    found: dict[str, Any] = {"node_id": node_id_of(node.public), "public_key": node.public.hex()}
    if operator or home.operator_key.exists() or home.operator_key.is_symlink():
        commands = operator_key(home)
        found["operator_key"] = commands.public.hex()
        found["operator_key_id"] = key_id_of(commands.public)
    if home.initialised:
        genesis = read_genesis(home)
        found |= {"mesh_id": genesis.mesh_id, "mesh_name": genesis.name}
    return found


def device_key(home: Home) -> Key:
    """Return the node's key; a new one in a new home, DamagedError in a member's that lost its."""
    if home.initialised and not home.node_key.is_symlink() and not home.node_key.exists():
        raise DamagedError(
            f"{home.node_key} is missing, and without it this node is no member",
            f"restore it from a backup, or move {home.path} away and join again",
        )
    with suppress(ConflictError):
        write_secret(home.node_key, Key.new(chance).seed)
    return Key(read_secret(home.node_key))


def operator_key(home: Home) -> Key:
    """Return the key that commands, with all that goes with it; made where it is missing.

    It may be left from an attempt to join that failed.
    """
    for path in (home.operator_key, home.session_root):
        with suppress(ConflictError):
            write_secret(path, chance(KEY_BYTES))
    operator = Key(read_secret(home.operator_key))
    public = f"{operator.public.hex()}\n".encode()
    if not _holds(home.operator_public, public):  # a disk that is read-only must not be written to
        write_whole(home.operator_public, public)
    return operator


def _holds(path: Path, content: bytes) -> bool:
    try:
        return not path.is_symlink() and read_plain(path) == content
    except OSError:
        return False


def settle(home: Home, genesis: Genesis, certificates: tuple[bytes, ...]) -> None:
    """Make the home a member's; the genesis comes last, because it says that all else is there."""
    write_whole(home.certificates, to_pem(certificates))
    write_whole(home.genesis, genesis.to_bytes())


def read_genesis(home: Home) -> Genesis:
    """Read which mesh a home belongs to; raises UsageError for a home without one, DamagedError."""
    if home.lacks_genesis:
        raise _lacking(home)
    if not home.path.exists() or not home.initialised:
        raise UsageError(
            f"{home.path} belongs to no mesh yet", "run session-mesh init, or session-mesh join"
        )
    check_private(home.path)
    genesis = quote(str(home.genesis))
    try:
        return genesis_from_bytes(read_plain(home.genesis))
    except OSError as error:
        raise NotPermittedError(f"cannot read {home.genesis}: {error.strerror}") from error
    except MeshError as error:
        raise DamagedError(
            f"{home.genesis} is damaged: {error.message}",
            "stop what starts a node on this home (its service, if it has one); then put it back"
            f" from a backup, or move it away (mv {genesis} {genesis}.damaged) and join again",
        ) from error


def remember(
    home: Home, database: Database, values: dict[str, bytes], entries: list[Signed]
) -> None:
    """Keep what a member starts with in the database, and beside it: a database may be lost."""
    database.run_now(feeds.save, [], entries)
    database.run_now(facts.remember, values)
    write_whole(home.beginning, packed_beginning(values, map(packed_signed, entries)))


def packed_beginning(values: dict[str, bytes], control: Iterable[bytes]) -> bytes:
    """Return what is kept beside the database; `control`: packed entries."""
    return pack({"facts": values, "control": list(control)})


def beginning_from(packed: bytes) -> tuple[dict[str, bytes], list[Signed]]:
    """Read it again; raises PeerError, KeyError, TypeError or AttributeError if it is damaged."""
    kept = unpack_map(packed)
    entries = [unpacked_signed(packed) for packed in kept["control"]]
    return {typed(name, str): typed(one, bytes) for name, one in kept["facts"].items()}, entries


def beginning(home: Home) -> list[Signed]:
    """Return the control entries that this home started with; none if that is not known."""
    return entries_in(home.beginning)


def entries_in(path: Path) -> list[Signed]:
    """Return the control entries in a file of a home; none if it is not there, or damaged."""
    try:
        kept = unpack_map(read_plain(path))
        return [unpacked_signed(packed) for packed in kept["control"]]
    except (OSError, PeerError, KeyError, TypeError):
        return []


def recover(home: Home, database: Database) -> None:
    """Give a database that was lost, and made anew, what this home started with."""
    if database.run_now(facts.recall, NAME_FACT) is not None or not home.beginning.exists():
        return
    try:
        remember(home, database, *beginning_from(read_plain(home.beginning)))
    except (OSError, PeerError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(
            f"{home.beginning} is damaged", "restore it from a backup, or move it away"
        ) from error


def _user() -> str:
    return re.sub(r"[^\w.-]", "-", user_name())
