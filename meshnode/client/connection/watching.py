"""Watching a node: how things are, then every change once, through restarts of the node.

Invariant: no event is yielded twice, and none is left out unsaid: after a break the stream goes on
behind the last position; where that is not possible an event `reset` or `lagged` says that all
before is to be forgotten, and a snapshot follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshnode.client import clock
from meshnode.client.connection.absence import Absence
from meshnode.client.connection.pulses import Pulses
from meshnode.client.durations import rfc3339
from meshnode.client.errors import NoNodeError, SilentNodeError
from meshnode.client.messages import to_plain
from meshnode.client.targets.nodes import working_links
from meshnode.client.targets.targets import check_lengths
from meshnode.v1 import event_service_pb2 as pb
from meshnode.v1.event_service_pb2_grpc import EventServiceStub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import grpc

    from meshnode.client.home import Home
    from meshnode.client.targets.targets import Wanted

    Plain = dict[str, Any]

FORGET = frozenset({"reset", "lagged"})


class Watch:
    """One watch of one node: connects, and again when the node ends or is not there."""

    def __init__(
        self,
        connect: Callable[[], grpc.Channel],
        home: Home,
        wanted: Wanted,
        now: Callable[[], float] = clock.wall_s,
        pause: Callable[[float], None] = clock.pause,
        absent: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """Watch; `absent` is told True when the node is away, and False when it is back."""
        self._connect = connect
        self._wanted = wanted
        self._now = now
        self._absence = Absence(pause, absent)
        self._position = ""
        self._told = False  # anything, ever
        self._partial = False  # a snapshot has begun and is not complete
        self._pulses = Pulses(home)

    def events(self, position: str) -> Iterator[Plain]:
        """Yield events as plain values.

        Raises NoNodeError or SilentNodeError when no node comes back in `absence.GIVE_UP_S`.
        """
        check_lengths({"position": position})
        self._position = position
        while True:
            try:
                answers = self._connection()
                for event in answers:
                    self._absence.end()
                    yield from self._begun(event)
                    yield from map(self._noted, answers)
            except (NoNodeError, SilentNodeError) as error:  # silent: perhaps it only begins
                if not self._told or self._absence.is_too_long:
                    raise
                self._absence.notice(error)
            self._absence.wait()

    def _connection(self) -> Iterator[Plain]:
        request = pb.WatchRequest(
            position=self._position,
            kinds=self._wanted.kinds,
            about=self._wanted.about,
            pulses=True,
        )
        with self._connect() as channel:
            call = EventServiceStub(channel).Watch(request)
            for answer in self._pulses.heard(call, lambda one: not one.HasField("event")):
                yield plain_event(answer.event)

    def _begun(self, event: Plain) -> Iterator[Plain]:
        """Yield the first event of a connection, and before it what it means for those before."""
        if event["op"] == "resumed" and self._told:
            return  # a break that cost nothing is not worth a word
        if self._partial and event["op"] not in FORGET:
            yield self._reset()
        yield self._noted(event)

    def _noted(self, event: Plain) -> Plain:
        self._told = True
        self._partial = event["op"] == "snapshot" or event["op"] in FORGET
        self._position = event["position"] or ""
        return event

    def _reset(self) -> Plain:
        fields = {"position": None, "at": rfc3339(self._now()), "kind": "watch", "op": "reset"}
        return {**fields, "object": None, "changes": []}


def plain_event(event: pb.Event) -> Plain:
    """Return an event as the contract's JSON."""
    plain = to_plain(event)
    name = event.WhichOneof("object")
    thing = None if name is None else plain[name]
    return {
        "position": plain["position"],
        "at": plain["at"],
        "kind": plain["kind"],
        "op": plain["op"],
        "object": working_links(thing) if thing is not None and name == "node" else thing,
        "changes": plain["changes"],
    }
