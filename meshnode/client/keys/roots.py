"""The mesh's root key in the hands of its owner: opened for one act, copied, exchanged.

Invariant: a root key is read where a person says it lies, signs in this process, and never goes to
the node, which gets signed entries only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.client.keys.authorities import (
    called,
    check_root,
    give,
    issue,
    joined_with,
    known,
    operators,
    weakened,
)
from meshnode.client.keys.authority import mesh_id_of
from meshnode.client.keys.rootfile import Sealed, read_root, write_root
from meshnode.client.targets.nodes import node_id_in
from meshnode.core.control.entries import Revoke
from meshnode.core.control.roles import ACTIONS_OF_ROLE, NAME_CHARS_MAX
from meshnode.core.control.succession import ROOTS_MAX, Admits, RootKeys
from meshnode.core.errors import ConflictError, MeshError, NotFoundError
from meshnode.core.ids import NodeId, node_key_of
from meshnode.core.keys import Key, key_id_of
from meshnode.core.membership.certificates import issue_admitter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from meshnode.client.connection.asking import Asking
    from meshnode.client.connection.connection import Connection
    from meshnode.client.home import Home
    from meshnode.core.ids import Chance
    from meshnode.v1 import authority_service_pb2 as pb

    Ask = Callable[[Path], str]
    Plain = dict[str, Any]


def open_root(home: Home, path: Path | None, ask: Ask) -> Key:
    """Read the root key from a file, else from the home; raises a MeshError."""
    try:
        return read_root(path or home.root_key, ask)
    except NotFoundError as error:
        hint = "say where it is kept: --root FILE" if path is None else "see docs/keys.md"
        raise NotFoundError(error.message, hint) from None


def export_root(root: Key, place: Sealed, chance: Chance) -> dict[str, Any]:
    """Write a sealed copy of the root key, and read it back: `file, key_id`."""
    write_root(place, root, chance)
    if read_root(place.path, lambda _: place.passphrase).seed != root.seed:
        raise MeshError(f"{place.path} does not hold what was written", "try another disk")
    return {"file": str(place.path.absolute()), "key_id": key_id_of(root.public)}


def holds_root(home: Home, root: Key, ask: Ask) -> bool:
    """Whether a home has this root key itself; raises ConflictError if it has another one.

    To be asked before a copy is made of the one, lest the other is deleted for it.
    """
    try:
        held = read_root(home.root_key, ask)
    except NotFoundError:
        return False
    if held.seed != root.seed:
        said = f"{home.root_key} is another root key, {key_id_of(held.public)}: it was left there"
        raise ConflictError(said, "leave out --root to export it, or --remove")
    return True


def remove_plain_root(home: Home) -> None:
    """Delete the unsealed root key of a home, of which there is a copy elsewhere."""
    home.root_key.unlink(missing_ok=True)


def listed(mesh: Connection) -> Plain:
    """Return the roots and who admits by which: `version, roots, admitters`."""
    found = known(mesh)
    return {
        "version": found.version,
        "roots": [{"key_id": key_id_of(key), "public_key": key.hex()} for key in found.roots],
        "retired": [key_id_of(key) for key in found.removed_roots],
        "admitters": [
            {"node_id": one.node_id, "root": key_id_of(one.root), "expires_at": one.expires_at}
            for one in found.admitters
        ],
    }


def promote(mesh: Asking, name: str, root: Key) -> Plain:
    """Let a node admit others for ten years, by the root's word: `node_id, name, root, operator`.

    `operator` is whose invites it may make out if it is an admin, as listed, and None if not known.
    Raises ConflictError for one that is revoked, by an admin too: it would come back by that.
    """
    found = known(mesh)
    check_root(root, found)
    nodes = mesh.nodes()["nodes"]
    node_id = node_id_in(nodes, name)
    node = next(one for one in nodes if one["node_id"] == node_id)
    if node["state"] == "revoked":
        said = f"{node['name']} is revoked: it can admit nobody"
        raise ConflictError(
            said, "let the device join anew first: its session-mesh doctor says how"
        )
    _certify(mesh, root, node_id)
    user = joined_with(found, node_id)
    return {
        "node_id": node_id,
        "name": node["name"],
        "root": key_id_of(root.public),
        "operator": user and {one: user[one] for one in ("key_id", "public_key", "name", "role")},
    }


def rotate(mesh: Connection, root: Key, place: Sealed) -> Plain:
    """Make another root beside the present ones, and let it certify who admits.

    Its file is written first, and deleted only if our node says that the key is no root, since what
    failed may have come through. Raises ConflictError if others exchange the roots meanwhile.
    """
    _rotatable(mesh, root)
    new = Key.new(mesh.chance)
    export_root(new, place, mesh.chance)
    try:
        found = _rotatable(mesh, root)  # again: to seal a file takes a while
        _exchange(mesh, root, found, (*found.roots, new.public))
    except MeshError as error:
        _keep_or_delete(mesh, new, place.path, error)
        raise
    for node_id in {one.node_id for one in found.admitters}:
        _certify(mesh, new, node_id)
    return {
        "key_id": key_id_of(new.public),
        "file": str(place.path.absolute()),
        "version": found.version + 1,
        "roots": [key_id_of(key) for key in (*found.roots, new.public)],
    }


def _keep_or_delete(mesh: Connection, new: Key, path: Path, error: MeshError) -> None:
    """Delete the file of a root that never was; tell in the error that it is kept otherwise."""
    named = f"{path} holds root {key_id_of(new.public)}"
    try:
        if new.public in known(mesh).roots:
            error.message += f"; {named}, which counts from now on: keep it"
            return
    except MeshError:
        error.message += f"; {named}, which may count or not: session-mesh root list will tell"
        return
    path.unlink()


def _rotatable(mesh: Connection, root: Key) -> pb.ListAuthoritiesResponse:
    found = known(mesh)
    check_root(root, found)
    if len(found.roots) >= ROOTS_MAX:
        raise ConflictError(f"there are {ROOTS_MAX} roots already", "retire one: root retire")
    return found


class Retirement(msgspec.Struct, frozen=True):
    """A root that is to be removed, and the active keys that it gave a role itself.

    With that role, which may be weaker than what they have by others.
    """

    key: bytes
    found: pb.ListAuthoritiesResponse
    given: tuple[Plain, ...]


def retirement(mesh: Connection, key_id: str, root: Key) -> Retirement:
    """Find out what retiring a root would mean; raises a MeshError, having changed nothing.

    `root`: one that stays, and signs.
    """
    found = known(mesh)
    check_root(root, found)
    fitting = [key for key in found.roots if key_id_of(key) == key_id]
    if not fitting:
        raise NotFoundError(f"no root {key_id[:80]!r}", "session-mesh root list shows them")
    if fitting == [root.public]:
        raise ConflictError(
            "a root does not retire itself",
            "sign with one that stays: session-mesh root rotate makes one",
        )
    return Retirement(fitting[0], found, _rows(found, _given_by(fitting[0], found)))


def _given_by(root: bytes, found: pb.ListAuthoritiesResponse) -> list[pb.GivenRole]:
    """Return the strongest role that a root gave to each active key."""
    strongest: dict[bytes, pb.GivenRole] = {}
    for one in found.roles:
        before = strongest.get(one.subject)
        if (one.giver, one.state) == (root, "active") and (
            before is None or ACTIONS_OF_ROLE[one.role] > ACTIONS_OF_ROLE[before.role]
        ):
            strongest[one.subject] = one
    return list(strongest.values())


def _spared_by(root: bytes, found: pb.ListAuthoritiesResponse) -> list[pb.GivenRole]:
    """Return what a root gave to admins that are revoked, and on which the roles of others stand.

    Those count only while a present root says that it was an admin who gave them.
    """
    givers = {one.giver for one in found.roles if one.state == "active"}
    return [
        one
        for one in found.roles
        if (one.giver, one.role, one.state) == (root, "admin", "revoked") and one.subject in givers
    ]


def _rows(found: pb.ListAuthoritiesResponse, roles: Iterable[pb.GivenRole]) -> tuple[Plain, ...]:
    rows = {row["public_key"]: row for row in operators(found)}
    return tuple({**rows[one.subject.hex()], "role": one.role} for one in roles)


def falling(plan: Retirement, dropped: Iterable[Plain]) -> list[Plain]:
    """Return whose strongest role is a weaker one, or none, once a root is gone.

    Those whom it gave it and that are dropped, and those to whom they gave one as its admins.
    """
    gone = {row["public_key"] for row in dropped}
    left = set(plan.found.roots) - {plan.key}
    stay = {
        one.subject.hex() for one in plan.found.roles if one.role == "admin" and one.giver in left
    }

    def goes(one: pb.GivenRole) -> bool:
        by_root = one.giver == plan.key and one.subject.hex() in gone
        return by_root or one.giver.hex() in gone - stay

    weaker = weakened(plan.found, goes)
    return [row for row in operators(plan.found) if row["public_key"] in weaker]


def retire(mesh: Connection, plan: Retirement, root: Key, dropped: Sequence[Plain]) -> Plain:
    """Remove a root. What it has said and shall stay is said again by the one that signs, first.

    That is read anew, since the root may have spoken while a person was asked: what it has revoked
    by then is revoked. Raises ConflictError, having changed nothing, if it gave roles or exchanged
    roots; and if in the end the roots are others than was signed.
    """
    found = _unchanged(mesh, plan)
    given = _given_by(plan.key, found)
    _check_gave_nothing_new(plan, found, _rows(found, given))
    falls, dropped_keys = falling(plan, dropped), {row["public_key"] for row in dropped}
    for one in (*given, *_spared_by(plan.key, found)):
        if one.subject.hex() not in dropped_keys:
            give(mesh, root, one.subject, one.role, one.name[:NAME_CHARS_MAX])
    certified = {one.node_id for one in found.admitters if one.root != plan.key}
    for node_id in {one.node_id for one in found.admitters} - certified:
        _certify(mesh, root, node_id)
    found = _unchanged(mesh, plan)
    for word in found.revocations:
        if word.issuer == plan.key:
            issue(mesh, root, Revoke(word.what, word.name, tuple(word.survivors)))
    left = tuple(key for key in found.roots if key != plan.key)
    _exchange(mesh, root, found, left)
    return {
        "key_id": key_id_of(plan.key),
        "version": found.version + 1,
        "roots": [key_id_of(key) for key in left],
        "falls": [row["key_id"] for row in falls],
    }


def _check_gave_nothing_new(
    plan: Retirement, found: pb.ListAuthoritiesResponse, given: Sequence[Plain]
) -> None:
    planned = {(row["public_key"], row["role"]) for row in plan.given}
    admitted = {one.node_id for one in plan.found.admitters}
    new = [called([row]) for row in given if (row["public_key"], row["role"]) not in planned]
    new += [f"node {one.node_id}" for one in found.admitters if one.node_id not in admitted]
    if new:
        said = f"while you were asked, somebody was given more: {', '.join(new)}"
        raise ConflictError(said, "look at it, and begin again: --drop leaves somebody out")


def _exchange(
    mesh: Connection, root: Key, found: pb.ListAuthoritiesResponse, keys: tuple[bytes, ...]
) -> None:
    """Sign the next version of the roots; raises ConflictError if another one is followed."""
    issue(mesh, root, RootKeys(found.version + 1, keys))
    _check_roots(known(mesh), found.version + 1, keys)


def _unchanged(mesh: Connection, plan: Retirement) -> pb.ListAuthoritiesResponse:
    """Return what is known now; raises ConflictError if the roots are others than was planned."""
    found = known(mesh)
    _check_roots(found, plan.found.version, plan.found.roots)
    return found


def _check_roots(found: pb.ListAuthoritiesResponse, version: int, keys: Iterable[bytes]) -> None:
    if (found.version, set(found.roots)) != (version, set(keys)):
        present = ", ".join(map(key_id_of, found.roots))
        said = f"somebody else has exchanged the roots meanwhile; of version {found.version} are"
        raise ConflictError(f"{said} {present}", "look who: session-mesh root list, operator list")


def _certify(mesh: Connection, root: Key, node_id: str) -> None:
    certificate = issue_admitter(
        root, mesh_id_of(mesh.home), NodeId(node_id), mesh.now(), mesh.chance
    )
    issue(mesh, root, Admits(node_key_of(node_id), certificate))
