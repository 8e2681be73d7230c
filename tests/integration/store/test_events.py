"""The event log on disk: what is written is read, and a run goes on only after an orderly stop."""

import sqlite3

import pytest

from meshnode.app.events import events as app_events
from meshnode.app.events.events import Event
from meshnode.app.events.things import Kind, Op
from meshnode.store import events


def event(seq: int, name: str = "builder") -> Event:
    return Event(seq, 5.0 + seq, Kind.SESSION, Op.ADDED, (name, "anna"), packed=b"packed")


def test_what_is_written_is_read_in_order_and_what_is_gone_is_gone(database):
    database.run_now(events.save, [event(2), event(1), event(4), event(5)], [], 0)
    assert database.run_now(events.load) == [event(1), event(2), event(4), event(5)]
    database.run_now(events.save, [event(6)], [5], 2)
    assert database.run_now(events.load) == [event(4), event(6)]


def test_a_run_goes_on_after_an_orderly_stop_and_once_only(database):
    first = database.run_now(events.begin, "abcdefgh")
    database.run_now(events.stop, b"left")
    second = database.run_now(events.begin, "zzzzzzzz")
    third = database.run_now(events.begin, "zzzzzzzz")
    assert {one.log_id for one in (first, second, third)} == {"abcdefgh"}
    assert [(one.run, one.stopped) for one in (first, second, third)] == [
        (1, None),
        (1, b"left"),
        (2, None),
    ]


def test_rows_that_make_no_sense_are_left_out(database):
    database.run_now(events.save, [event(number) for number in range(1, 11)], [], 0)

    def spoil(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE events SET names = '{' WHERE seq = 1")
        connection.execute("UPDATE events SET names = '7' WHERE seq = 2")
        connection.execute("UPDATE events SET kind = 'nonsense' WHERE seq = 3")
        connection.execute("UPDATE events SET op = 'nonsense' WHERE seq = 4")
        connection.execute("UPDATE events SET packed = 'text' WHERE seq = 5")
        connection.execute("UPDATE events SET packed = 1 << 40 WHERE seq = 7")
        connection.execute("UPDATE events SET at_s = 'text' WHERE seq = 8")
        connection.execute("UPDATE events SET names = CAST(x'ff' AS TEXT) WHERE seq = 9")
        connection.execute("UPDATE events SET seq = -5 WHERE seq = 10")

    database.run_now(spoil)
    assert [one.seq for one in database.run_now(events.load)] == [6]
    assert database.run_now(events.begin, "abcdefgh").spoilt == 9


@pytest.mark.parametrize("key", ["events_log", "events_run"])
@pytest.mark.parametrize("value", [b"\xff", b"", 1 << 40])
def test_where_the_disk_has_spoilt_which_log_it_was_another_begins(database, key, value):
    database.run_now(events.begin, "abcdefgh")
    database.run_now(events.stop, b"left")

    def spoil(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))

    database.run_now(spoil)
    held = database.run_now(events.begin, "zzzzzzzz")
    assert (held.log_id, held.run, held.stopped) == ("zzzzzzzz", 1, None)


def test_no_more_is_read_than_is_kept(database, monkeypatch):
    monkeypatch.setattr(events, "EVENTS_MAX", 3)
    database.run_now(events.save, [event(number) for number in range(1, 7)], [], 0)
    assert [one.seq for one in database.run_now(events.load)] == [4, 5, 6]
    assert app_events.EVENTS_MAX > 3
