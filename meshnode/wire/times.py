"""Times on the wire: RFC 3339, UTC, milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime

from meshnode.core.errors import UsageError

LATEST_S = 253_402_300_799.0  # the end of the year 9999: what a text can say


def time_to_wire(at_s: float) -> str:
    """Write seconds since 1970 as a text; times that no text can say become the nearest one."""
    at = datetime.fromtimestamp(min(max(at_s, 0.0), LATEST_S), UTC)
    return at.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def time_from_wire(text: str) -> float:
    """Read a text as seconds since 1970; raises UsageError."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"not a time: {text[:40]!r}", "write 2026-11-20T09:30:00Z") from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
