"""What `show` tells of a session that only logs know, from a cost answer and from its rounds.

Invariant: plain values in, plain values out; needs neither a node nor its protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshnode.core.rounds import RoundLine, RoundsHead

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
        "created_at": hours[0],
        "updated_at": hours[-1],
        "model": groups[-1]["key"]["model"],
        "models": sorted({group["key"]["model"] for group in groups}),
        "days": sorted({hour[:10] for hour in hours}),
        "message_count": answer["records"],
        "usage": usage,
        "cost_usd": answer["cost_usd"],
        "unpriced": answer["unpriced"],
        "coverage": answer["coverage"],
    }


def plain(head: RoundsHead, lines: Iterable[RoundLine]) -> Plain:
    """Return rounds as plain values."""
    rounds = [msgspec.to_builtins(line) for line in lines]
    return {"rounds": rounds, "rounds_total": head.rounds}


def _first(groups: Iterable[Plain], name: str) -> str:
    return next((group["key"][name] for group in groups if group["key"][name]), "")
