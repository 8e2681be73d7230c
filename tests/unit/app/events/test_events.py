"""The log of events: its order, its bounds, and that no position lets anything be missed."""

from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from meshnode.app.cost.cost import CostGroup
from meshnode.app.events import events
from meshnode.app.events.events import Event, EventLog, concerns
from meshnode.app.events.things import Change, FieldChange, Kind, Op
from meshnode.core.ledger.ledger import Buckets

NOW_S = 1_790_000_000.0


def cost(session: str, tokens: int) -> CostGroup:
    key = {"node_id": "n" * 52, "node": "anna", "session": session, "model": "m"}
    return CostGroup(key, 1, 1, ("m",), Buckets(input=tokens), None)


def change(session: str, tokens: int, *, quiet: bool = False) -> Change:
    return Change(Kind.COST, Op.CHANGED, cost(session, tokens), cost(session, 0), quiet)


def append(log: EventLog, what: Change, at_s: float = NOW_S) -> Event:
    return log.append(what, (what.view.key["session"],), at_s)


@pytest.fixture
def log() -> EventLog:
    return EventLog("abcdefgh", 1, "wwwwwwww")


def test_positions_are_texts_that_sort_as_events_do(log):
    positions = [log.position(append(log, change("s", place)).seq) for place in range(300)]
    assert positions == sorted(positions)
    assert [log.seq_at(one) for one in positions] == list(range(1, 301))


@pytest.mark.parametrize(
    "position",
    [
        "",
        "x",
        "wwwwwwww",
        "abcdefgh0001",
        "abcdefgh0001wwwwwwww",
        "abcdefgh0001000000000001",  # as an older version wrote it
        "abcdefgh0001" + "f" * 12 + "wwwwwwww",
        "ABCDEFGH0001000000000001wwwwwwww",
        "abcdefgh0002000000000001wwwwwwww",
        "abcdefgh00010000000000x1wwwwwwww",
        "zbcdefgh0001000000000001wwwwwwww",
        "abcdefgh0001-00000000001wwwwwwww",
        "abcdefgh0001 00000000001wwwwwwww",
        "abcdefgh0001000000000001vwwwwwww",
        "\u0660" * 24 + "wwwwwwww",
        "a" * 10_000,
    ],
)
def test_a_position_that_was_never_given_out_is_none(log, position):
    append(log, change("s", 1))
    append(log, change("s", 2))
    assert log.seq_at(position) is None


def test_a_count_told_anew_takes_the_place_of_the_one_before(log):
    append(log, change("a", 1, quiet=True))
    append(log, change("b", 1, quiet=True))
    append(log, change("a", 2, quiet=True))
    held, reached = log.after(0, 100)
    assert [(one.seq, one.view.usage.total) for one in held] == [(2, 1), (3, 2)]
    assert reached == 3
    assert log.seq_at(log.position(1)) == 1, "who has seen the first still misses nothing"
    assert log.take_let_go() == [1]
    assert log.take_let_go() == []


def test_too_many_events_and_old_ones_go_and_so_do_the_positions_before(log, monkeypatch):
    monkeypatch.setattr(events, "EVENTS_MAX", 5)
    for number in range(8):
        append(log, change("s", number))
        log.trim(NOW_S - events.KEPT_S)
    held, _ = log.after(0, 100)
    assert [one.seq for one in held] == [4, 5, 6, 7, 8]
    assert log.seq_at(log.position(2)) is None
    assert log.seq_at(log.position(3)) == 3, "nothing after it is gone"
    append(log, change("s", 9), NOW_S + 1)
    assert log.trim(NOW_S + 0.5) == 8
    held, _ = log.after(8, 100)
    assert [one.seq for one in held] == [9]


def test_what_one_member_has_too_much_of_goes_before_what_others_have(log, monkeypatch):
    monkeypatch.setattr(events, "EVENTS_MAX", 20)
    monkeypatch.setattr(events, "THINNED", 3)
    for number in range(6):
        append(log, change("honest", number))
    for number in range(500):
        append(log, change("other", number))
        log.trim(NOW_S - events.KEPT_S)
    held, _ = log.after(0, 100)
    assert [one.seq for one in held if one.names == ("honest",)] == [1, 2, 3, 4, 5, 6]
    assert 10 < len(held) <= 20
    assert held[-1].seq == log.last == 506
    gone = set(range(1, 507)) - {one.seq for one in held}
    assert set(log.take_let_go()) == gone, "the disk is to let go of the same"
    assert log.seq_at(log.position(max(gone) - 1)) is None, "who was there has missed some"
    assert log.seq_at(log.position(max(gone))) == max(gone)
    again = EventLog("abcdefgh", 1, "xxxxxxxx", [replace(one, packed=b"packed") for one in held])
    again.begin_run(506, log.starts(), log.floor)
    assert again.seq_at(again.position(max(gone) - 1)) is None, "after a restart too"
    assert again.seq_at(again.position(max(gone))) == max(gone)


def test_many_bytes_are_too_much_too(log, monkeypatch):
    monkeypatch.setattr(events, "BYTES_MAX", 100)
    for number in range(5):
        log.pack(append(log, change("s", number)), bytes(30))
    log.trim(NOW_S - events.KEPT_S)
    held, _ = log.after(0, 100)
    assert [one.seq for one in held] == [3, 4, 5]
    assert {one.view for one in held} == {None}, "what is packed is not held twice"


def test_a_log_goes_on_from_the_disk_or_begins_a_run_that_knows_no_earlier_position(log):
    for number in range(3):
        log.pack(append(log, change("s", number)), b"packed")
    held, _ = log.after(0, 100)
    again = EventLog("abcdefgh", 1, "xxxxxxxx", held)
    again.begin_run(5, log.starts())
    assert again.seq_at(log.position(2)) == 2
    assert again.seq_at(again.position(2)) == 2
    assert append(again, change("s", 9)).seq == 6
    anew = EventLog("abcdefgh", 2, "yyyyyyyy", held)
    anew.begin_run(3, None)
    assert anew.seq_at(log.position(3)) is None
    assert anew.position(3) > log.position(3)
    assert append(anew, change("s", 9)).seq == 4
    assert len(anew.after(0, 100)[0]) == 4, "what was is still told as history"


def test_a_position_counts_no_further_than_its_start_is_known_to_have_come(log):
    append(log, change("s", 1))
    then = log.starts()
    append(log, change("s", 2))  # after a copy was made of how it was then
    restored = EventLog("abcdefgh", 1, "xxxxxxxx")
    restored.begin_run(1, then)
    for number in range(5):
        append(restored, change("s", number))
    assert [restored.seq_at(log.position(seq)) for seq in (1, 2)] == [1, None]
    assert [restored.seq_at(restored.position(seq)) for seq in (1, 2)] == [1, 2]
    assert log.position(1) < restored.position(2)


def test_of_many_starts_the_positions_of_the_earliest_are_let_go(log, monkeypatch):
    monkeypatch.setattr(events, "STARTS_MAX", 3)
    append(log, change("s", 1))
    given, starts = [log.position(1)], log.starts()
    for number in range(4):
        log = EventLog("abcdefgh", 1, f"start{number:03}")
        log.begin_run(1, starts)
        given.append(log.position(1))
        starts = log.starts()
        assert len(starts) <= 3
    assert [log.seq_at(one) for one in given] == [None, 1, 1, 1, 1]
    assert list(starts) == ["start001", "start002", "start003"]


def test_a_seq_that_a_disk_has_spoilt_takes_no_memory(log):
    near = append(log, change("s", 1))
    far = replace(near, seq=1 << 40)
    again = EventLog("abcdefgh", 1, "wwwwwwww", [near, far])
    again.begin_run(1 << 45, {})
    newest = append(again, change("s", 2))
    assert newest.seq == (1 << 45) + 1
    assert again.after(0, 2) == ([near, far], far.seq)
    assert again.after(far.seq, 2) == ([newest], newest.seq)


def test_what_has_changed_is_told_from_what_to_what(log):
    event = append(log, change("s", 5))
    assert event.changes == (FieldChange("tokens", "0", "5"),)


@pytest.mark.parametrize(
    ("about", "meant"),
    [
        ("builder", True),
        ("anna", True),
        ("anna/builder", True),
        ("abcdefgh", True),
        ("anna/abcdefgh", True),
        ("anna/abcdefgh/builder", True),
        ("anna/abcdefgh/other", False),
        ("anna/abcdefg", False),
        ("berta/builder", False),
        ("anna/other", False),
        ("abcdefg", False),
        ("build", False),
        ("/", False),
    ],
)
def test_an_event_concerns_whom_it_names(about, meant):
    assert concerns(("abcdefghijklm", "builder", "anna"), about, 8) is meant


@pytest.mark.property
@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40),
    st.integers(1, 12),
    st.integers(1, 7),
)
def test_whoever_resumes_anywhere_ends_with_the_newest_of_everything(acts, held_max, batch):
    log = EventLog("abcdefgh", 1, "wwwwwwww")
    known_at: list[dict[str, int]] = [{}]
    for number, (session, quiet) in enumerate(acts, 1):
        append(log, change(session, number, quiet=quiet))
        known_at.append(known_at[-1] | {session: number})
        with patch.object(events, "EVENTS_MAX", held_max):
            log.trim(NOW_S - events.KEPT_S)
    for seq, known in enumerate(known_at):
        place = log.seq_at(log.position(seq))
        if place is None:
            assert seq < log.floor
            continue
        mine, told = dict(known), []
        while place < log.last:
            found, place = log.after(place, batch)
            told += [one.seq for one in found]
            mine |= {one.view.key["session"]: one.view.usage.total for one in found}
        assert mine == known_at[-1]
        assert told == sorted(set(told))


def test_however_often_counts_are_told_anew_what_came_before_stays(log, monkeypatch):
    monkeypatch.setattr(events, "EVENTS_MAX", 3)
    append(log, change("first", 1))
    for number in range(200):
        append(log, change("s", number, quiet=True))
        log.trim(NOW_S - events.KEPT_S)
    assert [one.seq for one in log.after(0, 100)[0]] == [1, 201]
    assert len(log.take_let_go()) == 199
    assert log.seq_at(log.position(0)) == 0
    weeks_of_counts = 1 << 40
    again = EventLog("abcdefgh", 1, "wwwwwwww", [replace(log.get(1), packed=b"packed")])
    again.begin_run(weeks_of_counts, {})
    assert (again.trim(NOW_S - events.KEPT_S), again.seq_at(again.position(1))) == (0, 1)
    assert again.after(0, 100) == ([again.get(1)], weeks_of_counts)
