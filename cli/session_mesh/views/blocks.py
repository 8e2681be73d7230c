"""`usage --by block`: the five hours that Claude's plans limit, as rows of a table."""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from meshnode.client.errors import UsageError
from session_mesh.output import words
from session_mesh.output.tables import Table
from session_mesh.views.amounts import BLOCK, table_of

SOURCE = "claude"
FIELDS = (  # of a group
    *("block.end", "block.active", "block.remaining_s", "block.tokens_per_minute"),
    *("block.cost_usd_per_hour", "block.projected_tokens", "block.projected_cost_usd"),
)
MINUTE_S, MINUTES_AN_HOUR = 60, 60
LEFT = "LEFT"  # of the active block, if there is one


def source_of(source: Sequence[str], session: str | None, *, follow: bool) -> tuple[str, ...]:
    """Return the one source that has blocks; raises UsageError for what none can be told of."""
    if any(name != SOURCE for name in source):
        hint = f"leave out --source, or name {SOURCE}"
        raise UsageError("blocks are those of Claude's plans: no other source has them", hint)
    if session is not None:
        hint = "--by block --by session tells sessions apart"
        raise UsageError("blocks are of all sessions together: leave out --session-key", hint)
    if follow:
        raise UsageError("--follow shows sessions, not blocks", "leave out one of them")
    return (SOURCE,)


def table_of_blocks(value: dict[str, Any], by: Sequence[str]) -> Table:
    """Lay out groups of blocks, and below them how the active one goes on."""
    table, place, groups = table_of(value, by), by.index(BLOCK), value["groups"]
    active = next((one for one in groups if one["block"]["active"]), None)
    spans = [_span(one["key"][BLOCK], one["block"]["end"]) for one in groups]
    rows = [list(row) for row in table.rows]
    for row, span in zip(rows, spans, strict=False):  # the last row is the total
        row[place] = span
    if active is None:
        return replace(table, rows=rows)
    left = [_hours(one["block"]) for one in groups]
    for row, hours in zip(rows, [*left, ""], strict=True):
        row.insert(len(by), hours)
    columns = (*table.columns[: len(by)], LEFT, *table.columns[len(by) :])
    return replace(table, columns=columns, rows=rows, below=_goes_on(active["block"]))


def _span(start: str, end: str) -> str:
    """Write both ends shortly: blocks are so long that no change of the clocks makes two alike."""
    return f"{start[:10]} {start[11:16]}-{end[11:16]}"


def _hours(block: dict[str, Any]) -> str:
    if not block["active"]:
        return ""
    hours, minutes = divmod(block["remaining_s"] // MINUTE_S, MINUTES_AN_HOUR)
    return f"{hours}h{minutes:02}m"


def _goes_on(block: dict[str, Any]) -> tuple[str, ...]:
    if block["tokens_per_minute"] is None:
        return ()
    rate = f"{words.count(block['tokens_per_minute'])} tokens a minute"
    projected = f"{words.count(block['projected_tokens'])} tokens"
    if block["cost_usd_per_hour"] is not None:
        rate += f" and {words.usd(block['cost_usd_per_hour'])} an hour"
        projected += f" and {words.usd(block['projected_cost_usd'])}"
    return (f"active: {rate}", f"at this rate {projected} by {block['end'][11:16]}")
