"""`events`: what has changed in the mesh lately."""

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from meshnode.client.durations import parse_instant
from meshnode.client.errors import ConflictError, NotFoundError
from meshnode.client.targets.targets import Target, Wanted
from session_mesh.arguments.completing import sessions
from session_mesh.arguments.options import EventKinds, several, stream_only
from session_mesh.call import Call
from session_mesh.output.render import View
from session_mesh.verbs import verb
from session_mesh.views.happenings import (
    document,
    id_of,
    line,
    public_event,
    tell,
    tell_absence,
    tell_all,
)

if TYPE_CHECKING:
    from meshnode.client.mesh import MeshClient
    from session_mesh.call import Reader

OF_COSTS = "costs have the time when this node saw them; when they were made: cost --by hour"


@verb(
    "session-mesh events",
    "session-mesh events builder --since 15m",
    "session-mesh events --kind node --since 2026-11-20 --follow -o json",
)
def app(
    call: Call,
    name: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="A session, agent or node; all unless told.", autocompletion=sessions
        ),
    ] = "",
    since: Annotated[str, typer.Option("--since", help="A moment, a date, or 15m.")] = "",
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what happens.")] = False,
    kind: EventKinds = None,
) -> View | int:
    """Show what has changed: sessions, nodes, agents, costs.

    The newest 10,000 events of 7 days are kept, by this node, with when it saw them. Costs are
    totals so far, and may be of older use.
    """
    begin = parse_instant(since, call.now_s()) if since else None
    wanted = Wanted(several(kind), name).checked()
    if follow:
        return _follow(call, wanted, begin)

    def ask(mesh: "Reader") -> dict[str, Any]:
        found = _happened(mesh, wanted, begin)
        if name and not found["events"]:
            _check_known(cast("MeshClient", mesh), name)
        return found

    value = call.read(ask)
    events = value["events"]
    if "source" in value:
        events = [event | {"source": value["source"]} for event in events]
    if call.style.format == "json" and not call.quiet:
        for event in events:
            call.streams.out.write(document(event) + "\n")
        call.streams.out.flush()
        return 0
    lines = tuple(map(line, events))
    notes = [] if events else ["nothing is known to have changed"]
    if any(one["kind"] == "cost" for one in events):
        notes.append(OF_COSTS)
    ids = list(dict.fromkeys(filter(None, map(id_of, events))))
    return View(
        {"events": list(map(public_event, events))}, lines, records="events", ids=ids, notes=notes
    )


def _check_known(mesh: "MeshClient", name: str) -> None:
    """Raise NotFoundError for a name that nobody bears or bore lately: a slip, and no silence."""
    if mesh.events(Wanted(about=name))["events"]:
        return
    with suppress(ConflictError):  # several are called so
        try:
            mesh.resolve(Target(name))
        except NotFoundError as error:
            with suppress(NotFoundError):
                mesh.node_id_of(name)
                return
            raise NotFoundError(f"no session, agent or node {name!r}", error.hint) from error


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


def _happened(mesh: "Reader", wanted: Wanted, begin: str | None) -> dict[str, Any]:
    value = mesh.events(wanted, begin)
    return {**value, "events": [one for one in value["events"] if not _is_at_work(one)]}


def _is_news(event: dict[str, Any]) -> bool:
    """Leave out how things are: a history is of what has changed."""
    return event["op"] not in {"snapshot", "complete", "resumed"} and not _is_at_work(event)


def _is_at_work(event: dict[str, Any]) -> bool:
    """Whether a session has shown that it is at work, and nothing else has changed."""
    return event["kind"] == "session" and event["op"] == "changed" and not event["changes"]
