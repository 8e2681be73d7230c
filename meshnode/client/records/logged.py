"""What `show` tells of a session that only logs know, from a cost answer and from its rounds.

Invariant: plain values in, plain values out; needs neither a node nor its protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.client.durations import rfc3339, seconds_of
from meshnode.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from meshnode.core.ledger.rounds import RoundLine, RoundsHead

    Plain = dict[str, Any]

BY = ("session", "node", "model", "agent", "owner", "project", "hour")


def summed(session: str, answer: Plain) -> Plain:
    """Lay out a cost answer about one session, grouped by BY, as `show` tells of a session."""
    groups = sorted(answer["groups"], key=lambda group: str(group["key"]["hour"]))
    hours = [group["key"]["hour"] for group in groups]
    usage = answer["totals"]
    return {
        "session_id": session,
        "agent_id": _first(groups, "agent"),
        "owner": _first(groups, "owner"),
        "project": _first(groups, "project"),
        "created_at": _moment(hours[0]),
        "updated_at": _moment(hours[-1]),
        "model": groups[-1]["key"]["model"],
        "models": sorted({group["key"]["model"] for group in groups}),
        "days": sorted({hour[:10] for hour in hours}),
        "message_count": answer["records"],
        "usage": usage,
        "cost_usd": answer["cost_usd"],
        "unpriced": answer["unpriced"],
        "coverage": answer["coverage"],
    }


def timed(session: Plain, rounds: Sequence[Plain]) -> Plain:
    """Return a session with the times of its rounds, as far as all are known; they are in order.

    Otherwise it began with its first half hour, or with the old day or month that is left of it.
    """
    times = [one["timestamp"] for one in rounds if _is_moment(one["timestamp"])]
    if not times:
        return session
    created_at = times[0] if len(times) == session["message_count"] else session["created_at"]
    updated_at = max(times[-1], session["updated_at"])
    return session | {"created_at": created_at, "updated_at": updated_at}


def _moment(hour: str) -> str:
    """Return when an hour begins, or what is left of an old day or month, in RFC 3339."""
    told = hour.removesuffix("Z")
    return told + "0000-01-01T00:00:00.000Z"[len(told) :]


def _is_moment(text: str) -> bool:
    try:
        return rfc3339(seconds_of(text)) == text  # so that moments are in the order of their texts
    except UsageError:
        return False


def plain(head: RoundsHead, lines: Iterable[RoundLine]) -> Plain:
    """Return rounds as plain values."""
    rounds = [msgspec.to_builtins(line) for line in lines]
    return {"rounds": rounds, "rounds_total": head.rounds}


def _first(groups: Iterable[Plain], name: str) -> str:
    return next((group["key"][name] for group in groups if group["key"][name]), "")
