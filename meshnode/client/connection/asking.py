"""What can be asked of a running node.

Invariant: everything that comes back is plain values spelled as the contract's JSON; everything
that goes wrong is a MeshError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from meshnode.client.connection.connection import Connection
from meshnode.client.messages import to_plain
from meshnode.client.targets.nodes import node_id_in, working_links
from meshnode.client.targets.targets import Selection, Target, Wanted, check_lengths, resolve
from meshnode.v1 import local_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Plain = dict[str, Any]

PAGE_SESSIONS_MAX = 1000


class Asking(Connection):
    """The part of the client that looks."""

    def status(self) -> Plain:
        """Describe the node itself."""
        return to_plain(self.call(self.node.GetStatus, pb.GetStatusRequest()))

    def list_sessions(self, selection: Selection | None = None, limit: int | None = None) -> Plain:
        """List up to `limit` sessions of the mesh, all when None: `sessions` and `coverage`."""
        fields = asdict(selection or Selection())
        check_lengths({name: word for name, word in fields.items() if isinstance(word, str)})
        sessions: list[Plain] = []
        following = ""
        while True:
            left = PAGE_SESSIONS_MAX if limit is None else limit - len(sessions)
            page_max = min(max(left, 1), PAGE_SESSIONS_MAX)
            request = pb.ListSessionsRequest(**fields, limit=page_max, next=following)
            page = self.call(self.node.ListSessions, request)
            sessions += map(to_plain, page.sessions)
            enough = limit is not None and len(sessions) >= limit
            if enough or page.next in {"", following}:
                return {"sessions": sessions[:limit], "coverage": to_plain(page.coverage)}
            following = page.next

    def nodes(self, labels: Mapping[str, str] | None = None) -> Plain:
        """List the members of the mesh, this node first: `nodes` and `coverage`."""
        request = pb.ListNodesRequest(labels=labels or {})
        listed = to_plain(self.call(self.node.ListNodes, request))
        listed["nodes"] = list(map(working_links, listed["nodes"]))
        return listed

    def member_name(self, node_id: str) -> str | None:
        """Return the name of a node that is a member, or was one; None for a stranger."""
        answer = self.call(self.node.NameMember, pb.NameMemberRequest(node_id=node_id))
        return answer.name if answer.HasField("name") else None

    def find(self, specialization: str) -> Plain:
        """List who is alive with a specialization, the best first: `agents`, `coverage`.

        With none, who is alive with any, by agent; a node of an older version refuses that.
        """
        request = pb.FindAgentsRequest(specialization=specialization)
        return to_plain(self.call(self.node.FindAgents, request))

    def cost(  # noqa: PLR0913 - each is a part of one question
        self,
        by: Sequence[str] = (),
        since: str | None = None,
        until: str | None = None,
        tz: str = "",
        prices_at: str | None = None,
        of: tuple[str, str] = ("", ""),
        *,
        most: int = 0,
    ) -> Plain:
        """Sum what the mesh has spent; moments are RFC 3339, `tz` is an IANA zone.

        With `prices_at` all is at the prices of that moment, else each use at those of its own;
        `of` names one node and one session, each of them or none, to ask about them only.
        With `most` only so many groups are told apart, the dearest; else too many are refused.
        """
        node, session = of
        check_lengths({"node": node, "session": session})
        chosen = {"node": node, "session_id": session}
        request = pb.GetCostRequest(
            by=by, since=since, until=until, tz=tz, prices_at=prices_at, most=most, **chosen
        )
        answer = to_plain(self.call(self.node.GetCost, request))
        for group in answer["groups"]:  # on the wire a key has no order
            key = group["key"]
            group["key"] = {name: key[name] for name in dict.fromkeys((*by, *key)) if name in key}
        return answer

    def events(self, wanted: Wanted | None = None, since: str | None = None) -> Plain:
        """Return what has changed lately, the oldest first: `events`, and the `position` then."""
        from meshnode.client.connection.watching import plain_event  # noqa: PLC0415 - few verbs look back
        from meshnode.v1 import event_service_pb2 as event_pb  # noqa: PLC0415 - as above

        wanted = (wanted or Wanted()).checked()
        request = event_pb.ListEventsRequest(since=since, kinds=wanted.kinds, about=wanted.about)
        answers = self.stream(self.node_events.ListEvents, request)
        events = [plain_event(answer.event) for answer in answers]
        position = events.pop()["position"] if events and events[-1]["kind"] == "watch" else ""
        return {"events": events, "position": position}

    def watch(
        self,
        wanted: Wanted | None = None,
        position: str = "",
        absent: Callable[[bool], None] = lambda _: None,
    ) -> Iterator[Plain]:
        """Yield how things are, or what followed a position, then every change once.

        Goes on through a restart of the node, telling `absent` meanwhile; see `client.watching`.
        """
        from meshnode.client.connection.watching import Watch  # noqa: PLC0415 - as above

        wanted = (wanted or Wanted()).checked()
        watch = Watch(self.connected, self.home, wanted, self.now, absent=absent)
        return watch.events(position)

    def resolve(self, target: Target) -> Plain:
        """Return the one session meant; raises NotFoundError or ConflictError."""
        return resolve(target, lambda wanted: self.list_sessions(wanted)["sessions"])

    def node_id_of(self, name: str) -> str:
        """Return the id of the node of this name, id, or prefix of an id of 8 characters."""
        return node_id_in(self.nodes()["nodes"], name)
