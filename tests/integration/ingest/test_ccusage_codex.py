"""The same rollouts of Codex, counted by ccusage and by us: what differs, and why."""

import sqlite3
from pathlib import Path

import ccusage
import pytest

from meshnode.core.ledger.ledger import Slot
from meshnode.ingest.codex import Rollouts
from meshnode.ingest.tree import TreeReader
from meshnode.store import ledger
from meshnode.store.migrations import migrate

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

GOLDEN = Path(__file__).parents[2] / "golden" / "codex"
MORE = {
    ("two_limits",): 0,
    ("named_afterwards",): 0,
    ("service_tiers",): 0,
    ("spawning/parent", "spawning/restamped"): 0,
    ("spawning/parent", "spawning/kept"): 0,
    ("spawning/parent", "spawning/ordered"): 0,
    # The last turn of a parent, without what led to it, counts once more there.
    ("spawning/parent", "spawning/cut"): -2080,
    # Subagents whose totals are alike are one there.
    ("fresh/fresh_1", "fresh/fresh_2", "fresh/fresh_3"): 2 * 2620,
    # A compaction is named, and in no total.
    ("resumed_by_older",): 910,
}
"""Which rollouts lie beside one another, and the tokens that we count more."""


@pytest.mark.parametrize("names", MORE)
def test_rollouts_are_seen_alike_or_the_difference_is_known(
    program: Path, tmp_path: Path, names: tuple[str, ...]
):
    day = tmp_path / "sessions" / "2026" / "09" / "20"
    day.mkdir(parents=True)
    for name in names:
        told = GOLDEN / f"{name}.jsonl"
        (day / f"rollout-2026-09-20T10-00-00-{told.name}").write_bytes(told.read_bytes())
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    ledger.commit(connection, TreeReader(Rollouts(), str(tmp_path)).read({}, 1 << 30).batch, 0)
    slots = [slot for _, slot in ledger.slots(connection) if isinstance(slot, Slot)]
    connection.close()
    days = ccusage.report(program, tmp_path, "daily", source="codex")
    assert (
        sum(slot.usage.total for slot in slots) - sum(d["totalTokens"] for d in days)
        == (MORE[names])
    )
