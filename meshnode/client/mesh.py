"""The client of a running node: what a front end can ask, and what it can order.

Invariant: everything that comes back is plain values spelled as the contract's JSON; everything
that goes wrong is a MeshError. Nothing here decides who may do what: owners of sessions do.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

import grpc

from meshnode.client import clock
from meshnode.client.errors import NoNodeError, error_from
from meshnode.client.home import check_private
from meshnode.client.messages import to_plain, to_wire
from meshnode.client.nodes import check_forgettable, node_id_in, working_links
from meshnode.client.silence import explained
from meshnode.client.targets import (
    Delivery,
    NewSession,
    Order,
    Selection,
    Target,
    Wanted,
    check_lengths,
    has_ended,
    resolve,
)
from meshnode.client.watching import Watch, plain_event
from meshnode.core.errors import ConflictError, PeerError, StaleError, UsageError
from meshnode.core.registry import place_of, specialist
from meshnode.v1 import event_service_pb2 as event_pb
from meshnode.v1 import local_service_pb2 as pb
from meshnode.v1.event_service_pb2_grpc import EventServiceStub
from meshnode.v1.local_service_pb2_grpc import LocalServiceStub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from meshnode.client.home import Home
    from meshnode.client.orders import Commander
    from meshnode.core.ids import Chance
    from meshnode.core.keys import Signed
    from meshnode.v1.signed_pb2 import Signed as SignedMessage

    Plain = dict[str, Any]

CALL_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 4  # gRPC would wait 20 s for a process that is stopped to say hello
LOG_TIMEOUT_S = 86400.0  # a pager may hold the stream for as long as somebody reads
SLACK_S = 5.0  # the node gives up on the owner first, and says more about it than a deadline does
PAGE_SESSIONS_MAX = 1000
GRACE_S_MAX = 60
MESSAGE_BYTES_MAX = 32 << 10  # a command has room for 64 KiB
ANSWER_BYTES_MAX = 64 << 20  # larger: the call fails; a page of the largest rows is 16 MiB


Request = TypeVar("Request")
Answer = TypeVar("Answer")


class MeshClient:
    """A connection to the node of one home. Use it in a `with`; NoNodeError when none is running.

    SilentNodeError: one is running, and does not answer.
    `now` yields seconds since 1970, `chance` random bytes, `environment` holds SESSION_API_KEY;
    an answer that takes longer than `patience_s` is UnreachableError.
    """

    def __init__(
        self,
        home: Home,
        *,
        environment: Mapping[str, str] = os.environ,
        now: Callable[[], float] = clock.wall_s,
        chance: Chance = clock.chance,
        patience_s: float = CALL_TIMEOUT_S,
    ) -> None:
        self.home = home
        self._environment = environment
        self._now = now
        self._chance = chance
        self._patience_s = patience_s
        self._channel: grpc.Channel | None = None
        self._node: LocalServiceStub
        self._events: EventServiceStub

    def __enter__(self) -> Self:
        """Connect; raises NoNodeError when there is no socket to connect to."""
        self._channel = self._connected()
        self._node = LocalServiceStub(self._channel)
        self._events = EventServiceStub(self._channel)
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnect."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    # what can be asked

    def status(self) -> Plain:
        """Describe the node itself."""
        return to_plain(self._call(self._node.GetStatus, pb.GetStatusRequest()))

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
            page = self._call(self._node.ListSessions, request)
            sessions += map(to_plain, page.sessions)
            enough = limit is not None and len(sessions) >= limit
            if enough or page.next in {"", following}:
                return {"sessions": sessions[:limit], "coverage": to_plain(page.coverage)}
            following = page.next

    def nodes(self, labels: Mapping[str, str] | None = None) -> Plain:
        """List the members of the mesh, this node first: `nodes` and `coverage`."""
        request = pb.ListNodesRequest(labels=labels or {})
        listed = to_plain(self._call(self._node.ListNodes, request))
        listed["nodes"] = list(map(working_links, listed["nodes"]))
        return listed

    def find(self, specialization: str) -> Plain:
        """List who is alive with a specialization, the best first: `agents`, `coverage`."""
        request = pb.FindAgentsRequest(specialization=specialization)
        return to_plain(self._call(self._node.FindAgents, request))

    def cost(
        self,
        by: Sequence[str] = (),
        since: str | None = None,
        until: str | None = None,
        tz: str = "",
    ) -> Plain:
        """Sum what the mesh has spent; `since` and `until` are RFC 3339, `tz` an IANA zone."""
        request = pb.GetCostRequest(by=by, since=since, until=until, tz=tz)
        return to_plain(self._call(self._node.GetCost, request))

    def events(self, wanted: Wanted | None = None, since: str | None = None) -> Plain:
        """Return what has changed lately, the oldest first: `events`, and the `position` then."""
        wanted = (wanted or Wanted()).checked()
        request = event_pb.ListEventsRequest(since=since, kinds=wanted.kinds, about=wanted.about)
        try:
            answers = self._events.ListEvents(request, timeout=self._patience_s)
            events = [plain_event(answer.event) for answer in answers]
        except grpc.RpcError as failure:
            raise explained(error_from(failure), self.home) from failure
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
        wanted = (wanted or Wanted()).checked()
        watch = Watch(self._connected, self.home, wanted, self._now, absent=absent)
        return watch.events(position)

    def resolve(self, target: Target) -> Plain:
        """Return the one session meant; raises NotFoundError or ConflictError."""
        return resolve(target, lambda wanted: self.list_sessions(wanted)["sessions"])

    def node_id_of(self, name: str) -> str:
        """Return the id of the node of this name, id, or prefix of an id of 8 characters."""
        return node_id_in(self.nodes()["nodes"], name)

    # what can be changed

    def open_session(self, session: NewSession) -> Plain:
        """Record a session to be started: `session_id, agent_id, node_id, directory, socket`."""
        request = pb.OpenSessionRequest(**asdict(session))
        return to_plain(self._call(self._node.OpenSession, request))

    def attach_session(self, session_id: str) -> Plain:
        """Tell the node that the session's supervisor is up; returns the session."""
        request = pb.AttachSessionRequest(session_id=session_id)
        return to_plain(self._call(self._node.AttachSession, request).session)

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
        return list(self._call(self._node.CreateInvite, request).addresses)

    def forgettable(self, name: str) -> Plain:
        """Return the one node meant; ConflictError if it is alive, or this one."""
        nodes = self.nodes()["nodes"]
        node_id = node_id_in(nodes, name)
        node: Plain = next(node for node in nodes if node["node_id"] == node_id)
        check_forgettable(node)
        return node

    def forget(self, node: Plain) -> Plain:
        """Hide on all nodes what a node has written so far, but for its ledger."""
        from meshnode.client.authority import sign_forget  # noqa: PLC0415 - as for the commander

        request = pb.ReadHeadRequest(node_id=node["node_id"])
        header = self._call(self._node.ReadHead, request).header
        entry, head = sign_forget(self.home, header, self._now(), self._chance)
        self._call(self._node.AddControl, pb.AddControlRequest(entry=to_wire(entry)))
        return {
            "node_id": node["node_id"],
            "name": node["name"],
            "was": node["state"],
            "epoch": head.epoch,
            "seq": head.seq,
        }

    def stop(self, *, leave: bool = False, sessions: str = "") -> Plain:
        """End the node; `sessions` is keep, close or empty for its default: `kept`, `closed`."""
        request = pb.StopRequest(leave=leave, sessions=sessions)
        return to_plain(self._call(self._node.Stop, request))

    def steer(
        self,
        target: Target,
        *,
        message: str = "",
        direction: str = "",
        mode: str = "soft",
        delivery: Delivery | None = None,
    ) -> Plain:
        """Send a session a message or a direction; returns the outcome that its owner signed."""
        check_lengths({"direction": direction})
        if len(message.encode()) > MESSAGE_BYTES_MAX:
            raise UsageError(
                f"a message has at most {MESSAGE_BYTES_MAX} bytes",
                "put it in a file, and name that",
            )
        args = {"direction": direction, "message": message, "mode": mode}

        def steer_once(session: Plain) -> Plain:
            if has_ended(session):
                raise ConflictError(
                    f"session {session['session_id']} of {session['agent_id']} has ended"
                    f" ({session['state']})",
                    "session-mesh list shows which are alive",
                )
            return self._commander.submit(_order(session, "steer", args), delivery or Delivery())

        return self._fresh(target, steer_once)

    def kill(
        self,
        target: Target,
        *,
        force: bool = False,
        grace_s: int = 5,
        delivery: Delivery | None = None,
    ) -> Plain:
        """End a session with its whole process tree; one that has ended already is left alone."""
        if not 0 <= grace_s <= GRACE_S_MAX:
            raise UsageError(f"a grace lasts 0 to {GRACE_S_MAX} s, not {grace_s} s")
        args = {"force": force, "grace_s": 0 if force else grace_s}

        def kill_once(session: Plain) -> Plain:
            if has_ended(session):
                return _already_ended(session)
            return self._commander.submit(_order(session, "kill", args), delivery or Delivery())

        return self._fresh(target, kill_once)

    def register(
        self,
        agent_id: str,
        specialization: str,
        attributes: Mapping[str, str] | None = None,
        delivery: Delivery | None = None,
    ) -> Plain:
        """Enter an agent into the specialization registry, through the feed of this node."""
        entry = specialist(agent_id, specialization, dict(attributes or {}))
        return self._changed_here("register", asdict(entry), delivery)

    def unregister(
        self, agent_id: str, specialization: str, delivery: Delivery | None = None
    ) -> Plain:
        """Take an agent out of the registry, whoever entered it; outcome unknown: nobody did."""
        place = place_of(agent_id, specialization)
        return self._changed_here("unregister", asdict(place), delivery)

    def logs(self, target: Target, tail: int | None = None) -> Iterator[bytes]:
        """Stream a session's output, its last `tail` lines or all, as the process wrote it."""
        order = _order(self.resolve(target), "read_messages", {"tail": tail})
        request = pb.ReadSessionLogRequest(
            node_id=order.node_id, command=self._commander.sign(order)
        )
        try:
            for piece in self._node.ReadSessionLog(request, timeout=LOG_TIMEOUT_S):
                yield piece.output
        except grpc.RpcError as failure:
            raise explained(error_from(failure), self.home) from failure

    # how

    def _connected(self) -> grpc.Channel:
        if not self.home.socket.exists():
            raise NoNodeError
        check_private(self.home.run)
        options = (
            ("grpc.max_receive_message_length", ANSWER_BYTES_MAX),
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_S * 1000),  # bounds an attempt too
        )
        return grpc.insecure_channel("unix:" + quote(str(self.home.socket)), options)

    def _call(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Answer],
        request: Request,
        timeout_s: float | None = None,
    ) -> Answer:
        try:
            return method(request, timeout=timeout_s or self._patience_s)
        except grpc.RpcError as failure:
            raise explained(error_from(failure), self.home) from failure

    def _fresh(self, target: Target, act: Callable[[Plain], Plain]) -> Plain:
        """Act on a session; once more on what it is by then, if it has started anew meanwhile."""
        try:
            return act(self.resolve(target))
        except StaleError:
            return act(self.resolve(target))

    def _changed_here(self, action: str, args: Plain, delivery: Delivery | None) -> Plain:
        """Let this node change the registry; once more if it has started anew meanwhile."""

        def change_once() -> Plain:
            return self._commander.submit(self._local_order(action, args), delivery or Delivery())

        try:
            outcome = change_once()
        except StaleError:
            outcome = change_once()
        return {**{name: args[name] for name in ("agent_id", "specialization")}, **outcome}

    def _local_order(self, action: str, args: Plain) -> Order:
        here = next((node for node in self.nodes()["nodes"] if node["self"]), None)
        if here is None:
            raise PeerError("the node does not list itself")
        return Order(here["node_id"], here["journal_generation"], action, args=args)

    @cached_property
    def _commander(self) -> Commander:
        from meshnode.client.orders import Commander  # noqa: PLC0415 - a list needs no cryptography

        return Commander(self.home, self._environment, self._now, self._chance, self._send)

    def _send(self, node_id: str, command: SignedMessage, timeout_s: float) -> SignedMessage:
        request = pb.SubmitCommandRequest(node_id=node_id, command=command, timeout_s=timeout_s)
        return self._call(self._node.SubmitCommand, request, timeout_s + SLACK_S).receipt


def _order(session: Plain, action: str, args: Plain) -> Order:
    return Order(session["node_id"], session["session_epoch"], action, session["session_id"], args)


def _already_ended(session: Plain) -> Plain:
    return {
        "command_id": None,
        "session_id": session["session_id"],
        "node_id": session["node_id"],
        "outcome": "applied",
        "at": session["ended_at"],
        "detail": "already ended",
        "receipt": None,
        "receipt_verified": False,
        "processes": {"found": 0, "gone": 0, "survivors": []},
    }
