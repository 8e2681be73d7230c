"""What the ledger of one home answers, as the contract's JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from meshnode.core.ledger.prices import usd_text
from meshnode.ingest.line_numbers import line_numbers

if TYPE_CHECKING:
    from meshnode.app.cost.cost import CostAnswer
    from meshnode.node.ledger.usage import Read

COVERAGE: dict[str, Any] = {  # of this home alone, as others are told it
    "nodes_known": 1,
    "nodes_heard": 1,
    "oldest_s": None,
    "missing": [],
    "missing_more": 0,
}


def plain(answer: CostAnswer) -> dict[str, Any]:
    """Return an answer as `cost` gives it, as far as one home knows."""
    diagnostics = asdict(answer.diagnostics)
    del diagnostics["records"]
    return {
        "records": answer.records,
        "totals": answer.totals.by_name,
        "cost_usd": _usd(answer.cost_nusd),
        "groups": [
            {
                "key": dict(group.key),
                "records": group.records,
                "sessions": group.sessions,
                "models": list(group.models),
                "usage": group.usage.by_name,
                "cost_usd": _usd(group.cost_nusd),
            }
            for group in answer.groups
        ],
        "unpriced": [asdict(one) for one in answer.unpriced],
        "diagnostics": diagnostics,
        "coverage": COVERAGE,
        "price_source": answer.price_source,
        "tz_exact": answer.tz_exact,
        "sessions": answer.sessions,
        "notes": list(answer.notes),
    }


def left_out(read: Read) -> list[dict[str, Any]]:
    """Return where something was left out, and why; `line` is None where nobody can tell by now."""
    offsets: dict[str, list[int]] = {}
    for one in read.remarks:
        offsets.setdefault(one.file, []).append(one.offset)
    numbers = {file: line_numbers(file, some) for file, some in offsets.items()}
    return [asdict(one) | {"line": numbers[one.file].get(one.offset)} for one in read.remarks]


def _usd(nusd: int | None) -> str | None:
    return None if nusd is None else usd_text(nusd)
