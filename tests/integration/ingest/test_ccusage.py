"""The same transcripts, counted by ccusage and by us: what differs, and why."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import ccusage
import pytest
from transcripts import write

from meshnode.core.ledger.ledger import Slot, SlotKey
from meshnode.ingest.claude import Transcripts
from meshnode.ingest.tree import TreeReader
from meshnode.store import ledger
from meshnode.store.migrations import migrate

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

Sums = Counter[tuple[str, str, str]]  # by day, model and kind of tokens
GOLDEN = Path(__file__).parents[2] / "golden" / "claude"


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    yield connection
    connection.close()


def ours(connection: sqlite3.Connection, root: Path) -> Sums:
    batch = TreeReader(Transcripts(), str(root)).read({}, 1 << 30).batch
    ledger.commit(connection, batch, 1)
    sums: Sums = Counter()
    for key, slot in ledger.slots(connection):
        if isinstance(key, SlotKey) and isinstance(slot, Slot):
            day = datetime.fromtimestamp(key.start_s, UTC).date().isoformat()
            used = slot.usage
            sums[day, key.model, "inputTokens"] += used.input
            sums[day, key.model, "outputTokens"] += used.output
            sums[day, key.model, "cacheReadTokens"] += used.cache_read
            sums[day, key.model, "cacheCreationTokens"] += used.cache_write_5m + used.cache_write_1h
    return +sums


def theirs(program: Path, root: Path) -> Sums:
    sums: Sums = Counter()
    for day in ccusage.report(program, root, "daily"):
        for model in day["modelBreakdowns"]:
            for kind in KINDS:
                sums[day["date"], model["modelName"], kind] += model[kind]
    return +sums


DIFFERENCES = {
    # A line that says 10^15 tokens is set aside here, and counted there.
    "absurd": ("outputTokens", -(10**15)),
    # Numbers written as texts, nulls for numbers and a space after a name are passed over there.
    "as_texts": ("outputTokens", 159),
    "nulls": ("outputTokens", 2 * 159),
    "spaced": ("outputTokens", 159),
    # So is a call whose message has a number or a null for its id; here its request names it.
    "paths_as_ids": ("outputTokens", 159),
    "without_ids": ("outputTokens", 159),
    # A line that says in a number whose copy it is, is passed over there.
    "forked_from_nonsense": ("outputTokens", 159),
    # A file with bytes that are no UTF-8 is passed over there, whole.
    "invalid_utf8": ("outputTokens", 3 * 159),
    # A breakdown of zeros hides the total there; here the total lives five minutes.
    "breakdown": ("cacheCreationTokens", 2285),
    # The fast service is a tier here, and a model of its own there. And one number is a text.
    "web_search_and_tiers": ("outputTokens", 3 * 159),
    # So is an answer with a number written as text, and its advisors; a negative one is passed over
    # here, with its line. And an advisor that bears no name is passed over there.
    "advisor_oddly": ("outputTokens", 0),
    # Of two lines the one with more output counts here, the one with more tokens there.
    "whole_line_wins": ("outputTokens", 10),
}
"""Which traps are seen otherwise: the tokens that we count more, and why."""

KINDS = ("inputTokens", "outputTokens", "cacheReadTokens", "cacheCreationTokens")


def without_days(sums: Sums) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for (_, model, kind), count in sums.items():
        found[model, kind] += count
    return found


@pytest.mark.parametrize("seed", range(3))
def test_transcripts_add_up_to_the_same(
    program: Path, tmp_path: Path, connection: sqlite3.Connection, seed: int
):
    write(tmp_path, Random(seed), 1500, text_chars=60)
    mine, its = ours(connection, tmp_path), theirs(program, tmp_path)
    assert without_days(mine) == without_days(its)
    # An answer counts when it began: one told across midnight is a day later there.
    moved = sum(((mine - its) + (its - mine)).values())
    assert moved <= sum(mine.values()) // 100


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.jsonl")))
def test_traps_are_seen_alike_or_the_difference_is_known(
    program: Path, tmp_path: Path, connection: sqlite3.Connection, name: str
):
    folder = tmp_path / "projects" / "-srv-ada-my-app"
    folder.mkdir(parents=True)
    (folder / "s1.jsonl").write_bytes((GOLDEN / f"{name}.jsonl").read_bytes())
    mine, its = ours(connection, tmp_path), theirs(program, tmp_path)
    mine.subtract(its)
    different = without_days(mine)
    kind, more = DIFFERENCES.get(name, ("outputTokens", 0))
    assert different["claude-opus-4-6", kind] == more
    assert any(different.values()) == (name in DIFFERENCES)
