"""`events`: what has changed in the mesh lately."""

from typing import Annotated, Any

import typer

from meshnode.client.durations import parse_instant
from meshnode.client.targets import Wanted
from session_mesh.call import Call, Reader
from session_mesh.happenings import document, id_of, line, tell, tell_absence, tell_all
from session_mesh.options import EventKinds, stream_only
from session_mesh.render import View
from session_mesh.verbs import verb


@verb(
    "session-mesh events",
    "session-mesh events builder --since 15m",
    "session-mesh events --kind node --since 2026-11-20 --follow -o json",
)
def app(
    call: Call,
    name: Annotated[
        str, typer.Argument(metavar="ID", help="A session, agent or node; all unless told.")
    ] = "",
    since: Annotated[str, typer.Option("--since", help="A moment, a date, or 15m.")] = "",
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what happens.")] = False,
    kind: EventKinds = None,
) -> View | int:
    """Show what has changed: sessions, nodes, agents, costs.

    The newest 10,000 events of 7 days are kept, by this node, as it saw them.
    """
    begin = parse_instant(since, call.now_s()) if since else None
    wanted = Wanted(tuple(kind or ()), name).checked()
    if follow:
        return _follow(call, wanted, begin)
    value = call.read(lambda mesh: _happened(mesh, wanted, begin))
    events = value["events"]
    if "source" in value:
        events = [event | {"source": value["source"]} for event in events]
    if call.style.format == "json" and not call.quiet:
        for event in events:
            call.streams.out.write(document(event) + "\n")
        call.streams.out.flush()
        return 0
    lines = tuple(map(line, events))
    notes = () if events else ("nothing is known to have changed",)
    ids = list(dict.fromkeys(filter(None, map(id_of, events))))
    return View({"events": events}, lines, records="events", ids=ids, notes=notes)


def _follow(call: Call, wanted: Wanted, begin: str | None) -> int:
    stream_only(call.style)
    with call.mesh() as mesh:
        value = _happened(mesh, wanted, begin)
        for event in value["events"]:
            tell(event, call.streams, call.style)
        absent = tell_absence(call.streams)
        news = filter(_is_news, mesh.watch(wanted, value["position"], absent))
        tell_all(news, call.streams, call.style)
    return 0


def _happened(mesh: Reader, wanted: Wanted, begin: str | None) -> dict[str, Any]:
    value = mesh.events(wanted, begin)
    return {**value, "events": [one for one in value["events"] if not _is_at_work(one)]}


def _is_news(event: dict[str, Any]) -> bool:
    """Leave out how things are: a history is of what has changed."""
    return event["op"] not in {"snapshot", "complete", "resumed"} and not _is_at_work(event)


def _is_at_work(event: dict[str, Any]) -> bool:
    """Whether a session has shown that it is at work, and nothing else has changed."""
    return event["kind"] == "session" and event["op"] == "changed" and not event["changes"]
