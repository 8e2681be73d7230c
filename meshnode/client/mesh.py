"""The client of a running node: what a front end can ask, and what it can order.

Invariant: everything that comes back is plain values spelled as the contract's JSON; everything
that goes wrong is a MeshError. Nothing here decides who may do what: owners of sessions do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from meshnode.client.commands.ordering import Ordering
from meshnode.client.messages import to_plain, to_wire
from meshnode.client.targets.nodes import check_forgettable, is_awaited, node_id_in
from meshnode.v1 import local_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshnode.client.targets.targets import NewSession
    from meshnode.core.keys import Signed

    Plain = dict[str, Any]

CLOSE_TIMEOUT_S = 600.0  # for a thousand agents that do not want to end, 32 at once


class MeshClient(Ordering):
    """A connection to the node of one home. Use it in a `with`; NoNodeError when none is running.

    SilentNodeError: one is running, and does not answer. What it asks is in
    `client/connection/asking.py`, what it signs in `client/commands/ordering.py`; here is what
    changes the node itself.
    """

    def open_session(self, session: NewSession) -> Plain:
        """Record a session to be started: `session_id, agent_id, node_id, directory, socket`."""
        request = pb.OpenSessionRequest(**asdict(session))
        return to_plain(self.call(self.node.OpenSession, request))

    def attach_session(self, session_id: str) -> Plain:
        """Tell the node that the session's supervisor is up; returns the session."""
        request = pb.AttachSessionRequest(session_id=session_id)
        return to_plain(self.call(self.node.AttachSession, request).session)

    def invite(
        self,
        authorization: Signed,
        secret: bytes,
        labels: Mapping[str, str] | None = None,
        for_key: bytes = b"",
    ) -> list[str]:
        """Let the node admit whoever proves the secret; returns where joiners may come."""
        request = pb.CreateInviteRequest(
            authorization=to_wire(authorization), secret=secret, labels=labels, for_key=for_key
        )
        return list(self.call(self.node.CreateInvite, request).addresses)

    def forgettable(self, name: str) -> Plain:
        """Return the one node meant; ConflictError if it is alive, or this one."""
        nodes = self.nodes()["nodes"]
        node_id = node_id_in(nodes, name)
        node: Plain = next(node for node in nodes if node["node_id"] == node_id)
        check_forgettable(node)
        return node

    def forget(self, node: Plain) -> Plain:
        """Hide on all nodes what a node has written so far, but for its ledger.

        One of which nothing has come since the join is only waited for no longer, by this home.
        """
        from meshnode.client.keys.authority import sign_forget  # noqa: PLC0415 - as for the commander

        node_id = node["node_id"]
        said = {"node_id": node_id, "name": node["name"], "was": node["state"]}
        if is_awaited(node):
            self.call(self.node.DropAwaited, pb.DropAwaitedRequest(node_id=node_id))
            return said | {"epoch": 0, "seq": 0}
        header = self.call(self.node.ReadHead, pb.ReadHeadRequest(node_id=node_id)).header
        entry, head = sign_forget(self.home, header, self.now(), self.chance)
        self.call(self.node.AddControl, pb.AddControlRequest(entry=to_wire(entry)))
        return said | {"epoch": head.epoch, "seq": head.seq}

    def stop(self, *, leave: bool = False, sessions: str = "") -> Plain:
        """End the node; `sessions` is keep, close or empty for its default.

        Returns `kept` and `closed` sessions, the `links` that heard it, and other `members`.
        The node sees it through, whether or not we wait; who calls again waits for the same end.
        Raises, and the node stays, if one that is to leave cannot write that it has.
        """
        request = pb.StopRequest(leave=leave, sessions=sessions)
        timeout_s = None if sessions == "keep" else CLOSE_TIMEOUT_S
        return to_plain(self.call(self.node.Stop, request, timeout_s))
