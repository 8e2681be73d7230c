"""Sums of tokens and money: which span and groups the user means, and how they read in a table."""

from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo
from shlex import quote
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
import typer

from meshnode.client.durations import parse_instant, rfc3339, seconds_of
from meshnode.client.errors import UsageError
from meshnode.client.words import nearest
from session_mesh.arguments.completing import among
from session_mesh.arguments.options import several
from session_mesh.output import words
from session_mesh.output.tables import Table

TIMES = ("month", "week", "day", "hour")
GROUPINGS = ("model", *TIMES, "node", "owner", "agent", "session", "project", "tier")
BLOCK = "block"  # of a plan, which one machine has: of `usage` alone
SPARE = ("CACHED", "INPUT", "OUTPUT")  # left out on narrow terminals, before what they are of
NAME_CHARS = 20  # of a model or project, before columns are left out for it
AMOUNTS = ("INPUT", "CACHED", "OUTPUT", "TOKENS", "USD")
NOBODY = "-"  # in tables: no owner, agent or project is known
DAYS_MAX = 3650
UNPRICED_SHOWN_MAX = 10
MOST_MAX = 9_999  # groups that are told apart
TO_PRICE = "to set one: session-mesh prices explain"
THEN, TODAY = "then", "today"
PricesAt = Annotated[
    str,
    typer.Option(
        "--prices-at",
        metavar="then|today|DATE",
        help="Prices of when; each use's own.",
        autocompletion=among((THEN, TODAY)),
    ),
]


class Span(msgspec.Struct, frozen=True):
    """From when, until when, and in which zone days begin, as the user wrote it."""

    since: str = ""
    until: str = ""
    days: int | None = None
    tz: str = ""

    def bounds(self, now_s: float) -> tuple[str | None, str | None]:
        """Return both ends in RFC 3339; raises UsageError."""
        zone = self.zone
        if self.since and self.days:
            raise UsageError("--since and --days both say from when", "give one of them")
        begin = parse_instant(self.since, now_s, zone) if self.since else None
        if self.days:
            begin = _midnight(now_s, self.days, zone)
        end = parse_instant(self.until, now_s, zone) if self.until else None
        if begin and end and seconds_of(end) <= seconds_of(begin):
            hint = "a day given to --until is left out: name the one after it"
            raise UsageError("--until is not after --since", hint)
        return begin, end

    def priced_at(self, word: str, now_s: float) -> str | None:
        """Return of which moment prices shall be, in RFC 3339; None for that of each use."""
        if word == THEN:
            return None
        return rfc3339(now_s) if word == TODAY else parse_instant(word, now_s, self.zone)

    @property
    def zone(self) -> tzinfo:
        """The zone; raises UsageError for one that nobody knows."""
        try:
            return ZoneInfo(self.tz or "UTC")
        except (ValueError, OSError, KeyError):
            hint = "write it like Europe/Berlin"
            raise UsageError(f"no time zone {self.tz[:60]!r}", hint) from None


def groupings(names: Sequence[str], known: Sequence[str] = GROUPINGS) -> tuple[str, ...]:
    """Return each grouping once, also of `day,model`; raises UsageError for an unknown one."""
    found = several(names)
    for name in found:
        if name == BLOCK and name not in known:
            hint = "session-mesh usage --by block has those of its machine"
            raise UsageError("blocks are of one plan, and the mesh may have many", hint)
        if name not in known:
            hint = f"one of: {', '.join(known)}"
            raise UsageError(f"cannot group by {name[:60]!r}{nearest(name, known)}", hint)
    return found


def is_by_time(by: Sequence[str]) -> bool:
    """Tell whether groups depend on when a day begins."""
    return not {*TIMES, BLOCK}.isdisjoint(by)


def in_order(value: dict[str, Any], by: Sequence[str]) -> dict[str, Any]:
    """Sort groups of a time, such as a day, if that comes first, the oldest first; others stay."""
    if by and by[0] in (*TIMES, BLOCK):
        alone = _alone(value)
        rest = value["groups"][len(alone) :]
        alone.sort(key=lambda group: _oldest_first(str(group["key"][by[0]])))
        value["groups"] = [*alone, *rest]
    return value


def _alone(value: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the groups without the last one where that is made of several."""
    groups: list[dict[str, Any]] = value["groups"]
    return groups[:-1] if value.get("groups_more") else groups[:]


def table_of(value: dict[str, Any], by: Sequence[str]) -> Table:
    """Lay out groups and their total; a moment that is cut may be another's."""
    columns = (*(name.upper() for name in by), *AMOUNTS)
    places = _places(value)
    rows = [
        (
            *(group["key"].get(name) or NOBODY for name in by),
            *amounts(group["usage"], group["cost_usd"], places),
        )
        for group in value["groups"]
        if by
    ]
    heads = ("total", *[""] * (len(by) - 1)) if by else ()
    rows.append((*heads, *amounts(value["totals"], value["cost_usd"], places)))
    uncut = [name.upper() for name in (*TIMES, BLOCK)]
    return Table(columns, rows, "", columns[: len(by)], SPARE, AMOUNTS, NAME_CHARS, uncut=uncut)


def ids_of(value: dict[str, Any]) -> list[str]:
    """Return what names each group, its parts in the order that was asked for."""
    return [" ".join(group["key"].values()) for group in _alone(value) if group["key"]]


def unpriced(model: dict[str, Any]) -> str:
    """Say of a model that its tokens are not in the money."""
    tokens = words.count(model["total"])
    return f"no price known for {model['model']}: {tokens} tokens are not in the money"


def unpriced_in(value: dict[str, Any]) -> list[str]:
    """Say of each model that has no price what `unpriced` says, and how to give it one."""
    models = value["unpriced"]
    notes = [unpriced(model) for model in models[:UNPRICED_SHOWN_MAX]]
    if rest := models[UNPRICED_SHOWN_MAX:]:
        tokens = sum(model["total"] for model in rest)
        notes.append(f"nor for {len(rest)} more models: {words.count(tokens)} tokens")
    one = quote(models[0]["model"]) if len(models) == 1 else "MODEL, of each"
    return [*notes[:-1], f"{notes[-1]}; {TO_PRICE} {one}"] if notes else []


def notes_of(value: dict[str, Any]) -> list[str]:
    """Say what is not in the sums of all nodes, and what is not exact about them."""
    return [*unpriced_in(value), *_left_out(value), *inexact(value), *joined(value)]


def joined(value: dict[str, Any]) -> list[str]:
    """Say if groups are added up as one, since they are too many."""
    more = value.get("groups_more", 0)
    return [f"the others are one group: ({more} more)"] if more else []


def nothing_of(session: str, value: dict[str, Any], verb: str) -> list[str]:
    """Say if nothing was counted of the session that was asked for; `verb` lists all there are."""
    if value["records"] or not session:
        return []
    return [f"nothing is counted of session {session[:60]!r}: {verb} --by session lists them"]


def _oldest_first(name: str) -> tuple[str, timedelta]:
    """Of the two hours that a change of the clocks names alike that before it is the older."""
    offset = datetime.fromisoformat(name).utcoffset() if "T" in name else None
    return name[:16], -(offset or timedelta())


def _midnight(now_s: float, days: int, zone: tzinfo) -> str:
    today = datetime.fromtimestamp(now_s, zone).replace(hour=0, minute=0, second=0, microsecond=0)
    return rfc3339((today - timedelta(days=days - 1)).timestamp())


def _left_out(value: dict[str, Any]) -> list[str]:
    """Say if the user's own prices do not hold as they are written."""
    own = str(value.get("price_source", "")).split("; ")[0]
    if " left out" not in own:
        return []
    return [f"prices: {own}; what they were for costs what the next list says"]


def inexact(value: dict[str, Any]) -> list[str]:
    """Say if hours or days are not cut exactly."""
    if value["tz_exact"] or value.get("notes"):
        return list(value.get("notes", ()))
    kept = "ledgers keep half hours, after 35 days UTC days, after 13 months UTC months"
    return [f"not exact to the hour or day: {kept}"]


def statistics(value: dict[str, Any], by: str, *, models: bool = False) -> Table:
    """Lay out groups with their requests, sessions and perhaps models, and the total."""
    columns = (by.upper(), "REQUESTS", "SESSIONS", *AMOUNTS, *["MODELS"] * models)
    groups = [(one["key"][by], one, one["usage"], one["models"]) for one in value["groups"]]
    places = _places(value)
    rows = [
        (
            name,
            words.count(one["records"]),
            words.count(one["sessions"]),
            *amounts(usage, one["cost_usd"], places),
            *[", ".join(used)] * models,
        )
        for name, one, usage, used in [*groups, ("TOTAL", value, value["totals"], ())]
    ]
    spare = (*["MODELS"] * models, *SPARE, "SESSIONS", "REQUESTS")
    flexible = columns[-1:] if models else columns[:1]
    numbers = ("REQUESTS", "SESSIONS", *AMOUNTS)
    return Table(columns, rows, "", flexible, spare, numbers, NAME_CHARS)


def amounts(usage: dict[str, int], cost_usd: str | None, places: int) -> tuple[str, ...]:
    """Return the cells of AMOUNTS, money to so many digits behind the point."""
    counts = (usage["input"], words.cached(usage), usage["output"], usage["total"])
    return (*map(words.count, counts), words.usd(cost_usd, places))


def _places(value: dict[str, Any]) -> int:
    return words.places_of([value["cost_usd"], *(one["cost_usd"] for one in value["groups"])])
