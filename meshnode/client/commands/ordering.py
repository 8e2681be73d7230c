"""What is ordered with a signature: steer, suspend, kill, register, and reading an agent's output.

Invariant: nothing here decides who may do what; the owners of sessions do.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict, replace

from meshnode.client.connection.asking import Asking
from meshnode.client.connection.retrying import tried
from meshnode.client.errors import NoNodeError, SilentNodeError
from meshnode.client.targets.targets import (
    WAITS,
    Delivery,
    Order,
    Target,
    has_ended,
)
from meshnode.client.targets.wishes import (
    already_ended,
    check_lives,
    checked_grace,
    kill_args,
    order_to,
    steer_args,
)
from meshnode.core.errors import NoAnswerError, PeerError, StaleError, UnreachableError
from meshnode.v1 import local_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from meshnode.client.commands.orders import Commander
    from meshnode.client.records.output import Piece, Span
    from meshnode.core.errors import MeshError
    from meshnode.v1.signed_pb2 import Signed as SignedMessage

    Plain = dict[str, Any]

SLACK_S = 5.0  # the node gives up on the owner first, and says more about it than a deadline does
ENDS = frozenset({"kill", "close"})
STANDING_HINT = "to end it when it returns, add --standing"


class Ordering(Asking):
    """The part of the client that signs."""

    def steer(
        self,
        target: Target | Plain,
        *,
        message: str = "",
        direction: str = "",
        mode: str = "",
        delivery: Delivery | None = None,
    ) -> Plain:
        """Send a session a message or a direction; returns the outcome that its owner signed.

        `mode` is soft, now or after; empty leaves it to what the owner knows of the direction.
        """
        args = steer_args(message, direction, mode)

        return self._fresh(target, lambda session: self._order(session, "steer", args, delivery))

    def kill(
        self,
        target: Target | Plain,
        *,
        force: bool = False,
        grace_s: int = 5,
        delivery: Delivery | None = None,
    ) -> Plain:
        """End a session with its whole process tree; one that has ended already is left alone."""
        args = kill_args(grace_s, force=force)
        try:
            return self._end("kill", target, args, delivery)
        except (NoNodeError, SilentNodeError):
            raise
        except UnreachableError as error:
            if not isinstance(error, NoAnswerError):  # what is open is not to be told as refused
                self.check_returns(self.resolve(target) if isinstance(target, Target) else target)
            hint = "; ".join(filter(None, (error.hint, STANDING_HINT)))
            raise type(error)(error.message, hint) from error

    def check_returns(self, session: Plain) -> None:
        """Raise UnreachableError for a session of a node that was put out: it hears no more."""
        nodes = self.nodes()["nodes"]
        if any(one["node_id"] == session["node_id"] and one["state"] == "revoked" for one in nodes):
            raise UnreachableError(
                f"{session['node_name']} was revoked: it hears of no order any more",
                "stop its agents on that machine",
            )

    def close(
        self, target: Target | Plain, *, grace_s: int = 5, delivery: Delivery | None = None
    ) -> Plain:
        """Ask an agent to end: its input ends, TERM follows after the grace; it is never killed."""
        return self._end("close", target, {"grace_s": checked_grace(grace_s)}, delivery)

    def suspend(self, target: Target | Plain, delivery: Delivery | None = None) -> Plain:
        """Stop all processes of a session where they stand, until `resume`."""
        return self._hold("suspend", target, delivery)

    def resume(self, target: Target | Plain, delivery: Delivery | None = None) -> Plain:
        """Let the processes of a session run on."""
        return self._hold("resume", target, delivery)

    def register(
        self,
        agent_id: str,
        specialization: str,
        attributes: Mapping[str, str] | None = None,
        delivery: Delivery | None = None,
    ) -> Plain:
        """Enter an agent into the specialization registry, through the feed of this node."""
        from meshnode.core.sessions.registry import specialist  # noqa: PLC0415 - msgspec: for these two

        entry = specialist(agent_id, specialization, dict(attributes or {}))
        return self._changed_here("register", asdict(entry), delivery)

    def unregister(
        self, agent_id: str, specialization: str, delivery: Delivery | None = None
    ) -> Plain:
        """Take an agent out of the registry, whoever entered it; outcome unknown: nobody did."""
        from meshnode.core.sessions.registry import place_of  # noqa: PLC0415 - as above

        place = place_of(agent_id, specialization)
        return self._changed_here("unregister", asdict(place), delivery)

    def logs(self, target: Target, span: Span | None = None) -> Iterator[bytes]:
        """Stream a session's output as the process wrote it: all, or that of a span."""
        from meshnode.client.records.output import read  # noqa: PLC0415 - a kill reads nothing

        yield from read(self, self.resolve(target), {} if span is None else span.args)

    def follow_logs(
        self, session: Plain, span: Span, absent: Callable[[bool], None] = lambda _: None
    ) -> Iterator[Piece]:
        """Stream the same and what comes, until the session has ended and its output is read.

        Goes on through a restart of a node, telling `absent` meanwhile; see `client.output`.
        """
        from meshnode.client.records.output import Following  # noqa: PLC0415 - as above

        return Following(self, session, absent).pieces(span)

    def signed(self, order: Order) -> SignedMessage:
        """Sign a request that is answered at once, and not carried out."""
        return self._commander.sign(order)

    def _end(
        self, action: str, target: Target | Plain, args: Plain, delivery: Delivery | None
    ) -> Plain:
        """Order an end; the time that an agent is given comes on top of that to reach its owner."""
        graces = 2 if action == "close" else 1  # before TERM, and after it
        delivery = delivery or Delivery()
        delivery = replace(delivery, timeout_s=delivery.timeout_s + graces * args["grace_s"])

        return self._fresh(target, lambda session: self._order(session, action, args, delivery))

    def _hold(self, action: str, target: Target | Plain, delivery: Delivery | None) -> Plain:
        return self._fresh(target, lambda session: self._order(session, action, {}, delivery))

    def _order(self, session: Plain, action: str, args: Plain, delivery: Delivery | None) -> Plain:
        """Order it; of a session that has ended ask what became of an order that was sent before.

        It may have ended by that very order.
        """
        order, delivery = order_to(session, action, args), delivery or Delivery()
        if has_ended(session) and not self._commander.repeats(order, delivery):
            if action in ENDS:
                self._commander.keep_ended(order, delivery)
                return already_ended(session)
            check_lives(session)
        return self._commander.submit(order, delivery)

    def _fresh(self, target: Target | Plain, act: Callable[[Plain], Plain]) -> Plain:
        """Act on a session; once more on what it is by then, if it has started anew meanwhile.

        A session that was listed just now is taken as it was.
        """
        named = target if isinstance(target, Target) else Target(session_id=target["session_id"])
        try:
            return act(self.resolve(named) if isinstance(target, Target) else target)
        except StaleError:
            return act(self.resolve(named))

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
        from meshnode.client.commands.orders import Commander  # noqa: PLC0415 - a list needs no cryptography

        return Commander(self.home, self.environment, self.now, self.chance, self._send)

    def _send(self, node_id: str, command: SignedMessage, delivery: Delivery) -> SignedMessage:
        request = pb.SubmitCommandRequest(
            node_id=node_id,
            command=command,
            timeout_s=delivery.timeout_s,
            until_accepted=delivery.wait == WAITS[0],
        )
        give_up_s = self.now() + delivery.timeout_s / 2

        def is_passing(error: MeshError) -> bool:
            """Whether it was not sent: the very same command, which acts once, is sent again."""
            return type(error) is UnreachableError and self.now() < give_up_s

        def submit() -> pb.SubmitCommandResponse:
            return self.call(self.node.SubmitCommand, request, delivery.timeout_s + SLACK_S)

        return tried(submit, is_passing).receipt
