"""A machine that was installed anew: what its old node was called, and the end of that node.

Invariant: the old node is forgotten by an entry that the joiner's own operator signs, over a head
that the old node has signed itself; what it has spent stays counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from meshnode.client.targets.nodes import node_id_in
from meshnode.core.control.entries import Forget, Revoke, sign_entry
from meshnode.core.errors import ConflictError, NotFoundError, PeerError
from meshnode.core.feeds.headers import FLUSH, header_from_signed
from meshnode.core.ids import NodeId, node_key_of, pasted
from meshnode.core.keys import Signed
from meshnode.core.packing import pack, typed, unpack_map
from meshnode.node.clock import SystemClock, chance

if TYPE_CHECKING:
    from meshnode.app.mesh.mesh import Mesh
    from meshnode.core.control.control import ControlSet
    from meshnode.core.feeds.headers import Header
    from meshnode.core.keys import Key


class Replaced(msgspec.Struct, frozen=True):
    """The node that a joiner takes the place of."""

    header: Header
    name: str
    labels: dict[str, str]

    @property
    def node(self) -> NodeId:
        """Its id."""
        return self.header.origin


def find_replaceable(mesh: Mesh, word: str, joiner: NodeId) -> bytes:
    """Describe the node that a joiner names, packed; raises NotFoundError or ConflictError."""
    known = ((origin, mesh.tables.node(origin)) for origin in mesh.tables.origins())
    records = {origin: record for origin, record in known if record is not None}
    listed = [{"node_id": origin, "name": record.name} for origin, record in records.items()]
    try:
        node = NodeId(node_id_in(listed, word))
    except NotFoundError as error:
        hint = "session-mesh nodes lists who is known; for one that was forgotten: join without"
        raise NotFoundError(error.message, f"{hint} --replaces, and with --name") from None
    if node == joiner:
        raise ConflictError("that is this device itself", "join without --replaces")
    if node in mesh.liveness.alive:
        raise ConflictError(
            f"{records[node].name} is alive", "run session-mesh leave there, or stop it first"
        )
    header = mesh.replication.replicas[node].header
    if header is None or header.signed is None:
        raise NotFoundError(f"nothing that {records[node].name} has signed is known here")
    record = records[node]
    return pack({"name": record.name, "labels": record.labels, "head": header.signed.to_list()})


def replaced_from(packed: bytes, mesh_id: str) -> Replaced:
    """Decode what an admitter answered; raises PeerError. The head is proved."""
    value = unpack_map(packed)
    try:
        payload, signature = (typed(part, bytes) for part in typed(value["head"], list))
        labels = typed(value["labels"], dict)
        return Replaced(
            header_from_signed(Signed(FLUSH, payload, signature), mesh_id),
            typed(value["name"], str),
            {typed(key, str): typed(one, str) for key, one in labels.items()},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PeerError(f"not a node to replace: {error}") from error


def retire_node(control: ControlSet, operator: Key, mesh_id: str, old: Replaced) -> list[str]:
    """Put the end of an old node into the control set; returns what somebody else must do."""
    now_s = SystemClock().wall_s()
    name, key = old.name, node_key_of(old.node)
    left = []
    for body in (Forget(old.header), Revoke("node", key)):
        entry = sign_entry(operator, mesh_id, body, chance, issued_s=int(now_s))
        try:
            control.add(entry, now_s, ours=True)
        except PeerError:
            what = "forget" if isinstance(body, Forget) else "revoke"
            who = "an operator" if what == "forget" else "an admin"
            left.append(
                f"{who} must still run: session-mesh nodes {what} {pasted(old.name, old.node)}"
            )
    if not left:
        left.append(f"{name} was forgotten and revoked: its ledger stays counted")
    return left
