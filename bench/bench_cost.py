"""What a question about cost takes: from all rows, and from the roll-ups; and what those weigh.

1,000 nodes of 50 sessions a day for 30 days, unless --nodes says otherwise: 4.6 M rows, some
minutes, and 3 GB of memory. Rows are held without their hashes, which no question looks at. Times
are those of the processor: all of it is one thread that waits for nothing.
"""

from __future__ import annotations

import argparse
import time
from random import Random
from statistics import median
from typing import TYPE_CHECKING

import psutil
from report import Figure, table

from meshnode.app.cost.cells import Cells
from meshnode.app.cost.cutting import CostQuery
from meshnode.app.cost.shortcut import steps_of
from meshnode.app.cost.tally import Combination, Rated
from meshnode.app.pieces import pauses
from meshnode.core.feeds.rows import BUCKETS, Row, bucket_of
from meshnode.core.ids import NodeId
from meshnode.core.ledger.ledger import LEDGER, Buckets, Slot, SlotKey
from meshnode.core.ledger.ledger_rows import key_to_row, slot_to_row
from meshnode.core.sessions.sessions import SESSIONS, SessionRecord, State, session_to_row
from meshnode.core.tables.tables import Tables
from meshnode.ingest.prices import PriceBook

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from meshnode.app.cost.cost import CostAnswer
    from meshnode.app.cost.shelves import Part

DAYS, SESSIONS_A_DAY, ROWS_A_SESSION = 30, 50, 3.07
FIRST_DAY = 20_600  # in May 2026
MODELS = (
    ("claude-opus-4-1", "anthropic"),
    ("claude-sonnet-4-5", "anthropic"),
    ("gpt-5", "openai"),
    ("gpt-5-mini", "openai"),
    ("gemini-2.5-pro", "google"),
    ("grok-4", "x-ai"),
)
TIERS = ("standard", "standard>200000")
AGENTS = ("planner", "coder", "")
PROJECTS = 8  # of a node
LISTED = 5  # sessions of a node that the mesh knows; a third of them tells more than its rows
LIMIT_MS = 100.0
TIMES = 3


class Kept:
    """The rows of one feed, as far as indexes look at them."""

    def __init__(self, rows: dict[bytes, Row], sessions: dict[bytes, Row]) -> None:
        self.tables = {LEDGER: rows, SESSIONS: sessions}
        self._buckets: list[list[bytes]] = []

    def bucket(self, table: str, number: int) -> dict[bytes, Row]:
        """Return the rows of one bucket, by key; the buckets are forgotten after the last."""
        if not self._buckets:
            self._buckets = [[] for _ in range(BUCKETS)]
            for key in self.tables[table]:
                self._buckets[bucket_of(key)].append(key)
        found = {key: self.tables[table][key] for key in self._buckets[number]}
        if number == BUCKETS - 1:
            self._buckets = []
        return found

    def get(self, table: str, key: bytes) -> Row | None:
        """Return one row."""
        return self.tables[table].get(key)


class Held:
    """A replica."""

    def __init__(self, number: int, rng: Random) -> None:
        self.rows = Kept(ledger_of(number, rng), sessions_of(number))
        self.header = None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    nodes = parser.parse_args().nodes
    process, rng = psutil.Process(), Random(3)
    replicas = {NodeId(f"node-{n:05}"): Held(n, rng) for n in range(nodes)}
    rows = sum(len(one.rows.tables[LEDGER]) for one in replicas.values())
    tables, cells, rated = Tables(replicas), Cells(replicas), Rated(PriceBook())  # type: ignore[arg-type] # alike

    def ask(query: CostQuery, used: Cells | None) -> Callable[[], Generator[None, None, None]]:
        return lambda: told(steps_of(tables, replicas, used, (query, rated)))  # type: ignore[arg-type] # alike

    rated.is_alike(Combination(*MODELS[0], TIERS[0]), FIRST_DAY * 86_400)  # the price list is read
    before = process.memory_info().rss
    cells.begin()
    build_s, build_piece_ms = timed(cells.build)
    weight = process.memory_info().rss - before
    figures = [
        Figure(f"rows of {nodes:,} nodes, {DAYS} days", rows, ""),
        Figure("memory with nothing but the rows, resident", before / 2**20, "MiB"),
        Figure("  more with the roll-ups", weight / 2**20, "MiB"),
        Figure("  a row", weight / rows, "B"),
        Figure("  cells of all owners", sum(len(part.cells) for part in parts_of(cells)), ""),
        Figure("  in parts, each of one agent, owner and project", len(parts_of(cells)), ""),
        Figure("  sets of cells that sessions are in", len(cells.patterns.shapes), ""),
        Figure("building them, all in all", build_s, "s"),
        Figure("  its longest piece", build_piece_ms, "ms"),
    ]
    since_s = (FIRST_DAY + 5.55) * 86_400
    week_s = (FIRST_DAY + DAYS - 7) * 86_400.0
    day = CostQuery(("model",), since_s=(FIRST_DAY + DAYS - 1) * 86_400.0)
    one = NodeId("node-00001")
    for name, query, limit in (
        ("by model", CostQuery(("model",)), LIMIT_MS),
        ("by model and day", CostQuery(("model", "day")), LIMIT_MS),
        ("by day", CostQuery(("day",)), LIMIT_MS),
        ("by week", CostQuery(("week",)), LIMIT_MS),
        ("by month", CostQuery(("month",)), LIMIT_MS),
        ("by model, the last day", day, LIMIT_MS),
        ("by node", CostQuery(("node",)), None),
        ("by node and model", CostQuery(("node", "model")), None),
        ("by tier", CostQuery(("tier",)), LIMIT_MS),
        ("by owner", CostQuery(("owner",)), None),
        ("by agent", CostQuery(("agent",)), None),
        ("by project", CostQuery(("project",)), None),
        ("by agent, model and day", CostQuery(("agent", "model", "day")), None),
        ("by owner, the last day", CostQuery(("owner",), since_s=day.since_s), None),
        ("by hour, the last day", CostQuery(("hour",), since_s=day.since_s), None),
        ("by day in Berlin, 7 days", CostQuery(("day",), since_s=week_s, tz="Europe/Berlin"), None),
        ("by month in Berlin", CostQuery(("month",), tz="Europe/Berlin"), None),
        ("by model of one node", CostQuery(("model",), node_id=one), LIMIT_MS),
        ("by session of one node", CostQuery(("session",), node_id=one), None),
        ("by model since a time of day", CostQuery(("model",), since_s=since_s), None),
    ):
        figures += compared(name, ask(query, cells), limit)
    slow_s, slow_ms = timed(ask(CostQuery(("model",)), None))
    figures.append(Figure("the same by model from all rows", slow_s * 1000, "ms"))
    figures.append(Figure("  its longest piece", slow_ms, "ms"))
    table("Cost", figures)


def told(steps: Iterator[None]) -> Generator[None, None, None]:
    """Go through the steps to the answer."""
    adding = yield from steps  # type: ignore[misc] # a generator
    answer: CostAnswer = yield from adding.answer({})
    if not answer.records:
        raise ValueError("an answer without records")


def compared(
    name: str, ask: Callable[[], Generator[None, None, None]], limit: float | None
) -> list[Figure]:
    """Ask several times."""
    first, *later = (timed(ask) for _ in range(TIMES))
    return [
        Figure(f"{name}, from roll-ups", median(one[0] for one in later) * 1000, "ms", limit),
        Figure("  the first", first[0] * 1000, "ms"),
        Figure("  the longest piece", max(one[1] for one in later), "ms"),
    ]


def timed(steps: Callable[[], Generator[None, None, None]]) -> tuple[float, float]:
    """Return how many seconds all pieces took, and the longest in milliseconds."""
    began_s = at_s = time.process_time()
    longest = 0.0
    for _ in pauses(steps(), time.process_time):
        now_s = time.process_time()
        longest, at_s = max(longest, now_s - at_s), now_s
    now_s = time.process_time()
    return now_s - began_s, max(longest, now_s - at_s) * 1000


def parts_of(cells: Cells) -> list[Part]:
    """Return the parts of all owners."""
    return [part for shelf in cells.shelves.values() for part in shelf.parts.values()]


def ledger_of(number: int, rng: Random) -> dict[bytes, Row]:
    """Make the ledger of one node: sessions of some half hours, most of them with one model.

    Each is of one of the node's two owners and of three agents, of whom one does not name itself,
    and in one of eight directories.
    """
    rows: dict[bytes, Row] = {}
    for day in range(DAYS):
        for session in range(SESSIONS_A_DAY):
            slot = (FIRST_DAY + day) * 48 + rng.randrange(48)
            project = rng.randrange(PROJECTS)
            whose = (
                rng.choice(AGENTS),
                f"owner-{number}-{project % 2}",
                f"/home/{number}/{project}",
            )
            what = [(*rng.choice(MODELS), TIERS[rng.random() < 0.1]) for _ in range(2)]  # noqa: PLR2004 - a tenth of the requests
            for place in range(1 + rng.randrange(5)):
                model, provider, tier = what[rng.random() < 0.2]  # noqa: PLR2004 - a fifth of the slots
                key = SlotKey(session_id(number, day, session), model, tier, slot + place)
                usage = Buckets(rng.randrange(9000), 50_000, 900, 0, rng.randrange(3000), 10)
                value = slot_to_row(Slot(3, usage, *whose, provider))
                rows[key_to_row(key)] = Row(1, len(rows) + 1, value)
    return rows


def sessions_of(number: int) -> dict[bytes, Row]:
    """Make the rows of the sessions that one node lists: some of the last day."""
    rows: dict[bytes, Row] = {}
    for session in range(LISTED):
        named = session_id(number, DAYS - 1, session)
        record = SessionRecord(named, 1, "listed", State.RUNNING, 0.0, 0.0)
        rows[named.encode()] = Row(1, session + 1, session_to_row(record))
    return rows


def session_id(node: int, day: int, session: int) -> str:
    """Name a session, as long as such ids are."""
    return f"s{node}-{day}-{session}-{'x' * 12}"


if __name__ == "__main__":
    main()
