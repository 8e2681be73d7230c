import pytest
from viewing import IDS, Viewer

from meshnode.app.cost import tally
from meshnode.app.cost.cost import Adding, OwnedSlot, Unpriced, cost
from meshnode.app.cost.cutting import CostQuery, Span, Texts
from meshnode.app.pieces import finished
from meshnode.core.errors import UsageError
from meshnode.core.ids import session_id_of
from meshnode.core.ledger.counts import SLOTS, packed
from meshnode.core.ledger.ledger import Buckets, Diagnostics, Slot, SlotKey
from meshnode.core.ledger.prices import Priced, Rates
from meshnode.core.periods import DayKey, MonthKey

FEB_1_S = 1769904000  # 2026-02-01T00:00:00Z
SLOT = FEB_1_S // 1800


class Table:
    """Prices `cheap` at 1 and `dear` at 10 nano-USD per input token, and `free` at nothing."""

    def rates(self, model: str, provider: str, tier: str, at_s: float) -> Priced | None:
        assert (provider, tier) == ("openai", "standard")
        assert at_s >= 0
        pusd = {"cheap": 1_000, "dear": 10_000, "free": 0}.get(model.lower())
        return None if pusd is None else Priced(Rates(input_pusd=pusd), "table", model)

    def is_steady(self, model: str, provider: str, tier: str, day_s: int) -> bool:
        del model, provider, tier, day_s
        return False

    def source_text(self) -> str:
        return "table 1"


def row(
    model: str = "cheap",
    tokens: int = 100,
    slot: int = SLOT,
    *,
    node: str = "n1",
    session: str = "s1",
    owner: str = "",
) -> OwnedSlot:
    key = SlotKey(session, model, "standard", slot)
    value = Slot(1, Buckets(input=tokens), "agent", owner, "project", "openai")
    return OwnedSlot(f"{node}-id-of-52", node, key, value)


def ask(rows: list[OwnedSlot], *by: str, **query: object):
    return cost(rows, [], CostQuery(tuple(by), **query), Table())  # type: ignore[arg-type] # fields by name


def keys(rows: list[OwnedSlot], *by: str, **query: object) -> list[dict[str, str]]:
    return [dict(group.key) for group in ask(rows, *by, **query).groups]


def test_the_dearest_group_comes_first_then_the_one_with_most_tokens():
    rows = [row("free", 7), row("cheap", 500), row("dear", 100), row("free2", 9)]
    found = [(group.key["model"], group.cost_nusd) for group in ask(rows, "model").groups]
    assert found == [("dear", 1_000), ("cheap", 500), ("free2", None), ("free", 0)]


def test_a_mixed_answer_prices_what_it_can_and_lists_the_rest():
    answer = ask([row("cheap", 5), row("odd", 7), row("odd", 8, session="s2")], "session")
    assert (answer.cost_nusd, answer.totals.total, answer.records) == (5, 20, 3)
    assert answer.unpriced == (Unpriced("odd", 2, 15),)
    assert [(g.key["session"], g.cost_nusd) for g in answer.groups] == [("s1", 5), ("s2", None)]


def test_a_cost_is_unknown_only_if_nothing_in_it_is_priced():
    assert ask([row("odd")]).cost_nusd is None
    assert ask([row("free")]).cost_nusd == 0
    assert ask([]).cost_nusd == 0


def test_a_node_is_told_apart_from_a_namesake_that_has_spent_nothing():
    adding, one = Adding(CostQuery(("node",)), tally.Rated(Table())), row()
    span = Span(SLOTS, one.key.start_s, one.key.end_s)
    what = tally.Combination(one.key.model, one.slot.provider, one.key.tier)
    adding.row(what, span, Texts("vm-id-of-52", "s1", "", "", ""), packed(one.slot))
    answer = finished(adding.answer({"vm-id-of-52": "vm", "another-id": "vm"}))
    assert [group.key for group in answer.groups] == [{"node": "vm/vm-id-of"}]


def test_the_same_session_on_two_nodes_adds_and_is_one_session():
    answer = ask([row(node="n1"), row(node="n2")], "session")
    [group] = answer.groups
    assert (group.records, group.sessions, group.usage.total) == (2, 1, 200)


def test_letter_case_does_not_make_another_model():
    [group] = ask([row("Cheap"), row("cheap")], "model").groups
    assert (group.key, group.models) == ({"model": "Cheap"}, ("Cheap",))


def test_nodes_with_one_name_are_told_apart():
    rows = [row(node="n1"), OwnedSlot("other-id-of-52", "n1", row().key, row().slot)]
    found = {group["node"] for group in keys(rows, "node")}
    assert found == {"n1/n1-id-of", "n1/other-id"}
    assert keys([row()], "node") == [{"node": "n1"}]


def test_days_and_hours_are_cut_in_the_zone_of_the_query():
    late = row(slot=SLOT + 33)  # 16:30Z
    assert keys([late], "day") == [{"day": "2026-02-01"}]
    assert keys([late], "day", tz="Asia/Shanghai") == [{"day": "2026-02-02"}]
    assert keys([late], "hour") == [{"hour": "2026-02-01T16:00Z"}]
    assert keys([late], "hour", tz="Asia/Kolkata") == [{"hour": "2026-02-01T22:00+05:30"}]


def test_the_hour_that_the_clocks_repeat_is_two_hours():
    oct_25 = 1792886400 // 1800  # 2026-10-25T00:00:00Z, Berlin falls back at 01:00Z
    found = keys([row(slot=oct_25), row(slot=oct_25 + 2)], "hour", tz="Europe/Berlin")
    assert found == [{"hour": "2026-10-25T02:00+01:00"}, {"hour": "2026-10-25T02:00+02:00"}]


def test_a_zone_off_the_half_hour_says_that_it_is_not_exact():
    at_midnight = row(slot=SLOT + 36)  # 18:00Z is 23:45 there
    for by in ("hour", "day", "week", "month"):  # of a Sunday, the first of a month
        found = ask([at_midnight], by, tz="Asia/Kathmandu")
        assert found.tz_exact is (by == "month")
        assert bool(found.notes) is not found.tz_exact
    assert ask([at_midnight, row()], "model", tz="Asia/Kathmandu").tz_exact
    assert ask([row()], "day", tz="Asia/Kathmandu").tz_exact  # all within a day, as it is known
    assert ask([at_midnight], "day", tz="Asia/Kolkata").tz_exact


def test_weeks_begin_on_monday_and_are_named_by_it():
    new_year_s = 1798761600  # 2027-01-01T00:00:00Z, a Friday
    found = [
        keys([row(slot=new_year_s // 1800 + 48 * days)], "week", "month") for days in (-5, -4, 0, 3)
    ]
    assert [(group["week"], group["month"]) for [group] in found] == [
        ("2026-12-21", "2026-12"),  # Sunday
        ("2026-12-28", "2026-12"),
        ("2026-12-28", "2027-01"),
        ("2027-01-04", "2027-01"),
    ]


@pytest.mark.parametrize(
    ("zone", "minutes", "month", "week"),
    [
        ("UTC", -30, "2026-02", "2026-02-23"),
        ("UTC", 0, "2026-03", "2026-02-23"),
        ("Europe/Berlin", -60, "2026-03", "2026-02-23"),
        ("Europe/Berlin", 23 * 60 - 30, "2026-03", "2026-02-23"),
        ("Europe/Berlin", 23 * 60, "2026-03", "2026-03-02"),
        ("America/New_York", 5 * 60 - 30, "2026-02", "2026-02-23"),
        ("America/New_York", 5 * 60, "2026-03", "2026-02-23"),
        # The clocks go forward in the night to Sunday, so that its week is an hour shorter.
        ("Europe/Berlin", 28 * 24 * 60 + 22 * 60 - 30, "2026-03", "2026-03-23"),
        ("Europe/Berlin", 28 * 24 * 60 + 22 * 60, "2026-03", "2026-03-30"),
        ("Europe/Berlin", 30 * 24 * 60 + 22 * 60, "2026-04", "2026-03-30"),
    ],
)
def test_weeks_and_months_are_cut_in_the_zone_of_the_query(
    zone: str, minutes: int, month: str, week: str
):
    sunday_s = 1772323200  # 2026-03-01T00:00:00Z
    slot = (sunday_s + 60 * minutes) // 1800
    assert keys([row(slot=slot)], "month", "week", tz=zone) == [{"month": month, "week": week}]


def test_an_old_day_is_exactly_in_a_week_or_month_unless_its_midnights_cut_it():
    def day(number: int) -> OwnedSlot:  # of February 2026
        return row()._replace(key=DayKey("s1", "cheap", "standard", FEB_1_S // 86_400 + number - 1))

    assert ask([day(10), day(28)], "week", "month").notes == ()
    for by, cut, whole in (("month", 28, (10, 27)), ("week", 8, (10, 28))):
        assert ask(list(map(day, whole)), by, tz="Europe/Berlin").tz_exact
        note = (
            f"up to 2026-02-{cut:02} only UTC days are known: they are not those of Europe/Berlin"
        )
        assert ask([day(cut), day(10)], by, tz="Europe/Berlin").notes == (note,)


def test_an_old_month_is_in_no_week():
    month = row()._replace(key=MonthKey("s1", "cheap", "standard", 56 * 12 + 1))
    answer = ask([month, row()], "week")
    assert {group.key["week"] for group in answer.groups} == {"2026-02", "2026-01-26"}
    assert answer.notes == (
        "up to 2026-02 only UTC months are known: each stands under its own name",
    )
    assert ask([month, row()], "month").notes == ()
    assert keys([month, row()], "month") == [{"month": "2026-02"}]
    assert not ask([month], "month", tz="Europe/Berlin").tz_exact


def test_the_mesh_has_no_blocks():
    with pytest.raises(UsageError, match="blocks are of one plan") as refused:
        ask([row()], "block")
    assert "usage --by block" in refused.value.hint


def test_what_is_known_by_day_or_month_stands_under_its_own_name_and_is_noted():
    day, month = FEB_1_S // 86_400, 56 * 12 + 1
    rows = [
        row(slot=SLOT + 48 * 40),
        row()._replace(key=DayKey("s1", "cheap", "standard", day + 1)),
        row()._replace(key=MonthKey("s1", "cheap", "standard", month - 20)),
    ]
    named = {group["day"] for group in keys(rows, "day", tz="Asia/Tokyo")}
    assert named == {"2024-06", "2026-02-02", "2026-03-13"}
    assert {group["hour"] for group in keys(rows, "hour")} == {
        "2024-06",
        "2026-02-02",
        "2026-03-13T00:00Z",
    }
    by_month = "up to 2024-06 only UTC months are known: each stands under its own name"
    assert ask(rows, "day").notes == (by_month,)
    assert set(ask(rows, "day", tz="Asia/Tokyo").notes) == {
        by_month,
        "up to 2026-02-02 only UTC days are known: they are not those of Asia/Tokyo",
    }
    cut = ask(rows, since_s=FEB_1_S + 90_000)
    assert (cut.records, cut.tz_exact) == (2, False)
    assert cut.notes == (
        "up to 2026-02-02 only UTC days are known: one that is asked for in part counts whole",
    )
    assert ask(rows, "model").notes == ()


@pytest.mark.parametrize("zone", ["Etc/UTC", "Etc/UCT", "Zulu", "Etc/GMT", "Europe/London"])
def test_a_day_of_utc_is_a_day_of_each_zone_whose_clocks_show_utc_then(zone: str):
    winter = row()._replace(key=DayKey("s1", "cheap", "standard", FEB_1_S // 86_400))
    answer = ask([winter, row()], "day", tz=zone)
    assert (answer.tz_exact, answer.notes) == (True, ())


def test_a_day_of_utc_is_none_where_clocks_change_within_it():
    last_sunday_of_march = FEB_1_S // 86_400 + 56
    spring = row()._replace(key=DayKey("s1", "cheap", "standard", last_sunday_of_march))
    assert not ask([spring], "day", tz="Europe/London").tz_exact


def test_a_slot_that_overlaps_the_time_asked_for_counts():
    rows = [row(slot=SLOT + number, tokens=10**number) for number in range(4)]
    since_s, until_s = FEB_1_S + 1800 + 60, FEB_1_S + 3 * 1800
    assert ask(rows, since_s=since_s, until_s=until_s).totals.total == 110
    assert ask(rows, since_s=FEB_1_S + 1800).totals.total == 1110
    assert ask(rows, until_s=FEB_1_S + 1).totals.total == 1


def test_a_time_inside_a_half_hour_says_which_half_hours_are_counted():
    rows = [row(slot=SLOT), row(slot=SLOT + 1)]
    cut = ask(rows, since_s=FEB_1_S + 900)
    assert (cut.records, cut.tz_exact) == (2, False)
    counted = "half hours count whole: this is what was used"
    assert cut.notes == (f"{counted} from 2026-02-01T00:00Z",)
    cut = ask(rows, since_s=FEB_1_S + 900, until_s=FEB_1_S + 1801)
    assert cut.notes == (f"{counted} from 2026-02-01T00:00Z until 2026-02-01T01:00Z",)
    assert ask(rows, until_s=FEB_1_S + 1799).notes == (f"{counted} until 2026-02-01T00:30Z",)
    for since_s, until_s in ((0, 1800), (1800, 3600), (-900, 4500)):
        whole = ask(rows, since_s=FEB_1_S + since_s, until_s=FEB_1_S + until_s)
        assert (whole.tz_exact, whole.notes) == (True, ())


def test_several_groupings_make_one_key():
    assert keys([row(owner="ada")], "owner", "agent", "project", "tier") == [
        {"owner": "ada", "agent": "agent", "project": "project", "tier": "standard"}
    ]


def test_the_dearest_groups_are_shown_and_the_rest_is_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tally, "GROUPS_MAX", 3)
    rows = [row(tokens=number, session=f"s{number}") for number in range(1, 6)]
    rows += [row("odd", 9, session="s7"), row("dear", 1, session="s3", slot=SLOT + 1)]
    answer = ask(rows, "session", most=2)
    shown = [(g.key["session"], g.records, g.sessions, g.cost_nusd) for g in answer.groups]
    assert shown == [("s3", 2, 1, 13), ("s5", 1, 1, 5), ("(4 more)", 4, 4, 7)]
    assert answer.groups[-1].usage == Buckets(input=1 + 2 + 4 + 9)
    assert answer.groups[-1].models == ("cheap", "odd")
    assert (answer.sessions, answer.cost_nusd, answer.records) == (6, 25, 7)
    assert answer.groups_more == 4
    everything = ask(rows, "session", most=6)
    assert (len(everything.groups), everything.groups_more) == (6, 0)


def test_a_session_of_several_groups_that_are_joined_counts_once_there():
    rows = [row(tokens=9 - day, session="long", slot=SLOT + 48 * day) for day in range(4)]
    rows.append(row(tokens=1, session="short", slot=SLOT + 48))
    answer = ask(rows, "day", most=1)
    assert [(one.records, one.sessions) for one in answer.groups] == [(1, 1), (4, 2)]
    assert (answer.sessions, answer.groups_more) == (2, 3)


@pytest.mark.parametrize(("word", "near"), [("models", "model"), ("Day", "day"), ("nod", "node")])
def test_an_unknown_grouping_names_the_nearest(word: str, near: str):
    with pytest.raises(UsageError, match=f"did you mean {near}"):
        ask([], word)


def test_an_unknown_grouping_without_neighbour_lists_all():
    with pytest.raises(UsageError) as caught:
        ask([], "zzzzz")
    assert "session" in caught.value.hint


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd", "Europe", "\0"])
def test_an_unknown_zone_is_a_usage_error(zone: str):
    with pytest.raises(UsageError, match="no such time zone"):
        ask([], tz=zone)


def test_diagnostics_and_sources_are_told():
    found = [Diagnostics(quarantined=1), Diagnostics(quarantined=2, partial_tail_bytes=3)]
    answer = cost([], found, CostQuery(), Table())
    assert answer.diagnostics == Diagnostics(quarantined=3, partial_tail_bytes=3)
    assert answer.price_source == "table 1"


def test_only_the_node_of_a_session_says_whose_its_spending_is():
    """A member tells of a session of another, and of one that nobody has started."""
    viewer, by = Viewer(), CostQuery(("agent", "owner", "project"))
    builds = session_id_of(IDS[2], 7)
    for session in (builds, "gateway"):
        viewer.session(1, session, agent_id="mallory", owner="otto", project="elsewhere")
        viewer.spend(2, session, 100)
        viewer.session(3, session, agent_id="mallory", owner="otto", project="elsewhere")
    groups = viewer.queries.cost(by).groups
    assert [(set(one.key.values()), one.usage.total) for one in groups] == [({""}, 200)]
    viewer.session(2, builds, start=7, agent_id="builder", owner="olga", project="site")
    groups = viewer.queries.cost(by).groups
    told = {tuple(one.key.values()): one.usage.total for one in groups}
    assert told == {("builder", "olga", "site"): 100, ("", "", ""): 100}
