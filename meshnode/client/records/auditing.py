"""Audit logs from the user's side: read, and verified here, whoever sent them.

Invariant: a log is called whole only if every record was hashed in this process, and every head
that anybody has shown was compared with it after its signature was checked.
"""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.client.durations import rfc3339
from meshnode.client.keys.blaming import blaming
from meshnode.client.targets.nodes import node_id_in
from meshnode.client.targets.targets import Order, check_lengths
from meshnode.client.words import nearest
from meshnode.core.commands.audit import (
    AUDIT_HEAD,
    AuditHead,
    Kept,
    contradiction,
    head_from_signed,
    record_from_bytes,
    walked,
)
from meshnode.core.errors import PeerError, StaleError, UsageError
from meshnode.core.ids import NodeId
from meshnode.core.keys import Signed
from meshnode.core.vocabulary import KINDS
from meshnode.v1 import audit_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshnode.client.mesh import MeshClient

    Plain = dict[str, Any]

LATEST_MS = 253_402_300_800_000  # what no text can say, nobody has recorded
FIELDS = (  # of a record
    *("seq", "at", "kind", "session_id", "agent_id", "owner", "command_id", "key_id", "action"),
    *("outcome", "detail", "hash"),
)
READ_TIMEOUT_S = 130.0  # for a whole log; the node gives up on another one before that


class Wanted(msgspec.Struct, frozen=True):
    """Which records: the newest `limit` of those that fit. `node` is a name or an id."""

    node: str = ""
    since: str | None = None
    session: str = ""
    kinds: tuple[str, ...] = ()
    limit: int = 0

    def checked(self) -> Wanted:
        """Return it as it is; raises UsageError for a kind that is never recorded."""
        for kind in self.kinds:
            if kind not in KINDS:
                said = f"there are no records of kind {kind[:60]!r}{nearest(kind, KINDS)}"
                raise UsageError(said, f"one of: {', '.join(KINDS)}")
        check_lengths({"session id": self.session, "node": self.node})
        return self


class _Log(msgspec.Struct, frozen=True):
    node_id: str
    number: int
    kept: list[Kept]


def read_audit(mesh: MeshClient, wanted: Wanted) -> Plain:
    """Return records, the oldest first: `node_id`, `node_name`, `records`."""
    nodes = mesh.nodes()["nodes"]
    log = _read(mesh, nodes, wanted.checked())
    records = [_plain(one) for one in log.kept]
    return {"node_id": log.node_id, "node_name": _name(nodes, log.node_id), "records": records}


def verify_audit(mesh: MeshClient, node: str = "") -> Plain:
    """Walk a whole log and compare it with all heads of it that can be had.

    `wrong` names the first record of each node whose log was changed; `ok` says that there is none.
    """
    nodes = mesh.nodes()["nodes"]
    target = _target(nodes, node)
    asked = pb.ListHeadsRequest(node_id=target, neighbours=True)
    answer = mesh.call(mesh.node_audit.ListHeads, asked)  # first: a log only grows
    heads = _heads(answer.heads)
    log = _read(mesh, nodes, Wanted(node=node).checked())
    own = [head for head, _ in heads if head.node == log.node_id]
    walk, wrong = walked(NodeId(log.node_id), log.number, log.kept, own)
    found = [] if wrong is None else [_wrong(nodes, log.node_id, wrong.seq, wrong.what)]
    everything = mesh.call(mesh.node_audit.ListHeads, pb.ListHeadsRequest())
    for accused, seq, what in _proven([*heads, *_heads(everything.heads)]):
        if not found or accused != log.node_id:
            found.append(_wrong(nodes, accused, seq, what))
    return {
        "node_id": log.node_id,
        "node_name": _name(nodes, log.node_id),
        "ok": not found,
        "records": walk.count,
        "seq": walk.seq,
        "hash": walk.hash.hex(),
        "heads": len(own),
        "heads_seq": max((head.seq for head in own), default=0),
        "neighbours_asked": answer.asked,
        "neighbours_heard": answer.heard,
        "wrong": found,
    }


def accept_log(mesh: MeshClient, node: str) -> Plain:
    """Take another node's log as it is now: `node_id`, `node_name`, `forgotten`.

    One that is accused here may be listed no more, since it was forgotten.
    """
    nodes = mesh.nodes()["nodes"]
    accused = mesh.call(mesh.node_audit.ListHeads, pb.ListHeadsRequest())
    ids = {head.node for head, _ in _heads(accused.heads)} - {one["node_id"] for one in nodes}
    unlisted = [{"node_id": node_id, "name": ""} for node_id in sorted(ids)]
    node_id = node_id_in([*nodes, *unlisted], node)
    answer = mesh.call(mesh.node_audit.AcceptLog, pb.AcceptLogRequest(node_id=node_id))
    return {
        "node_id": node_id,
        "node_name": _name(nodes, node_id),
        "forgotten": answer.forgotten,
    }


def _read(mesh: MeshClient, nodes: list[Plain], wanted: Wanted) -> _Log:
    request = pb.ReadAuditRequest(
        since=wanted.since, session=wanted.session, kinds=wanted.kinds, limit=wanted.limit
    )
    target = _target(nodes, wanted.node)
    if _is_other(nodes, target):
        with blaming(mesh.environment):
            try:
                return _received(mesh, _signed(mesh, nodes, target, request))
            except StaleError:  # it has started anew meanwhile
                return _received(mesh, _signed(mesh, mesh.nodes()["nodes"], target, request))
    return _received(mesh, request)


def _signed(
    mesh: MeshClient, nodes: list[Plain], target: str, request: pb.ReadAuditRequest
) -> pb.ReadAuditRequest:
    generation = next(one["journal_generation"] for one in nodes if one["node_id"] == target)
    request.node_id = target
    # Said in the command, too: over links nothing else travels.
    args: Plain = {"session": request.session, "kinds": list(request.kinds), "limit": request.limit}
    if request.HasField("since"):
        args["since"] = request.since
    request.command.CopyFrom(mesh.signed(Order(target, generation, "read_audit", args=args)))
    return request


def _received(mesh: MeshClient, request: pb.ReadAuditRequest) -> _Log:
    node_id, number = "", 0
    kept: list[Kept] = []
    for part in mesh.stream(mesh.node_audit.ReadAudit, request, READ_TIMEOUT_S):
        node_id, number = part.node_id, part.log
        kept += map(_kept, part.records)
    return _Log(node_id, number, kept)


def _kept(entry: pb.AuditEntry) -> Kept:
    try:
        record = record_from_bytes(entry.record)
    except PeerError:
        return Kept(entry.seq, None, entry.hash)
    return Kept(entry.seq, record if record.seq == entry.seq else None, entry.hash)


def _heads(seen: Iterable[pb.SeenHead]) -> list[tuple[AuditHead, str]]:
    """Return heads that their nodes have really signed, and what they are said to prove."""
    heads = []
    for one in seen:
        try:
            head = head_from_signed(Signed(AUDIT_HEAD, one.head.payload, one.head.signature))
        except PeerError:
            continue
        heads.append((head, one.trouble))
    return heads


def _proven(heads: list[tuple[AuditHead, str]]) -> list[tuple[str, int, str]]:
    """Return whom heads accuse, from which record on, in which words: once each."""
    groups: dict[tuple[str, str], set[AuditHead]] = {}
    for head, trouble in heads:
        if trouble:
            groups.setdefault((head.node, trouble), set()).add(head)
    found = []
    for (node, trouble), pair in sorted(groups.items()):
        said = (contradiction(one, other) for one, other in permutations(pair, 2))
        wrong = next((one for one in said if one is not None and one.what == trouble), None)
        if wrong is not None:  # else its witness has invented it
            found.append((node, wrong.seq, wrong.what))
    return found


def _wrong(nodes: list[Plain], node_id: str, seq: int, what: str) -> Plain:
    return {"node_id": node_id, "node_name": _name(nodes, node_id), "seq": seq, "what": what}


def _plain(kept: Kept) -> Plain:
    record = kept.record
    if record is None:
        return {"seq": kept.seq, "at": None, "kind": "unreadable", "hash": kept.hash.hex()}
    return {
        "seq": record.seq,
        "at": rfc3339(record.at_ms / 1000) if record.at_ms < LATEST_MS else None,
        "kind": record.kind,
        "session_id": record.session or None,
        "agent_id": record.agent or None,
        "owner": record.owner or None,
        "command_id": record.command or None,
        "key_id": record.actor or None,
        "action": record.action or None,
        "outcome": record.outcome or None,
        "detail": record.detail,
        "hash": kept.hash.hex(),
    }


def _target(nodes: list[Plain], name: str) -> str:
    if name:
        return node_id_in(nodes, name)
    return next((str(node["node_id"]) for node in nodes if node["self"]), "")


def _is_other(nodes: list[Plain], node_id: str) -> bool:
    return any(node["node_id"] == node_id and not node["self"] for node in nodes)


def _name(nodes: list[Plain], node_id: str) -> str:
    return next((str(node["name"]) for node in nodes if node["node_id"] == node_id), node_id[:12])
