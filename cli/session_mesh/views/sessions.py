"""How sessions read in a table, of `list` and of `watch`."""

from collections.abc import Mapping, Sequence
from typing import Any

from session_mesh.output import words
from session_mesh.output.tables import Table

COLUMNS = ("SESSION", "AGENT", "NODE", "STATE", "SPECS", "TOKENS", "COST", "ACTIVE", "TITLE")
FLEXIBLE = ("TITLE", "SPECS", "NODE", "AGENT")
SPARE = ("TITLE", "SPECS", "ACTIVE", "TOKENS", "COST", "NODE")  # who it is stays longest
NUMBERS = ("TOKENS", "COST")
READABLE = 16  # of a name, before figures stay


def table_of(
    sessions: Sequence[dict[str, Any]], names: Mapping[str, str], now_s: float, nothing: str
) -> Table:
    """Return sessions as a table, or `nothing`; `names` are those of nodes, by id."""
    places = words.places_of(one["cost_usd"] for one in sessions)
    rows = [_row(one, names, now_s, places) for one in sessions]
    return Table(COLUMNS, rows, nothing, FLEXIBLE, SPARE, NUMBERS, READABLE)


def _row(
    session: dict[str, Any], names: Mapping[str, str], now_s: float, places: int
) -> tuple[str, ...]:
    return (
        words.short(session["session_id"]),
        session["agent_id"],
        names[session["node_id"]],
        session["state"],
        ",".join(session["specializations"]),
        words.count(session["usage"]["total"]),
        words.usd(session["cost_usd"], places),
        words.age(session["last_activity"], now_s),
        session["title"] or "",
    )
