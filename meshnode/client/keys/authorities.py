"""Who may command: listing them, giving a role, taking it back with or without what it gave.

Invariant: every entry is signed in this process, by the operator of the home or by the root; who
would fall with a key is known before its revocation is signed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.client.keys.authority import mesh_id_of, operator_of, revocation_by
from meshnode.client.messages import to_wire
from meshnode.core.control.entries import SURVIVORS_MAX, Body, Revoke, role_entry, sign_entry
from meshnode.core.control.roles import ACTIONS_OF_ROLE, NAME_CHARS_MAX, Role
from meshnode.core.errors import ConflictError, NotFoundError, NotPermittedError, UsageError
from meshnode.core.ids import PREFIX_CHARS_MIN, node_id_of
from meshnode.core.keys import key_id_of
from meshnode.v1 import authority_service_pb2 as pb
from meshnode.v1 import local_service_pb2 as local_pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from meshnode.client.connection.asking import Asking
    from meshnode.client.connection.connection import Connection
    from meshnode.core.keys import Key, Signed

    Plain = dict[str, Any]

NAMES_MAX = 3  # beside the first, in a sentence
THE_ROOT = "the root"  # nobody else is shown as this, whatever it is called
ROOT_NEEDED = "sign with the root's key: --root FILE"


def known(mesh: Connection) -> pb.ListAuthoritiesResponse:
    """Ask the node what its control set says."""
    return mesh.call(mesh.node_authorities.ListAuthorities, pb.ListAuthoritiesRequest())


def submit(mesh: Connection, entry: Signed) -> None:
    """Put an entry into the control set of the mesh; raises the MeshError of the node."""
    mesh.call(mesh.node.AddControl, local_pb.AddControlRequest(entry=to_wire(entry)))


def issue(mesh: Connection, issuer: Key, body: Body) -> None:
    """Sign an entry that stands for ever, and put it into the control set."""
    mesh_id = mesh_id_of(mesh.home)
    submit(mesh, sign_entry(issuer, mesh_id, body, mesh.chance, issued_s=int(mesh.now())))


def give(mesh: Connection, issuer: Key, subject: bytes, role: str, name: str) -> None:
    """Sign that a key has a role, and tell the mesh."""
    value = Role(subject, role, name, issuer.public, int(mesh.now()), None)
    submit(mesh, role_entry(issuer, mesh_id_of(mesh.home), value, mesh.chance))


def operators(found: pb.ListAuthoritiesResponse) -> list[Plain]:
    """Return everybody who was given a role: `key_id, …, state, revoked_in_vain_by`.

    Each by the strongest role that counts, with the name that this one says; whoever may give roles
    may call anybody anything, so what else somebody is called stands apart, in `other_names`.
    In vain an admin was revoked by those whose word does not count for that: only the root's does.
    """
    revoked: dict[bytes, dict[str, None]] = {}
    for word in found.revocations:
        if word.what == "key":
            revoked.setdefault(word.name, {})[key_id_of(word.issuer)] = None
    roots = {*found.removed_roots, *found.roots}
    strongest: dict[bytes, pb.GivenRole] = {}
    names: dict[bytes, dict[str, None]] = {}
    for one in found.roles:
        before = strongest.get(one.subject)
        if before is None or _weight(one, roots) > _weight(before, roots):
            strongest[one.subject] = one
        names.setdefault(one.subject, {})[_name(one)] = None
    return [
        {
            "key_id": key_id_of(one.subject),
            "public_key": one.subject.hex(),
            "name": _name(one) or None,
            "other_names": [name for name in names[one.subject] if name not in {"", _name(one)}],
            "role": one.role,
            "given_by": key_id_of(one.giver),
            "given_by_name": _giver(one, roots, strongest),
            "by_node": one.node_id or None,
            "since": one.at,
            "state": one.state,
            "revoked_in_vain_by": list(revoked.get(one.subject, ()))
            if one.state == "active"
            else [],
        }
        for one in strongest.values()
    ]


def _weight(one: pb.GivenRole, roots: AbstractSet[bytes]) -> tuple[bool, int, bool]:
    return one.state == "active", len(ACTIONS_OF_ROLE[one.role]), one.giver in roots


def _name(one: pb.GivenRole) -> str:
    return one.name[:NAME_CHARS_MAX]


def _giver(
    one: pb.GivenRole, roots: AbstractSet[bytes], strongest: dict[bytes, pb.GivenRole]
) -> str | None:
    if one.giver in roots:
        return THE_ROOT
    given = strongest.get(one.giver)
    name = "" if given is None else _name(given)
    return None if name in {"", THE_ROOT} else name


def add(mesh: Asking, name: str, subject: bytes, role: str, root: Key | None) -> Plain:
    """Give a person's key a role; raises a MeshError, having changed nothing.

    UsageError for the key of a node, with which nobody commands; ConflictError if it has that role
    or more, or was revoked; NotPermittedError if only the root may say so.
    """
    if not name.strip() or len(name) > NAME_CHARS_MAX or not name.isprintable():
        raise UsageError(f"a name has 1 to {NAME_CHARS_MAX} printable characters")
    _check_is_no_node(mesh, subject)
    if role == "admin" and root is None:
        raise NotPermittedError("only the root makes admins", ROOT_NEEDED)
    issuer = operator_of(mesh.home) if root is None else root
    found = known(mesh)
    check_root(root, found)
    if any(one.subject == subject and one.state == "revoked" for one in found.roles):
        said = f"key {key_id_of(subject)} was revoked, which is for good"
        raise ConflictError(said, "let them make another one, in a new home")
    for row in operators(found):
        at_least = ACTIONS_OF_ROLE[row["role"]] >= ACTIONS_OF_ROLE[role]
        if row["public_key"] == subject.hex() and row["state"] == "active" and at_least:
            lower = "a role is not lowered: operator remove takes the key out for good"
            hint = "" if row["role"] == role else lower
            raise ConflictError(f"key {row['key_id']} is {row['role']} already", hint)
        is_called_so = name in {row["name"], *row["other_names"]}
        if is_called_so and row["state"] == "active" and row["public_key"] != subject.hex():
            raise ConflictError(f"another key is called {name!r}: {row['key_id']}")
    give(mesh, issuer, subject, role, name)
    return {
        "key_id": key_id_of(subject),
        "public_key": subject.hex(),
        "name": name,
        "role": role,
        "given_by": key_id_of(issuer.public),
    }


def _check_is_no_node(mesh: Asking, subject: bytes) -> None:
    for node in mesh.nodes()["nodes"]:
        if node["node_id"] == node_id_of(subject):
            said = f"that is the key of node {node['name']}, not of a person"
            raise UsageError(said, "on their machine session-mesh id --operator -q prints theirs")


def joined_with(found: pb.ListAuthoritiesResponse, node_id: str) -> Plain | None:
    """Return the one operator, as listed, whom an invite gave a role with a device; None if unsure.

    Only names that an admitter has given count: anybody else may call any key so.
    """
    mark = f"/{node_id[:PREFIX_CHARS_MIN]}"
    named = [
        row
        for row in operators(found)
        if row["by_node"] and row["state"] == "active" and (row["name"] or "").endswith(mark)
    ]
    return named[0] if len(named) == 1 else None


def check_root(root: Key | None, found: pb.ListAuthoritiesResponse) -> None:
    """Raise NotPermittedError for a key that is no root of this mesh."""
    if root is None or root.public in found.roots:
        return
    said = f"key {key_id_of(root.public)} is the root of another mesh"
    if root.public in found.removed_roots:
        said = f"key {key_id_of(root.public)} was a root of this mesh, and was retired"
    present = ", ".join(map(key_id_of, found.roots))
    raise NotPermittedError(said, f"roots of this mesh: {present}")


class Removal(msgspec.Struct, frozen=True):
    """A key that is to be revoked, and the active keys that it gave a role.

    `falls`: those of them that nobody else gave one that is as strong.
    """

    subject: bytes
    row: Plain
    given: tuple[Plain, ...]
    falls: tuple[Plain, ...]


def planned(mesh: Connection, name: str) -> Removal:
    """Find whose key is meant, and what hangs on it; raises NotFoundError or ConflictError."""
    found = known(mesh)
    rows = operators(found)
    row = _meant(rows, name)
    if row is None:
        raise NotFoundError(f"no operator {name[:80]!r}", "session-mesh operator list")
    if row["state"] == "revoked":
        raise ConflictError(f"key {row['key_id']} is revoked already")
    subject = bytes.fromhex(row["public_key"])
    given = {
        one.subject.hex()
        for one in found.roles
        if one.giver == subject and one.state == "active" and one.subject != subject
    }
    hanging = tuple(one for one in rows if one["public_key"] in given)
    weaker = weakened(found, lambda one: one.giver == subject)
    falls = tuple(one for one in hanging if one["public_key"] in weaker)
    return Removal(subject, row, hanging, falls)


def weakened(found: pb.ListAuthoritiesResponse, goes: Callable[[pb.GivenRole], bool]) -> set[str]:
    """Return the public keys whose strongest role is a weaker one, or none, without some roles."""
    before: dict[str, int] = {}
    after: dict[str, int] = {}
    for one in found.roles:
        if one.state == "active":
            key, weight = one.subject.hex(), len(ACTIONS_OF_ROLE[one.role])
            before[key] = max(weight, before.get(key, 0))
            if not goes(one):
                after[key] = max(weight, after.get(key, 0))
    return {key for key, weight in before.items() if after.get(key, 0) < weight}


def removes_itself(mesh: Connection, plan: Removal, root: Key | None) -> bool:
    """Whether the key that would sign is the one that would be revoked."""
    return root is None and operator_of(mesh.home).public == plan.subject


def remove(mesh: Connection, plan: Removal, survivors: Sequence[Plain], root: Key | None) -> Plain:
    """Revoke a key for good, but for the survivors among whom it gave a role."""
    issuer = operator_of(mesh.home) if root is None else root
    check_root(root, known(mesh))
    if plan.row["role"] == "admin" and root is None and issuer.public != plan.subject:
        raise NotPermittedError("only the root takes out an admin", ROOT_NEEDED)
    if survivors and issuer.public == plan.subject:
        said = "a key that removes itself spares nobody, or its thief could say who stays"
        raise ConflictError(said, f"leave out --keep, or {ROOT_NEEDED}")
    kept = [bytes.fromhex(one["public_key"]) for one in survivors]
    for start in range(0, max(1, len(kept)), SURVIVORS_MAX):
        revoke = Revoke("key", plan.subject, tuple(kept[start : start + SURVIVORS_MAX]))
        submit(mesh, revocation_by(issuer, mesh_id_of(mesh.home), revoke, mesh.now(), mesh.chance))
    falls = [one for one in plan.falls if one not in survivors]
    return {
        "key_id": plan.row["key_id"],
        "name": plan.row["name"],
        "by": key_id_of(issuer.public),
        "survivors": [one["key_id"] for one in survivors],
        "falls": [one["key_id"] for one in falls],
    }


def chosen(rows: Iterable[Plain], words: Sequence[str]) -> list[Plain]:
    """Return the rows that are meant, by name or key id, each once.

    Raises UsageError for a stranger, ConflictError for a word that fits several.
    """
    listed = list(rows)
    found: list[Plain] = []
    for word in words:
        row = _meant(listed, word)
        if row is None:
            raise UsageError(f"{word[:80]!r} is none of those that hang on it", called(listed))
        found += [] if row in found else [row]
    return found


def _meant(rows: Sequence[Plain], word: str) -> Plain | None:
    """Return whom a word means: a key id or public key, else a name or the start of a key id.

    Raises ConflictError if it fits several. What anybody has called a key counts: a thief that
    calls its own key like somebody else, and that one otherwise, is not to be mistaken for it.
    """
    for row in rows:
        if word in {row["key_id"], row["public_key"]}:
            return row
    fitting = [
        row
        for row in rows
        if word in {row["name"], *row["other_names"]}
        or (len(word) >= PREFIX_CHARS_MIN and row["key_id"].startswith(word))
    ]
    if len(fitting) > 1:
        said = f"{word[:80]!r} fits {len(fitting)} keys"
        raise ConflictError(said, f"say which by its key id: {called(fitting)}")
    return fitting[0] if fitting else None


def called(rows: Iterable[Plain]) -> str:
    """List keys for people: name or nothing, role, key id, and what else they are called."""
    said = (
        f"{row['name']} ({row['role']}, {row['key_id']}{_also(row)})"
        if row["name"]
        else f"{row['key_id']} ({row['role']}{_also(row)})"
        for row in rows
    )
    return ", ".join(said)


def _also(row: Plain) -> str:
    names = row["other_names"]
    more = f" and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
    return f", also called {', '.join(names[:NAMES_MAX])}{more}" if names else ""
