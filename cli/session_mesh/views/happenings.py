"""How events read: a line each for people, one JSON document a line for programs."""

import json
import select
from collections.abc import Callable, Iterator
from typing import Any, TextIO, TypeVar

from meshnode.client.public import public
from session_mesh.output import words
from session_mesh.output.arriving import QUEUE_MAX, Arriving
from session_mesh.output.escaping import escape
from session_mesh.output.render import Streams, Style

One = TypeVar("One")
QUIET_S = 0.5  # without an event; then we look whether anybody still reads
CONTROL = {
    "complete": "that is how it is now; what follows are changes",
    "resumed": "nothing was missed",
    "lagged": "more has happened than this node keeps: all over again",
    "reset": "this node does not know that position: all over again",
}


def tell_absence(streams: Streams) -> Callable[[bool], None]:
    """Return what says on stderr that the node is away, and that it is back."""
    said = {True: "warning: the node does not answer: waiting for it", False: "the node is back"}
    return lambda absent: streams.tell(said[absent])


def tell_all(events: Iterator[dict[str, Any]], streams: Streams, style: Style) -> None:
    """Write events until they end; raises BrokenPipeError when nobody reads, events or none."""
    for event in while_read(events, streams.out):
        tell(event, streams, style)


def while_read(stream: Iterator[One], out: TextIO, queue_max: int = QUEUE_MAX) -> Iterator[One]:
    """Yield what arrives until it ends; raises BrokenPipeError when nobody reads what is shown."""
    arriving = Arriving(stream, queue_max)
    while True:
        try:
            one = arriving.next(QUIET_S)
        except EOFError:
            return
        if one is not None:
            yield one
        elif is_unread(out):
            raise BrokenPipeError


def is_unread(out: TextIO) -> bool:
    """Whether nobody reads any more what is written."""
    try:
        descriptor = out.fileno()
    except OSError:  # no file of the system, which nobody can close at its other end
        return False
    watched = select.poll()
    watched.register(descriptor, 0)  # errors and hang-ups alone, which are always told
    return bool(watched.poll(0))


def tell(event: dict[str, Any], streams: Streams, style: Style) -> None:
    """Write one event to stdout at once."""
    if style.quiet:
        text = escape(id_of(event))
    elif style.format == "json":
        text = document(event)
    else:
        text = escape(line(event))
    if text:
        streams.out.write(text + "\n")
        streams.out.flush()


def document(event: dict[str, Any]) -> str:
    """Return an event as JSON on one line."""
    return json.dumps(public_event(event), ensure_ascii=True)


def public_event(event: dict[str, Any]) -> dict[str, Any]:
    """Leave out the fields of its object that are no part of the contract's JSON."""
    return event | {"object": event["object"] and public(event["object"])}


def line(event: dict[str, Any]) -> str:
    """Return an event in words: when, who, what; from what to what."""
    at = event["at"][:19].replace("T", " ") + "Z"
    if event["kind"] == "watch":
        return f"{at}  {CONTROL.get(event['op'], event['op'])}"
    parts = [at, f"{event['kind']:<7}", f"{event['op']:<8}", who(event)]
    return "  ".join(filter(None, [*parts, what(event)]))


def who(event: dict[str, Any]) -> str:
    """Name what an event is about."""
    thing = event["object"]
    match event["kind"]:
        case "session":
            short = words.short(thing["session_id"])
            return f"{thing['agent_id']} on {thing['node_name']} ({short})"
        case "node":
            return str(thing["name"])
        case "agent":
            return f"{thing['agent_id']} on {thing['node_name']}: {thing['specialization']}"
        case "budget":
            return str(thing["name"])
        case _:
            key = thing["key"]
            session = words.short(key["session"]) or "no session"
            return f"{session} on {key['node']}: {key['model']}"


def what(event: dict[str, Any]) -> str:
    """Say what has changed, or how it is."""
    thing = event["object"]
    if event["changes"]:
        return ", ".join(
            f"{one['field']} {one['before'] or '-'} → {one['after'] or '-'}"
            for one in event["changes"]
        )
    match event["kind"]:
        case "session" | "node":
            return str(thing["state"])
        case "agent":
            return words.labelled(thing["attributes"])
        case "budget":
            return str(thing["reason"])
        case _:
            total = words.count(thing["usage"]["total"])
            return f"{total} tokens, {words.usd(thing['cost_usd'])} so far"


def id_of(event: dict[str, Any]) -> str:  # noqa: PLR0911 - one case a kind
    """Return the id of what an event is about, empty for a word about the stream."""
    thing = event["object"] or {}
    match event["kind"]:
        case "session":
            return str(thing["session_id"])
        case "node":
            return str(thing["node_id"])
        case "agent":
            return str(thing["agent_id"])
        case "cost":
            return str(thing["key"]["session"])
        case "budget":
            return str(thing["name"])
        case _:
            return ""
