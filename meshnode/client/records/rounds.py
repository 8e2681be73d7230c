"""Rounds of a session, read from the node that owns them.

Invariant: what an owner sends is checked line by line, and at most READ_BYTES_MAX of it is taken;
nothing is believed of how much is to follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshnode.client.keys.blaming import blaming
from meshnode.client.records.counted import logged_session_id
from meshnode.client.records.logged import BY, plain, summed
from meshnode.client.targets.targets import Order
from meshnode.core.errors import PeerError, StaleError, UnreachableError
from meshnode.core.ids import nodes_meant
from meshnode.core.ledger.rounds import (
    LINE_BYTES_MAX,
    ROUNDS,
    head_from_json,
    line_from_json,
)
from meshnode.v1 import local_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from meshnode.client.mesh import MeshClient

    Plain = dict[str, Any]

READ_BYTES_MAX = 64 << 20  # the owner keeps 32 MiB of a session; JSON spells some of it out
READ_TIMEOUT_S = 120.0


def rounds_of_session(mesh: MeshClient, session: Plain, *, messages: bool) -> Plain:
    """Return `rounds` and `rounds_total` of a session of the mesh; raises what its owner says."""
    args = {"what": ROUNDS, "messages": messages}
    order = Order(
        session["node_id"], session["session_epoch"], "read_messages", session["session_id"], args
    )
    return _received(mesh, order)


def rounds_of_log(mesh: MeshClient, node_id: str, session: str, *, messages: bool) -> Plain:
    """Return the same of a session that only logs know, as one node has read them."""
    try:
        return _received(mesh, _order(mesh, node_id, session, messages=messages))
    except StaleError:  # it has started anew meanwhile
        return _received(mesh, _order(mesh, node_id, session, messages=messages))


def logged_session(mesh: MeshClient, session: str) -> Plain | None:
    """Sum up a session, named by 8 characters or more, as the ledgers have it; None if none does.

    `nodes` are the ids of those who have it, None for one that is known by its name alone.
    """
    session = logged_session_id(mesh, session)
    if not session:
        return None
    answer = mesh.cost(BY, of=("", session))
    names = {str(node["node_id"]): str(node["name"]) for node in mesh.nodes()["nodes"]}
    owners = sorted({group["key"]["node"] for group in answer["groups"]})
    meant = {name: nodes_meant(name, names) for name in owners}
    nodes = {name: ids[0] if len(ids) == 1 else None for name, ids in meant.items()}
    return summed(session, answer) | {"nodes": nodes}


def received(pieces: Iterable[bytes]) -> Plain:
    """Decode what an owner sends: `rounds`, and `rounds_total` that there are; raises PeerError."""
    lines = _lines(pieces)
    head = head_from_json(next(lines, b""))
    return plain(head, (line_from_json(line) for line in lines))


def _received(mesh: MeshClient, order: Order) -> Plain:
    request = pb.ReadSessionLogRequest(node_id=order.node_id, command=mesh.signed(order))
    pieces = mesh.stream(mesh.node.ReadSessionLog, request, READ_TIMEOUT_S)
    with blaming(mesh.environment):
        return received(piece.output for piece in pieces)


def _order(mesh: MeshClient, node_id: str, session: str, *, messages: bool) -> Order:
    node = next((one for one in mesh.nodes()["nodes"] if one["node_id"] == node_id), None)
    if node is None:
        raise UnreachableError(f"node {node_id[:12]} is not known here any more")
    args = {"session": session, "messages": messages}
    return Order(node_id, node["journal_generation"], "read_rounds", args=args)


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    waiting, taken = b"", 0
    for piece in pieces:
        taken += len(piece)
        *whole, waiting = (waiting + piece).split(b"\n")
        if len(waiting) > LINE_BYTES_MAX or taken > READ_BYTES_MAX:
            raise PeerError("the owner sends more than a session can have")
        yield from whole
    if waiting:
        raise PeerError("the owner's answer ends within a round")
