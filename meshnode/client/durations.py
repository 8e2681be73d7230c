"""Durations and moments as people write them: `90`, `15m`, `7d`, `2026-11-20`, `7d ago`.

Invariant: what comes out is whole seconds, or RFC 3339 in UTC; what makes no sense is a UsageError
that shows the forms that do.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo

from meshnode.core.errors import UsageError

UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION_S_MAX = 3650 * 86400  # longer: UsageError
_DURATION = re.compile(r"(\d{1,12})([smhd]?)", re.ASCII)


def parse_duration(text: str) -> int:
    """Return seconds of `90`, `90s`, `15m`, `8h` or `7d`; raises UsageError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"not a duration: {text[:40]!r}", "write 90, 90s, 15m, 8h or 7d")
    seconds = int(match[1]) * UNIT_S[match[2]]
    if seconds > DURATION_S_MAX:
        raise UsageError(f"{text[:40]} is longer than ten years")
    return seconds


def words_of(seconds: int) -> str:
    """Write seconds as `parse_duration` reads them, in the largest unit that is exact: `400d`."""
    unit = next(unit for unit in "dhms" if seconds % UNIT_S[unit] == 0)
    return f"{seconds // UNIT_S[unit]}{unit}" if seconds else "0s"


def parse_instant(text: str, now_s: float, zone: tzinfo = UTC) -> str:
    """Return RFC 3339 UTC of a moment, a date in `zone`, or a duration ago; raises UsageError."""
    written = text.strip()
    ago = _DURATION.fullmatch(written.removesuffix("ago").strip())
    if ago is not None and (ago[2] or written.endswith("ago")):
        return rfc3339(now_s - parse_duration(ago[0]))
    try:
        moment = datetime.fromisoformat(written)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone)
        return rfc3339(moment.timestamp())
    except (ValueError, OverflowError):
        raise UsageError(
            f"not a moment: {text[:40]!r}", "write 2026-11-20, 2026-11-20T08:00:00Z or 7d"
        ) from None


def rfc3339(at_s: float) -> str:
    """Write seconds since 1970 as RFC 3339 in UTC, to the millisecond; raises UsageError."""
    try:
        moment = datetime.fromtimestamp(at_s, UTC)
    except (ValueError, OverflowError, OSError):
        raise UsageError("a moment out of range") from None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_of(moment: str) -> float:
    """Read RFC 3339; raises UsageError."""
    try:
        return datetime.fromisoformat(moment).timestamp()
    except (ValueError, OverflowError):
        raise UsageError(f"not RFC 3339: {moment[:40]!r}") from None
