"""How values read in tables: ages, sizes of tokens, money, coverage."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from meshnode.client.durations import seconds_of

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400
SHORT_ID_CHARS = 10
THOUSAND = 1000
CENT = Decimal("0.01")


def age(moment: str | None, now_s: float) -> str:
    """Say how long ago a moment was, in its largest unit."""
    if not moment:
        return "-"
    seconds = max(0, int(now_s - seconds_of(moment)))
    for unit_s, unit in ((DAY_S, "d"), (HOUR_S, "h"), (MINUTE_S, "m")):
        if seconds >= unit_s:
            return f"{seconds // unit_s}{unit}"
    return f"{seconds}s"


def count(number: int) -> str:
    """Show a count in full, its thousands apart: 22,470,388."""
    return f"{number:,}"


def tokens(count: int) -> str:
    """Shorten a count for a line that has room for no more: 950, 12.3k, 4.5M."""
    if count < THOUSAND:
        return str(count)
    scaled = float(count)
    for unit in ("k", "M", "G"):
        scaled /= THOUSAND
        if scaled < THOUSAND - 0.05:
            return f"{scaled:.1f}{unit}"
    return f"{scaled / THOUSAND:.1f}T"


def usd(amount: str | None, places: int = 0) -> str:
    """Show money to so many digits behind the point, by itself as `places` says; "-": no price."""
    return "-" if amount is None else f"${Decimal(amount):,.{places or places_of([amount])}f}"


def places_of(amounts: Iterable[str | None]) -> int:
    """Return how many digits behind the point a column needs: six if one is below a cent."""
    exact = (Decimal(one) for one in amounts if one is not None)
    return 6 if any(0 < one < CENT for one in exact) else 4


def short(identifier: str) -> str:
    """Shorten an id to a prefix that still finds it."""
    return identifier[:SHORT_ID_CHARS]


def labelled(labels: Mapping[str, str]) -> str:
    """Show labels as they are given."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def coverage_notes(coverage: Mapping[str, Any]) -> list[str]:
    """Say who is missing from an answer: nothing when everybody was heard."""
    if is_full(coverage):
        return []
    missing = [_missing(one) for one in coverage["missing"]]
    if coverage["missing_more"]:
        missing.append(f"and {coverage['missing_more']} more")
    heard = f"{coverage['nodes_heard']} of {coverage['nodes_known']} nodes heard"
    return [f"{heard}; missing: {', '.join(missing)}" if missing else heard]


def is_full(coverage: Mapping[str, Any]) -> bool:
    """Whether an answer speaks for every known node, and knows of any."""
    return bool(coverage["nodes_heard"] >= coverage["nodes_known"] > 0)


def _missing(node: Mapping[str, Any]) -> str:
    since = f" since {node['observed_at']}" if node["observed_at"] else ""
    return f"{node['node_name']} ({node['state']}{since})"


def described(fields: Sequence[tuple[str, object]]) -> tuple[str, ...]:
    """Lay out names and values in two columns; absent values are left out."""
    shown = [(name, _said(value)) for name, value in fields if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in shown), default=0)
    return tuple(f"{name:<{width}}  {value}" for name, value in shown)


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def several(number: int, one: str, many: str) -> str:
    """Say how many there are of something: `1 entry`, `2 entries`."""
    return f"{number:,} {one if number == 1 else many}"


def cached(usage: dict[str, int]) -> int:
    """Return how many tokens were read from a cache or written into one: never part of `input`."""
    return usage["cache_read"] + usage["cache_write_5m"] + usage["cache_write_1h"]


def tokens_by_kind(usage: dict[str, int]) -> str:
    """Say how many tokens were used, and of which kinds: these add up."""
    read = usage["cache_read"]
    caches = {"cache read": read, "cache write": cached(usage) - read}
    some = {name: number for name, number in caches.items() if number}
    parts = {"input": usage["input"], **some, "output": usage["output"]}
    told = ", ".join(f"{name} {count(number)}" for name, number in parts.items())
    return f"{count(usage['total'])} ({told})"
