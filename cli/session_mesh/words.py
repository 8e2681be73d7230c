"""How values read in tables: ages, sizes of tokens, money, coverage."""

from collections.abc import Mapping, Sequence
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


def tokens(count: int) -> str:
    """Shorten a count: 950, 12.3k, 4.5M."""
    if count < THOUSAND:
        return str(count)
    scaled = float(count)
    for unit in ("k", "M", "G"):
        scaled /= THOUSAND
        if scaled < THOUSAND - 0.05:
            return f"{scaled:.1f}{unit}"
    return f"{scaled / THOUSAND:.1f}T"


def usd(amount: str | None) -> str:
    """Show money to four digits behind the point, six below a cent; "-" for no price."""
    if amount is None:
        return "-"
    exact = Decimal(amount)
    places = 4 if exact >= CENT or not exact else 6
    return f"${exact:.{places}f}"


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
    shown = [(name, str(value)) for name, value in fields if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in shown), default=0)
    return tuple(f"{name:<{width}}  {value}" for name, value in shown)


def cached(usage: dict[str, int]) -> int:
    """Return how many tokens were read from a cache or written into one: never part of `input`."""
    return usage["cache_read"] + usage["cache_write_5m"] + usage["cache_write_1h"]


def tokens_by_kind(usage: dict[str, int]) -> str:
    """Say how many tokens were used, and of which kinds: these add up."""
    read = usage["cache_read"]
    caches = {"cache read": read, "cache write": cached(usage) - read}
    told = {name: count for name, count in caches.items() if count}
    parts = {"input": usage["input"], **told, "output": usage["output"]}
    return f"{usage['total']} ({', '.join(f'{name} {count}' for name, count in parts.items())})"
