"""`stats-date`: what was used on each day."""

from typing import Annotated

import typer

from session_mesh.call import Call
from session_mesh.output import words
from session_mesh.output.render import View
from session_mesh.verbs import verb
from session_mesh.views.amounts import DAYS_MAX, Span, ids_of, in_order, notes_of, statistics


@verb("session-mesh stats-date", "session-mesh stats-date --days 7 --tz Europe/Berlin -o json")
def app(
    call: Call,
    days: Annotated[
        int, typer.Option("--days", min=1, max=DAYS_MAX, help="So many, today included.")
    ] = 30,
    tz: Annotated[str, typer.Option("--tz", metavar="ZONE", help="Of days; UTC unless told.")] = "",
) -> View:
    """Show requests, sessions, tokens, money and models of each day, the oldest first.

    The same as `cost --by day`, with more columns. CACHED was read from caches or written into
    them.
    """
    begin, _ = Span(days=days, tz=tz).bounds(call.now_s())
    by = ("day",)
    value = in_order(call.read(lambda mesh: mesh.cost(by, begin, None, tz)), by)
    return View(
        value=value,
        human=statistics(value, "day", models=True),
        records="groups",
        keys=("day",),
        ids=ids_of(value),
        notes=[*words.coverage_notes(value["coverage"]), *notes_of(value)],
    )
