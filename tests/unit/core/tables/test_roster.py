"""The registry as one node sees and changes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from unit.core.seated import BOOT, KEYS, ME, OTHER, PEER, PLACE, Seat

from meshnode.core.errors import RefusedError
from meshnode.core.feeds.headers import sign_header
from meshnode.core.feeds.heads import Head
from meshnode.core.feeds.room import ALWAYS
from meshnode.core.membership.genesis import Limits
from meshnode.core.packing import pack
from meshnode.core.sessions.registry import (
    REGISTRY,
    Birth,
    Place,
    Specialist,
    registry_key,
    registry_row,
)
from meshnode.core.tables.named import READ_MAX
from meshnode.core.tables.removals import (
    DOTS_MAX,
    REMOVALS,
    After,
    Answer,
    Dot,
    Removal,
    after_key,
    after_row,
    answer_key,
    answer_row,
    removal_key,
    removal_row,
)
from meshnode.core.tables.roster import ANSWERS_MAX, REGISTERED_MAX, REMOVALS_MAX, Roster
from meshnode.core.tables.tables import Tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@pytest.fixture
def seat() -> Seat:
    return Seat()


def test_an_entry_of_another_is_hidden_at_once_and_dropped_on_its_owners_word(seat: Seat):
    dot = seat.enter(PEER)
    assert seat.roster.remove(PLACE)
    seat.flush()
    assert seat.shown() == set()
    assert seat.rows(Removal) == [Removal(PLACE, frozenset({dot}))]
    seat.put(PEER, REGISTRY, registry_key(PLACE), None)
    assert seat.rows(Removal), "gone is not answered"
    seat.put(PEER, REMOVALS, answer_key(PLACE), answer_row([dot.birth]))
    assert seat.rows(Removal) == []
    header = seat.feeds[PEER].header
    assert header is not None
    assert seat.rows(After) == [After(header)]


def test_who_registers_again_unseen_stays(seat: Seat):
    seat.enter(PEER, 1)
    seat.roster.remove(PLACE)
    seat.flush()
    seat.enter(PEER, 2)
    assert seat.shown() == {PEER}


def test_registering_takes_the_place_of_what_is_seen(seat: Seat):
    seat.enter(PEER)
    seat.enter(OTHER)
    seat.roster.add(Specialist("agent", "docs", {"load": "0.5"}))
    seat.flush()
    ((origin, held),) = seat.roster.entries()
    assert (origin, held.entry.attributes) == (ME, {"load": "0.5"})


def test_an_entry_of_ours_that_somebody_removes_goes_and_is_answered(seat: Seat):
    seat.roster.add(Specialist("agent", "docs"))
    seat.flush()
    dot = Dot(ME, seat.own.head, Birth(BOOT, 1))
    seat.put(PEER, REMOVALS, removal_key(PLACE), removal_row([dot]))
    assert REGISTRY not in seat.own.rows.tables
    assert seat.rows(Answer) == [Answer(PLACE, frozenset({dot.birth}))]
    seat.put(PEER, REMOVALS, removal_key(PLACE), None)
    assert seat.rows(Answer) == []


def test_a_removal_that_comes_late_is_answered_too(seat: Seat):
    seat.roster.add(Specialist("agent", "docs"))
    seat.flush()
    dot = Dot(ME, seat.own.head, Birth(BOOT, 1))
    seat.roster.remove(PLACE)
    seat.flush()
    seat.put(PEER, REMOVALS, removal_key(PLACE), removal_row([dot]))
    assert seat.rows(Answer) == [Answer(PLACE, frozenset({dot.birth}))]


def test_of_a_history_that_our_disk_has_lost_nothing_is_answered(seat: Seat):
    lost = Dot(ME, Head(1, 90), Birth(BOOT - 1, 1))
    seat.put(PEER, REMOVALS, removal_key(PLACE), removal_row([lost]))
    assert seat.rows(Answer) == []


def test_a_feed_held_less_far_than_an_after_is_hidden_and_asked_for(seat: Seat):
    seat.enter(PEER)
    ahead = seat.signed_later()
    feed = seat.feeds[OTHER]
    feed.write(REMOVALS, after_key(PEER), after_row(ahead))
    change = feed.flush(1.0)
    assert change is not None
    assert seat.roster.behind(change) == {PEER: ahead.head}
    assert seat.shown() == set()
    seat.put(PEER, "notes", b"", b"later")
    assert seat.shown() == {PEER}
    assert seat.roster.behind(change) == {}


def test_an_after_that_its_origin_has_not_signed_hides_nothing(seat: Seat):
    seat.enter(PEER)
    ahead = seat.signed_later()
    far = replace(ahead, epoch=(1 << 63) - 1, signed=None)
    of_another_mesh = sign_header(KEYS[1], replace(ahead, mesh="another", epoch=9))
    forged = sign_header(KEYS[2], far)
    for row in (after_row(forged), after_row(of_another_mesh), pack([1 << 62, 1 << 62])):
        seat.put(OTHER, REMOVALS, after_key(PEER), row)
        assert seat.shown() == {PEER}


def test_what_nobody_has_entered_is_not_removed(seat: Seat):
    assert seat.roster.remove(PLACE) == []
    assert not seat.own.waiting


def test_entries_beyond_the_bound_are_refused_and_old_ones_still_change(seat: Seat):
    for number in range(REGISTERED_MAX):
        seat.roster.add(Specialist(f"a{number}", "docs"))
    seat.flush()
    with pytest.raises(RefusedError):
        seat.roster.add(Specialist("one more", "docs"))
    assert not seat.own.waiting
    seat.roster.add(Specialist("a0", "docs", {"load": "1"}))
    assert seat.own.waiting


def test_removals_beyond_the_bound_are_refused_and_change_nothing(seat: Seat):
    for number in range(REMOVALS_MAX + 1):
        place = Place(f"a{number}", "docs")
        entry = Specialist(place.agent_id, place.specialization)
        row = registry_row(entry, Birth(BOOT, number))
        owner = PEER if number < REMOVALS_MAX else OTHER
        seat.feeds[owner].write(REGISTRY, registry_key(place), row)
        if number < REMOVALS_MAX:
            dots = [Dot(PEER, Head(1, number + 1), Birth(BOOT, number))]
            seat.own.write(REMOVALS, removal_key(place), removal_row(dots))
    for feed in seat.feeds.values():
        feed.flush(1.0)
    last = Place(f"a{REMOVALS_MAX}", "docs")
    for change in (
        lambda: seat.roster.remove(last),
        lambda: seat.roster.add(Specialist(last.agent_id, last.specialization)),
    ):
        with pytest.raises(RefusedError, match="away"):
            change()
    assert not seat.own.waiting


def test_adds_of_one_entry_beyond_the_bound_are_refused(seat: Seat):
    for number in range(DOTS_MAX):
        seat.enter(PEER, number)
        seat.roster.remove(PLACE)
        seat.flush()
    seat.enter(PEER, DOTS_MAX)
    with pytest.raises(RefusedError):
        seat.roster.remove(PLACE)


def test_a_feed_that_is_full_changes_nothing_and_says_so():
    seat = Seat(Limits(rows_max=2 + len(ALWAYS)))
    seat.own.write("notes", b"", b"")
    seat.own.flush(1.0)
    dot = seat.enter(PEER)
    with pytest.raises(RefusedError):  # a removal and an entry are one row too many
        seat.roster.add(Specialist("agent", "docs"))
    assert not seat.own.waiting
    seat.own.write("notes", b"2", b"")
    seat.own.flush(1.0)
    named = Dot(ME, Head(1, 1), Birth(BOOT, 1))
    seat.feeds[PEER].write(REMOVALS, removal_key(PLACE), removal_row([named]))
    change = seat.feeds[PEER].flush(1.0)
    assert change is not None
    (report,) = seat.roster.tend(change)
    assert report.event == "registry_not_tended"
    assert dot.origin == PEER


def name(seat: Seat, count: int, births: Iterable[int], agent: str = "a") -> None:
    """Let PEER name births of ours, of this start, at as many places."""
    dots = [Dot(ME, Head(1, 1), Birth(BOOT, number)) for number in births]
    for number in range(count):
        place = Place(f"{agent}{number}", "docs")
        seat.feeds[PEER].write(REMOVALS, removal_key(place), removal_row(dots))
    seat.flush(PEER)


def test_answers_beyond_the_bound_wait(seat: Seat):
    seat.roster.add(Specialist("agent", "docs"))
    seat.flush()
    most = ANSWERS_MAX // 2
    name(seat, most + 5, [1])
    assert len(seat.rows(Answer)) == most
    for number in range(5):
        seat.feeds[PEER].write(REMOVALS, removal_key(Place(f"a{number}", "docs")), None)
    seat.flush(PEER)
    answered = {row.place.agent_id for row in seat.rows(Answer) if isinstance(row, Answer)}
    assert answered == {f"a{number}" for number in range(5, most + 5)}


def test_births_that_there_never_were_are_not_answered_for_and_take_no_room(seat: Seat):
    name(seat, 20, range(1, DOTS_MAX + 1))
    assert seat.rows(Answer) == []


def test_who_names_births_in_advance_removes_none_of_them(seat: Seat):
    dots = [Dot(ME, Head(1, 1), Birth(BOOT, number)) for number in range(1, DOTS_MAX + 1)]
    seat.put(PEER, REMOVALS, removal_key(PLACE), removal_row(dots))
    assert seat.roster.add(Specialist("agent", "docs"))
    seat.flush()
    assert seat.shown() == {ME}
    assert seat.rows(Answer) == [], "or the removal is answered in part only"
    (held,) = [held for origin, held in seat.roster.entries() if origin == ME]
    at = seat.own.head
    seat.put(OTHER, REMOVALS, removal_key(PLACE), removal_row([Dot(ME, at, held.birth)]))
    assert seat.shown() == set(), "who has seen it may remove it"
    assert seat.rows(Answer) == [Answer(PLACE, frozenset({held.birth}))]


def test_a_genuine_removal_is_answered_however_many_were_made_up(seat: Seat):
    seat.roster.add(Specialist("agent", "docs"))
    seat.flush()
    dot = Dot(ME, seat.own.head, Birth(BOOT, 1))
    name(seat, ANSWERS_MAX, [1])
    seat.put(OTHER, REMOVALS, removal_key(PLACE), removal_row([dot]))
    assert Answer(PLACE, frozenset({dot.birth})) in seat.rows(Answer)


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Note each entry that is tended, and each removals row that is looked at."""
    found: list[object] = []
    for owner, name in ((Roster, "_tend_to"), (Tables, "removal_in"), (Tables, "removal")):
        called = getattr(owner, name)

        def noting(self: object, *args: object, called: Callable = called) -> object:
            found.append(args)
            return called(self, *args)

        monkeypatch.setattr(owner, name, noting)
    return found


def test_a_feed_full_of_removals_costs_nobody_more_than_what_it_writes(
    seat: Seat, looked: list[object]
):
    seat.put(ME, "notes", b"", b"")
    name(seat, REMOVALS_MAX, range(1, DOTS_MAX + 1))
    for act in (
        lambda: name(seat, 1, [1]),
        lambda: seat.put(PEER, "notes", b"", b""),
        lambda: seat.enter(PEER, 1, Place("of its own", "docs")),
        lambda: seat.roster.add(Specialist("agent", "docs")),
        seat.flush,
        seat.roster.entries,
    ):
        looked.clear()
        act()
        assert len(looked) <= 8, "of 1,000 removals"


def test_removals_beyond_what_one_may_have_hide_nothing_until_there_is_room(seat: Seat):
    seat.enter(OTHER, 1, Place("z", "docs"))
    named = Dot(OTHER, seat.feeds[OTHER].head, Birth(BOOT, 1))
    name(seat, READ_MAX, [1])
    seat.put(PEER, REMOVALS, removal_key(Place("zz", "docs")), removal_row([named]))
    seat.put(PEER, REMOVALS, removal_key(Place("z", "docs")), removal_row([named]))
    order = sorted(removal_key(Place(f"a{number}", "docs")) for number in range(READ_MAX))
    assert (seat.shown() == set()) == (removal_key(Place("z", "docs")) < order[-1])
    for key in order:
        seat.put(PEER, REMOVALS, key, None)
    assert seat.shown() == set()


def test_entries_beyond_what_one_may_have_are_not_shown_and_cost_nobody_a_look(
    seat: Seat, monkeypatch: pytest.MonkeyPatch
):
    for number in range(READ_MAX + 50):
        place = Place(f"a{number:04}", "docs")
        row = registry_row(Specialist(place.agent_id, place.specialization), Birth(BOOT, number))
        seat.feeds[PEER].write(REGISTRY, registry_key(place), row)
    seat.flush(PEER)
    read = []
    registration = Tables.registration
    monkeypatch.setattr(
        Tables, "registration", lambda self, *row: read.append(row) or registration(self, *row)
    )
    shown = {held.entry.agent_id for _, held in seat.roster.entries()}
    assert shown == {f"a{number:04}" for number in range(READ_MAX)}
    assert len(read) == READ_MAX
    assert seat.roster.remove(Place(f"a{READ_MAX:04}", "docs")) == []
    seat.put(PEER, REGISTRY, registry_key(Place("a0000", "docs")), None)
    assert f"a{READ_MAX:04}" in {held.entry.agent_id for _, held in seat.roster.entries()}


def test_a_removal_is_finished_once_its_feed_is_held_far_enough(seat: Seat):
    """The disk of this node was lost: its rows came back, and the owner's feed in an old state."""
    seat.enter(PEER)
    ahead = Dot(PEER, Head(1, 5), Birth(BOOT, 1))
    seat.put(ME, REMOVALS, removal_key(PLACE), removal_row([ahead]))
    seat.put(PEER, REGISTRY, registry_key(PLACE), None)
    seat.put(PEER, REMOVALS, answer_key(PLACE), answer_row([ahead.birth]))
    assert seat.rows(Removal), "held less far than it was seen"
    for number in range(2, 4):
        seat.enter(PEER, number, Place("other", "docs"))
    assert seat.rows(Removal) == []


def test_what_had_no_room_is_tended_once_there_is_some():
    seat = Seat(Limits(rows_max=40))
    seat.roster.add(Specialist("agent", "docs"))
    seat.flush()
    for number in range(34):
        seat.own.write("notes", b"%d" % number, b"")
    seat.flush()
    dots = [Dot(ME, Head(1, 1), Birth(BOOT, 1))]
    for number in range(9):
        place = Place(f"a{number}", "docs")
        seat.feeds[PEER].write(REMOVALS, removal_key(place), removal_row(dots))
    change = seat.feeds[PEER].flush(1.0)
    assert change is not None
    assert [one.event for one in seat.roster.tend(change)] == ["registry_not_tended"]
    while (own := seat.own.flush(1.0)) is not None:
        seat.roster.tend(own)
    assert 0 < len(seat.rows(Answer)) < 9
    for number in range(34):
        seat.own.write("notes", b"%d" % number, None)
    seat.flush()
    seat.enter(PEER)  # anything that has to do with the registry
    assert len(seat.rows(Answer)) == 9
