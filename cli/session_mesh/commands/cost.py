"""`cost`: what the whole mesh has spent."""

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from meshnode.client.durations import seconds_of
from meshnode.client.errors import UnreachableError
from meshnode.client.records.counted import counted_session
from session_mesh.arguments.completing import among, listed
from session_mesh.arguments.options import Node, SessionId
from session_mesh.call import Call
from session_mesh.output import words
from session_mesh.output.render import View
from session_mesh.verbs import verb
from session_mesh.views.amounts import (
    DAYS_MAX,
    GROUPINGS,
    MOST_MAX,
    THEN,
    PricesAt,
    Span,
    groupings,
    ids_of,
    in_order,
    notes_of,
    nothing_of,
    table_of,
)

if TYPE_CHECKING:
    from meshnode.client.mesh import MeshClient
    from session_mesh.call import Reader


@verb(
    "session-mesh cost",
    "session-mesh cost --by model,day --days 7",
    "session-mesh cost --by model --prices-at today",
    "session-mesh cost --by owner --since 2026-11-01 -o csv",
    "session-mesh cost --by session --node berta",
)
def app(
    call: Call,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by",
            metavar="|".join(GROUPINGS),
            help="Group; by several: a,b.",
            autocompletion=listed(among(GROUPINGS)),
        ),
    ] = None,
    since: Annotated[str, typer.Option("--since", help="A moment, a date, or 7d.")] = "",
    until: Annotated[
        str, typer.Option("--until", help="Before this: a moment, a date, or 7d.")
    ] = "",
    days: Annotated[
        int | None, typer.Option("--days", min=1, max=DAYS_MAX, help="So many, today included.")
    ] = None,
    tz: Annotated[str, typer.Option("--tz", metavar="ZONE", help="Of days; UTC unless told.")] = "",
    prices_at: PricesAt = THEN,
    node: Node = "",
    session: SessionId = "",
    most: Annotated[
        int,
        typer.Option(
            "--most",
            metavar="N",
            min=0,
            max=MOST_MAX,
            help="The dearest N groups; the rest is one.",
        ),
    ] = 0,
    require_full: Annotated[
        bool, typer.Option("--require-full", help="Fail unless every node is heard.")
    ] = False,
) -> View:
    """Sum tokens and money of all nodes.

    What is missing or has no known price is said, never guessed. --session takes what `show` does.
    CACHED was read from caches or written into them.
    """
    span = Span(since, until, days, tz)
    begin, end = span.bounds(call.now_s())
    priced_at = span.priced_at(prices_at, call.now_s())
    groups = groupings(by or ())

    def ask(mesh: "Reader") -> dict[str, Any]:
        if not session:
            return mesh.cost(groups, begin, end, tz, priced_at, (node, ""), most=most)
        meant = counted_session(cast("MeshClient", mesh), session, node)
        answer = mesh.cost(groups, begin, end, tz, priced_at, (node, meant), most=most)
        return answer | {"session_id": meant}

    value = in_order(call.read(ask), groups)
    notes = words.coverage_notes(value["coverage"])
    if require_full and notes:
        raise UnreachableError(notes[0], "leave out --require-full to see what is known")
    told = [*notes, *_meant(value, session, begin, call.now_s()), *notes_of(value)]
    return View(
        value=value,
        human=table_of(value, groups),
        records="groups" if groups else "",
        keys=groups,
        ids=ids_of(value),
        notes=told,
    )


def _meant(value: dict[str, Any], word: str, begin: str | None, now_s: float) -> list[str]:
    """Say why nothing was counted, and which session a name was taken for."""
    if not value["records"] and begin and seconds_of(begin) > now_s:
        return [f"{begin[:16]}Z is still to come: nothing was used after it"]
    meant = str(value.get("session_id", ""))
    if meant.startswith(word):
        return nothing_of(meant, value, "cost")
    of = f"{word[:60]!r} is session {meant}: cost --by agent --by session has all of an agent"
    return [of, *nothing_of(meant, value, "cost")]
