"""`cost`: what the whole mesh has spent."""

from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer

from meshnode.client.durations import parse_instant, rfc3339
from meshnode.client.errors import UnreachableError, UsageError
from meshnode.client.words import nearest
from session_mesh import words
from session_mesh.call import Call
from session_mesh.render import Table, View
from session_mesh.verbs import verb

GROUPINGS = ("model", "day", "hour", "node", "owner", "agent", "session", "project", "tier")
DAYS_MAX = 3650


@verb(
    "session-mesh cost",
    "session-mesh cost --by model --by day --days 7",
    "session-mesh cost --by owner --since 2026-11-01 -o csv",
)
def app(
    call: Call,
    by: Annotated[
        list[str] | None,
        typer.Option("--by", metavar="|".join(GROUPINGS), help="Group; repeat for more."),
    ] = None,
    since: Annotated[str, typer.Option("--since", help="A moment, a date, or 7d.")] = "",
    until: Annotated[str, typer.Option("--until", help="A moment, a date, or 7d.")] = "",
    days: Annotated[
        int | None, typer.Option("--days", min=1, max=DAYS_MAX, help="So many, today included.")
    ] = None,
    tz: Annotated[str, typer.Option("--tz", metavar="ZONE", help="Of days; UTC unless told.")] = "",
    require_full: Annotated[
        bool, typer.Option("--require-full", help="Fail unless every node is heard.")
    ] = False,
) -> View:
    """Sum tokens and money of all nodes.

    What is missing or has no known price is said, never guessed.
    """
    zone = _zone(tz)
    if since and days:
        raise UsageError("--since and --days both say from when", "give one of them")
    begin = parse_instant(since, call.now_s(), zone) if since else None
    if days:
        begin = _midnight(call.now_s(), days, zone)
    end = parse_instant(until, call.now_s(), zone) if until else None
    groups = _groupings(by or ())
    value = call.read(lambda mesh: mesh.cost(groups, begin, end, tz))
    notes = words.coverage_notes(value["coverage"])
    if require_full and notes:
        raise UnreachableError(notes[0], "leave out --require-full to see what is known")
    return View(
        value=value,
        human=_table(value, groups),
        records="groups" if groups else "",
        notes=[*notes, *map(_unpriced, value["unpriced"])],
    )


def _groupings(names: Sequence[str]) -> tuple[str, ...]:
    for name in names:
        if name not in GROUPINGS:
            hint = f"one of: {', '.join(GROUPINGS)}"
            raise UsageError(f"cannot group by {name[:60]!r}{nearest(name, GROUPINGS)}", hint)
    return tuple(dict.fromkeys(names))


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name or "UTC")
    except (ValueError, OSError, KeyError):
        raise UsageError(f"no time zone {name[:60]!r}", "write it like Europe/Berlin") from None


def _midnight(now_s: float, days: int, zone: tzinfo) -> str:
    today = datetime.fromtimestamp(now_s, zone).replace(hour=0, minute=0, second=0, microsecond=0)
    return rfc3339((today - timedelta(days=days - 1)).timestamp())


def _table(value: dict[str, Any], by: tuple[str, ...]) -> Table:
    columns = (*(name.upper() for name in by), "INPUT", "CACHED", "OUTPUT", "TOKENS", "USD")
    rows = [
        (*(group["key"].get(name, "") for name in by), *_amounts(group["usage"], group["cost_usd"]))
        for group in value["groups"]
        if by
    ]
    heads = ("total", *[""] * (len(by) - 1)) if by else ()
    rows.append((*heads, *_amounts(value["totals"], value["cost_usd"])))
    return Table(columns, rows, flexible=columns[: len(by)])


def _amounts(usage: dict[str, int], cost_usd: str | None) -> tuple[str, ...]:
    return (
        str(usage["input"]),
        str(usage["cache_read"] + usage["cache_write_5m"] + usage["cache_write_1h"]),
        str(usage["output"]),
        str(usage["total"]),
        words.usd(cost_usd),
    )


def _unpriced(model: dict[str, Any]) -> str:
    return f"no price known for {model['model']}: {model['total']} tokens are not in the money"
