"""Cost by whom it was for, from roll-ups: that all of it is what rows say is in tests/property."""

from random import Random

import pytest

from meshnode.app.cost import shelves, tally
from meshnode.app.cost.cells import SPARE_KEYS, Cells
from meshnode.app.cost.cutting import CostQuery
from meshnode.app.cost.shortcut import steps_of
from meshnode.app.cost.tally import Rated
from meshnode.app.pieces import finished
from meshnode.core.effects import Announce
from meshnode.core.errors import UsageError
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.ids import node_id_of, session_id_of
from meshnode.core.keys import Key
from meshnode.core.ledger.ledger import LEDGER, Buckets, Slot, SlotKey
from meshnode.core.ledger.ledger_rows import key_from_row, key_to_row, value_to_row
from meshnode.core.membership.genesis import Limits
from meshnode.core.periods import DayKey
from meshnode.core.sessions.sessions import SESSIONS, SessionRecord, State, session_to_row
from meshnode.core.tables.tables import Tables

SLOT = 20_000 * 48


class Unpriced:
    """Prices nothing."""

    def rates(self, model, provider, tier, at_s):
        return None

    def is_steady(self, *_):
        return False

    def source_text(self):
        return "none"


class Ledger:
    """One node's ledger, the roll-ups that follow it, and how many rows were read beside them."""

    def __init__(self) -> None:
        self.replicas: dict[str, OwnFeed] = {}
        self.origin, self.feed = self.add_node(1)
        self.cells = Cells(self.replicas)
        self.cells.begin()
        self.build()
        self.read = 0
        row_in = self.cells.row_in

        def counted(*asked):
            self.read += 1
            return row_in(*asked)

        self.cells.row_in = counted

    def add_node(self, number: int) -> tuple[str, OwnFeed]:
        key = Key.new(Random(number).randbytes)
        feed = self.replicas[node_id_of(key.public)] = OwnFeed(key, bytes(32), Limits(), 1)
        return node_id_of(key.public), feed

    def say(self, session: str, owner: str | None, tokens: int = 1, slot: int = SLOT) -> None:
        value = None if owner is None else value_to_row(Slot(1, Buckets(tokens), owner=owner))
        self.feed.write(LEDGER, key_to_row(SlotKey(session, "m", "standard", slot)), value)
        change = self.feed.flush(0.0)
        self.cells.take(Announce(self.origin, change.rows, written=change.written))

    def know(self, start: int, owner: str) -> str:
        """Let the node tell of a session of its own; returns the id."""
        session = session_id_of(self.origin, start)
        record = SessionRecord(session, start, "agent", State.RUNNING, 0.0, 0.0, owner=owner)
        self.feed.write(SESSIONS, session.encode(), session_to_row(record))
        self.feed.flush(0.0)
        return session

    def by_owner(self, *more: str, **asked) -> dict[str, tuple[int, int]]:
        """Return tokens and sessions of each owner; with more groupings, of owners there."""
        self.read = 0
        found = finished(finished(self.steps(("owner", *more), **asked)).answer({}))
        return {" ".join(one.key.values()): (one.usage.total, one.sessions) for one in found.groups}

    def steps(self, by: tuple[str, ...], **asked):
        query = (CostQuery(by, **asked), Rated(Unpriced()))
        return steps_of(Tables(self.replicas), self.replicas, self.cells, query)

    def replace(self) -> None:
        """Announce that the whole feed has come anew."""
        self.cells.take(Announce(self.origin, [], replaced=True))

    def roll_up(self) -> None:
        """Move what the slots of a node say to days in one flush, or back where that was done."""
        rows = self.feed.rows.tables[LEDGER]
        for key, row in list(rows.items()):
            match key_from_row(key):
                case SlotKey(session, model, tier, slot):
                    moved = DayKey(session, model, tier, slot // 48)
                case DayKey(session, model, tier, day):
                    moved = SlotKey(session, model, tier, day * 48)
            self.feed.write(LEDGER, key, None)
            self.feed.write(LEDGER, key_to_row(moved), row.value)
        change = self.feed.flush(0.0)
        self.cells.take(Announce(self.origin, change.rows, written=change.written))

    def build(self) -> None:
        for _ in self.cells.build():
            pass

    def told(self, by: tuple[str, ...], place: int, *happens) -> tuple[int, int] | None:
        """Return records and sessions, if this happens at one pause; None if there are fewer."""
        steps = self.steps(by)
        try:
            for _ in range(place):
                next(steps)
        except StopIteration:
            return None
        for one in happens:
            one()
        adding = finished(steps)
        self.build()
        found = finished(adding.answer({}))
        return found.records, found.sessions


@pytest.fixture
def ledger():
    return Ledger()


@pytest.fixture
def cramped(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shelves, "PARTS_MAX", 2)
    return Ledger()


def test_cost_by_owner_reads_no_row(ledger: Ledger):
    for number in range(50):
        ledger.say(f"s{number}", ("ada", "bo")[number % 2], slot=SLOT + number)
    assert ledger.by_owner() == {"ada": (25, 25), "bo": (25, 25)}
    assert ledger.read == 0


def test_a_row_that_is_found_to_be_somebody_else_s_moves(ledger: Ledger):
    ledger.say("mine", "ada")
    ledger.say("moves", "ada", 10)
    ledger.say("moves", "bo", 10)
    assert ledger.by_owner() == {"ada": (1, 1), "bo": (10, 1)}
    of_an_hour = {"ada 2024-10-04T00:00Z": (1, 1), "bo 2024-10-04T00:00Z": (10, 1)}
    assert ledger.by_owner("hour") == of_an_hour


def test_a_row_that_moves_to_and_fro_leaves_few_keys_behind(ledger: Ledger):
    ledger.say("stays", "ada")
    ledger.say("stays too", "bo")
    for number in range(200):
        ledger.say("moves", ("ada", "bo")[number % 2])
    assert ledger.by_owner() == {"ada": (1, 1), "bo": (2, 2)}
    parts = ledger.cells.shelves[ledger.origin].parts.values()
    assert max(len(cell.keys) for part in parts for cell in part.cells.values()) < 2 * SPARE_KEYS


def test_by_month_only_rows_of_days_that_a_midnight_cuts_are_read(ledger: Ledger):
    for day in range(-5, 6):  # around the first of October 2024
        for hour in (1, 23):
            ledger.say("s", "ada", slot=SLOT + 48 * (day - 3) + 2 * hour)
    assert ledger.by_owner("month") == {"ada 2024-09": (10, 1), "ada 2024-10": (12, 1)}
    assert ledger.read == 0
    told = {"ada 2024-09": (9, 1), "ada 2024-10": (13, 1)}
    assert ledger.by_owner("month", tz="Europe/Berlin") == told
    assert ledger.read <= 2  # of the last day of September
    assert ledger.by_owner("week", tz="Europe/Berlin") == {
        "ada 2024-09-23": (7, 1),
        "ada 2024-09-30": (14, 1),
        "ada 2024-10-07": (1, 1),
    }
    assert ledger.read <= 4  # of two Sundays


def test_by_hour_a_row_is_read_where_a_cell_is_in_several(ledger: Ledger):
    for number in range(9):
        ledger.say(f"s{number}", ("ada", "bo")[number > 6], number, SLOT + number // 7)
    ledger.say("s9", "ada", 100, SLOT + 2)
    first, second = "2024-10-04T00:00Z", "2024-10-04T01:00Z"
    assert ledger.by_owner("hour") == {
        f"ada {first}": (21, 7),
        f"ada {second}": (100, 1),
        f"bo {first}": (15, 2),
    }
    assert ledger.read == 1


def test_a_session_that_the_mesh_knows_tells_whose_a_row_is_that_does_not(ledger: Ledger):
    known = ledger.know(4, "ada")
    for number, session in enumerate(["s0", "s1", "s2", "s3", known]):
        ledger.say(session, "", slot=SLOT + 48 * (number // 3))
    ledger.say(known, "bo", 10, SLOT + 49)
    assert ledger.by_owner() == {"": (4, 4), "ada": (1, 1), "bo": (10, 1)}
    assert ledger.read == 1  # two of that day do not say: what one counts, the other does not


def test_sessions_of_a_part_in_doubt_are_not_taken_for_those_of_another(ledger: Ledger):
    ledger.say(ledger.know(1, "ada"), "")
    for number in range(2, 5):
        ledger.say(f"s{number}", "bo", slot=SLOT + 48 * (number % 2))
    first, second = "2024-10-04", "2024-10-05"
    assert ledger.by_owner("day") == {
        f"ada {first}": (1, 1),
        f"bo {first}": (2, 2),
        f"bo {second}": (1, 1),
    }


def test_of_very_many_owners_those_that_come_last_are_told_apart_by_their_rows(cramped: Ledger):
    for number in range(6):
        cramped.say(f"s{number}", f"owner-{number}", number + 1)
    assert cramped.by_owner() == {f"owner-{n}": (n + 1, 1) for n in range(6)}
    assert cramped.read == 4


def test_who_came_last_has_a_part_once_there_is_room(cramped: Ledger):
    for number in range(6):
        cramped.say(f"s{number}", f"owner-{number}")
    for number in (0, 5):
        cramped.say(f"s{number}", None)
    cramped.say("s3", "owner-3", 2)
    cramped.say("s5", "owner-5")
    owners = {"owner-1": (1, 1), "owner-2": (1, 1), "owner-3": (2, 1), "owner-4": (1, 1)}
    assert cramped.by_owner() == owners | {"owner-5": (1, 1)}
    parts = cramped.cells.shelves[cramped.origin].parts
    assert [whose and whose.owner for whose in parts] == ["owner-1", None, "owner-5"]


def test_too_many_groups_are_refused_before_the_rest_is_read(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tally, "GROUPS_MAX", 3)
    for number in range(50):
        ledger.say(f"s{number}", "ada")
    with pytest.raises(UsageError, match="an answer holds 3 groups"):
        ledger.by_owner("session")
    assert ledger.read == 4


@pytest.fixture
def two(ledger: Ledger):
    """Two nodes with 50 rows each, of 25 sessions and 50 days."""
    for origin, feed in (ledger.add_node(2), (ledger.origin, ledger.feed)):
        ledger.origin, ledger.feed = origin, feed
        for number in range(50):
            ledger.say(f"{origin} {number // 2}", "ada", slot=SLOT + 48 * number)
    ledger.build()
    return ledger


@pytest.mark.parametrize("by", [(), ("node",), ("owner",), ("session",), ("hour",), ("day",)])
@pytest.mark.parametrize("is_built", [True, False])
def test_an_owner_that_is_replaced_while_a_query_pauses_is_counted_once(
    two: Ledger, by: tuple[str, ...], is_built: bool
):
    happens = [two.replace, two.build] if is_built else [two.replace]
    place = 0
    while (told := two.told(by, place, *happens)) is not None:
        assert (place, *told) == (place, 100, 50)
        place += 1
    assert place > 4


@pytest.mark.parametrize("by", [(), ("node",), ("owner",), ("session",), ("hour",), ("day",)])
def test_an_owner_that_is_counted_only_while_a_query_pauses_is_counted_once(
    two: Ledger, by: tuple[str, ...]
):
    place = 1
    two.replace()
    while (told := two.told(by, place, two.build)) is not None:
        assert (place, *told) == (place, 100, 50)
        place += 1
        two.replace()
    assert place > 4


@pytest.mark.parametrize("by", [(), ("node",), ("owner",), ("session",), ("hour",), ("day",)])
@pytest.mark.parametrize("is_counted", [True, False])
def test_what_is_rolled_up_while_a_query_pauses_is_counted_once(
    two: Ledger, by: tuple[str, ...], is_counted: bool
):
    place = 1
    if not is_counted:
        two.replace()
    while (told := two.told(by, place, two.roll_up)) is not None:
        assert (place, *told) == (place, 100, 50)
        place += 1
        if not is_counted:
            two.replace()
    assert place > 4


@pytest.mark.parametrize("by", [(), ("owner",)])
def test_an_owner_that_is_replaced_at_every_pause_is_read_row_by_row(
    two: Ledger, by: tuple[str, ...]
):
    paused = two.steps(by)

    def disturbed():
        while True:
            two.replace()
            two.build()
            try:
                yield next(paused)
            except StopIteration as answered:
                return answered.value

    found = finished(finished(disturbed()).answer({}))
    assert (found.records, found.sessions) == (100, 50)
