"""Revoking nodes: what hangs on one, and the entries that put it out of the mesh for good.

Invariant: nothing is signed before it is known who would fall with the node, and with whose key its
revocation counts: an admin's, or for a node that admits others the root's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.client.keys.authorities import ROOT_NEEDED, check_root, known, submit
from meshnode.client.keys.authority import mesh_id_of, operator_of, revocation_by
from meshnode.client.targets.nodes import node_id_in
from meshnode.core.control.entries import SURVIVORS_MAX, Revoke
from meshnode.core.errors import ConflictError, NotPermittedError, UsageError
from meshnode.core.ids import node_key_of
from meshnode.core.keys import key_id_of
from meshnode.v1 import key_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshnode.client.connection.asking import Asking
    from meshnode.core.keys import Key

    Plain = dict[str, Any]


class Revocation(msgspec.Struct, frozen=True):
    """A node that is to be revoked. `falls`: who goes with it, nodes by name and keys by id.

    `by_root`: whether a present root has revoked it already.
    """

    node: Plain
    admits: bool
    by_root: bool
    survivors: tuple[bytes, ...]
    falls: tuple[str, ...]


def planned(mesh: Asking, name: str, spared: Sequence[str]) -> Revocation:
    """Find out what revoking a node would mean; raises a MeshError, having changed nothing.

    `spared` are nodes that it has admitted, by name or id, and keys that it gave a role, by id.
    """
    nodes = mesh.nodes()["nodes"]
    node_id = node_id_in(nodes, name)
    node: Plain = next(one for one in nodes if one["node_id"] == node_id)
    if node["self"]:
        raise ConflictError(
            "a node cannot revoke itself", "run it on another one, or leave: session-mesh leave"
        )
    request = pb.ReadAdmissionRequest(node_id=node_id)
    admission = mesh.call(mesh.node_keys.ReadAdmission, request)
    names = {node_key_of(one["node_id"]): str(one["name"]) for one in nodes}
    keys = {node_key_of(one): names.get(node_key_of(one), one) for one in admission.node_ids}
    keys |= {key: f"key {key_id_of(key)}" for key in admission.operator_keys}
    survivors = {_spared(word, nodes, keys) for word in spared}
    falls = sorted(said for key, said in keys.items() if key not in survivors)
    found, own = known(mesh), node_key_of(node_id)
    by_root = any(one.name == own and one.issuer in found.roots for one in found.revocations)
    return Revocation(node, admission.admits, by_root, tuple(sorted(survivors)), tuple(falls))


def _spared(word: str, nodes: Sequence[Plain], keys: dict[bytes, str]) -> bytes:
    by_id = [key for key in keys if key_id_of(key) == word or key.hex() == word]
    key = by_id[0] if by_id else node_key_of(node_id_in(nodes, word))
    if key not in keys:
        raise UsageError(f"{word} does not hang on that node", "leave out --survivor for it")
    return key


def carry_out(mesh: Asking, plan: Revocation, root: Key | None) -> Plain:
    """Revoke a node on all nodes, for good; raises a MeshError. One that admits, as the root.

    Our node says in the end whether it counts: who admits, or is a root, may be another by then.
    A list of survivors may need several entries. They are sent one after the other, so for a moment
    some survivors are refused; their next attempt, within seconds, succeeds.
    """
    check_root(root, known(mesh))
    issuer = operator_of(mesh.home) if root is None else root
    mesh_id, key = mesh_id_of(mesh.home), node_key_of(plan.node["node_id"])
    parts = range(0, max(1, len(plan.survivors)), SURVIVORS_MAX)
    for start in parts:
        revoke = Revoke("node", key, plan.survivors[start : start + SURVIVORS_MAX])
        entry = revocation_by(issuer, mesh_id, revoke, mesh.now(), mesh.chance)
        submit(mesh, entry)
    if not any(_is_out(one, plan.node["node_id"]) for one in mesh.nodes()["nodes"]):
        said = f"{plan.node['name']} is not out by that: it admits others by now, or the root went"
        raise NotPermittedError(said, ROOT_NEEDED)
    return {
        "node_id": plan.node["node_id"],
        "name": plan.node["name"],
        "was": plan.node["state"],
        "by": key_id_of(issuer.public),
        "survivors": [key_id_of(one) for one in plan.survivors],
        "falls": list(plan.falls),
    }


def _is_out(node: Plain, node_id: str) -> bool:
    return bool(node["node_id"] == node_id and node["state"] == "revoked")
