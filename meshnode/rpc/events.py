"""Events on the wire, and the service that streams them to the user of this machine."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from meshnode.app.cost.cost import CostGroup
from meshnode.app.events.watching import Told, Watching
from meshnode.app.queries.views import AgentView, BudgetView, NodeView, SessionView
from meshnode.rpc.budgets import budget_to_wire
from meshnode.rpc.cost import group_to_wire
from meshnode.rpc.pulses import pulsed
from meshnode.rpc.views import agent_to_wire, node_to_wire, session_to_wire
from meshnode.v1 import event_service_pb2 as pb
from meshnode.v1 import event_service_pb2_grpc as pb_grpc
from meshnode.wire.times import time_from_wire, time_to_wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from meshnode.app.events.events import Event
    from meshnode.app.events.watching import WatchDesk
    from meshnode.rpc.guard import Context


class EventServicer(pb_grpc.EventServiceServicer):
    """Streams events; decides nothing."""

    def __init__(self, desk: WatchDesk) -> None:
        self._desk = desk

    async def Watch(  # noqa: N802 - named by the proto
        self, request: pb.WatchRequest, context: Context
    ) -> AsyncIterator[pb.WatchResponse]:
        """Stream how things are, then every change."""
        del context
        watching = Watching(request.position, tuple(dict.fromkeys(request.kinds)), request.about)
        all_told = self._desk.watch(watching)
        async for told in pulsed(all_told) if request.pulses else all_told:
            if told is None:
                yield pb.WatchResponse()
                continue
            with suppress(DecodeError):
                yield pb.WatchResponse(event=told_to_wire(told))

    async def ListEvents(  # noqa: N802 - named by the proto
        self, request: pb.ListEventsRequest, context: Context
    ) -> AsyncIterator[pb.ListEventsResponse]:
        """Stream what has changed lately."""
        del context
        watching, since_s = history_from_wire(request)
        async for told in self._desk.history(watching, since_s):
            with suppress(DecodeError):
                yield pb.ListEventsResponse(event=told_to_wire(told))


def history_from_wire(request: pb.ListEventsRequest) -> tuple[Watching, float]:
    """Decode which events, and from when on; raises UsageError."""
    since_s = time_from_wire(request.since) if request.HasField("since") else 0.0
    return Watching("", tuple(dict.fromkeys(request.kinds)), request.about), since_s


def kept_events(
    held: Iterable[Event], request: pb.ListEventsRequest
) -> Iterator[pb.ListEventsResponse]:
    """Answer from what the disk holds; events that are no events are left out."""
    watching, since_s = history_from_wire(request)
    wanted = watching.checked()
    for event in held:
        if event.at_s >= since_s and wanted.wants(event.kind, event.names):
            with suppress(DecodeError):
                yield pb.ListEventsResponse(event=told_to_wire(Told("", event)))


def told_to_wire(told: Told) -> pb.Event:
    """Encode an event, or take it as it was encoded for the disk.

    Raises DecodeError for one that the disk has spoilt: the others are told all the same.
    """
    if told.event.packed is not None:
        return pb.Event.FromString(told.event.packed)
    return event_to_wire(told.event, told.position)


def packed_event(event: Event, position: str) -> bytes:
    """Encode an event for the disk."""
    return event_to_wire(event, position).SerializeToString()


def event_to_wire(event: Event, position: str) -> pb.Event:
    """Encode an event; without a position it cannot be resumed from."""
    message = pb.Event(
        position=position or None,
        at=time_to_wire(event.at_s),
        kind=event.kind,
        op=event.op,
        changes=[
            pb.FieldChange(field=one.field, before=one.before, after=one.after)
            for one in event.changes
        ],
    )
    match event.view:
        case SessionView():
            message.session.CopyFrom(session_to_wire(event.view))
        case NodeView():
            message.node.CopyFrom(node_to_wire(event.view))
        case AgentView():
            message.agent.CopyFrom(agent_to_wire(event.view))
        case CostGroup():
            message.cost.CopyFrom(group_to_wire(event.view))
        case BudgetView():
            message.budget.CopyFrom(budget_to_wire(event.view))
        case None:
            pass
    return message
