"""Budgets as people write them, the windows they count in, and what they do."""

from datetime import UTC, datetime

import pytest

from meshnode.core.control.settings import Terms
from meshnode.core.errors import UsageError
from meshnode.core.ids import SessionId
from meshnode.core.ledger.budgets import (
    Allowance,
    Heard,
    Latches,
    News,
    Spent,
    Standing,
    Told,
    Who,
    amount_text,
    budget_of,
    fits,
    holds,
    judge,
    parse_limit,
    parse_percent,
    window_of,
)
from meshnode.core.sessions.sessions import SessionRecord, State

USD = 10**9
FULL, PARTIAL = Heard(3, 3), Heard(2, 3)
TERMS = Terms(20 * USD, "nusd", "day", "kill")


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("20usd", 20 * USD, "nusd"),
        ("0.5usd", USD // 2, "nusd"),
        ("0.000000001USD", 1, "nusd"),
        ("5Mtok", 5_000_000, "tokens"),
        ("0.5Mtok", 500_000, "tokens"),
        ("200ktok", 200_000, "tokens"),
        ("200 ktok", 200_000, "tokens"),
        ("7tok", 7, "tokens"),
        ("2Gtok", 2 * 10**9, "tokens"),
        (" 20usd ", 20 * USD, "nusd"),
    ],
)
def test_a_limit_is_read_exactly(text, amount, unit):
    assert parse_limit(text) == (amount, unit)
    assert parse_limit(amount_text(amount, unit)) == (amount, unit)


NO_LIMITS = ["", "20", "usd", "-1usd", "+1usd", "NaNusd", "infusd", "1e9usd"]
NO_LIMITS += ["1.5tok", "0.0001ktok", "1_000usd", "٣usd", "9" * 19 + "usd", "5000000000usd"]
NO_LIMITS += ["0.0000000001usd", "1usd2", "20 eur", "1..2usd", "9999999999Gtok", "1\x00usd"]


@pytest.mark.parametrize("text", NO_LIMITS)
def test_what_is_no_limit_is_refused_in_a_sentence(text):
    with pytest.raises(UsageError) as refused:
        parse_limit(text)
    assert "write 20usd" in refused.value.hint


@pytest.mark.parametrize("text", ["0usd", "0.0usd", "0tok"])
def test_a_limit_of_nothing_is_refused_with_what_is_meant_instead(text):
    with pytest.raises(UsageError, match="allows nothing") as refused:
        parse_limit(text)
    assert "suspend who must not go on" in refused.value.hint


@pytest.mark.parametrize("text", ["0%", "101%", "-1%", "80.5%", "NaN", "", "²%"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(UsageError):
        parse_percent(text)


def test_a_share_is_read_with_or_without_its_sign():
    assert (parse_percent("80%"), parse_percent("1"), parse_percent("100%")) == (80, 1, 100)


@pytest.mark.parametrize(
    "bent",
    [{"name": ""}, {"name": "a" * 65}, {"owner": "a" * 257}, {"per": "week"}, {"then": "weep"}],
)
def test_a_budget_that_no_entry_holds_is_refused_before_it_is_signed(bent):
    said = {"name": "a", "limit": "1usd", "per": "day"} | bent
    with pytest.raises(UsageError):
        budget_of(said)


@pytest.mark.parametrize(
    ("per", "at", "start", "end"),
    [
        ("hour", "2026-11-21T19:59:59", "2026-11-21T19:00:00", "2026-11-21T20:00:00"),
        ("hour", "2026-11-21T20:00:00", "2026-11-21T20:00:00", "2026-11-21T21:00:00"),
        ("day", "2026-02-28T23:59:59", "2026-02-28T00:00:00", "2026-03-01T00:00:00"),
        ("month", "2026-01-31T12:00:00", "2026-01-01T00:00:00", "2026-02-01T00:00:00"),
        ("month", "2026-02-01T00:00:00", "2026-02-01T00:00:00", "2026-03-01T00:00:00"),
        ("month", "2028-02-29T23:59:59", "2028-02-01T00:00:00", "2028-03-01T00:00:00"),
        ("month", "2026-12-31T23:59:59", "2026-12-01T00:00:00", "2027-01-01T00:00:00"),
    ],
)
def test_windows_are_those_of_the_calendar_in_utc(per, at, start, end):
    window = window_of(per, seconds(at))
    assert (window.start_s, window.end_s) == (seconds(start), seconds(end))


@pytest.mark.parametrize(
    ("nusd", "standing", "percent"),
    [
        (0, Standing.OK, 0),
        (16 * USD - 1, Standing.OK, 79),
        (16 * USD, Standing.WARNED, 80),
        (20 * USD - 1, Standing.WARNED, 99),
        (20 * USD, Standing.EXCEEDED, 100),
        (10**40, Standing.EXCEEDED, 1_000_000),
    ],
)
def test_a_budget_warns_and_is_exceeded_at_its_limits_to_the_nano_dollar(nusd, standing, percent):
    verdict = judge(TERMS, Spent(nusd=nusd), FULL)
    assert (verdict.standing, verdict.percent) == (standing, percent)
    assert verdict.action == ("kill" if standing is Standing.EXCEEDED else "")


@pytest.mark.parametrize(
    ("limit", "amount", "said"),
    [
        ("1ktok", 1540, "1.54ktok of 1ktok"),
        ("1ktok", 1000, "1ktok of 1ktok"),
        ("1ktok", 1001, "1.001ktok of 1ktok"),
        ("1ktok", 0, "0ktok of 1ktok"),
        ("900tok", 1540, "1540tok of 900tok"),
        ("5Mtok", 5_123_456, "5.12Mtok of 5Mtok"),
        ("5Mtok", 4_999_951, "4.99995Mtok of 5Mtok"),
        ("5Gtok", 7, "0.00000001Gtok of 5Gtok"),
        ("20usd", 20_123_456_789, "20.12usd of 20usd"),
        ("20usd", 19_999_600_000, "19.9996usd of 20usd"),
        ("20usd", 20_000_000_001, "20.000000001usd of 20usd"),
        ("0.005usd", 4_900_000, "0.0049usd of 0.005usd"),
    ],
)
def test_what_is_spent_is_said_in_the_unit_of_the_limit_and_apart_from_it(limit, amount, said):
    terms = Terms(*parse_limit(limit), "day", "suspend")
    spent = Spent(nusd=amount) if limit.endswith("usd") else Spent(tokens=amount)
    assert judge(terms, spent, FULL).reason == f"{said} spent this day"


def test_while_a_node_is_missing_it_is_suspended_and_said():
    verdict = judge(TERMS, Spent(nusd=21 * USD), PARTIAL)
    assert verdict.action == "suspend"
    assert "2 of 3 nodes heard" in verdict.reason
    assert "suspended instead of killed" in verdict.reason


def test_what_has_no_price_is_said_and_is_in_no_money():
    spent = Spent(tokens=900, nusd=0, unpriced={"odd": 900})
    verdict = judge(TERMS, spent, FULL)
    assert (verdict.standing, verdict.amount) == (Standing.OK, 0)
    assert "no price for 900 tokens of odd" in verdict.reason
    in_tokens = judge(Terms(900, "tokens", "day", "suspend"), spent, FULL)
    assert in_tokens.standing is Standing.EXCEEDED
    assert "no price" not in in_tokens.reason


def test_a_budget_is_for_those_it_names_and_nobody_unknown():
    terms = Terms(1, "tokens", "day", "kill", owner="olga", specialization="crawl")
    assert fits(terms, Who("olga", "a", "p", ("crawl", "read")))
    assert not fits(terms, Who("olga", "a", "p", ("read",)))
    assert not fits(terms, Who("", "a", "p", ("crawl",)))
    assert fits(TERMS, Who())


def test_only_what_runs_is_suspended_and_what_stands_still_can_be_killed():
    window = window_of("day", 0)
    sessions = [session(state) for state in State if state is not State.UNREACHABLE]
    killed = meant(holds(ALLOWED, window, judge(TERMS, Spent(nusd=20 * USD), FULL), sessions, ()))
    held = meant(holds(ALLOWED, window, judge(TERMS, Spent(nusd=20 * USD), PARTIAL), sessions, ()))
    running = {State.RUNNING, State.IDLE, State.WAITING_PERMISSION}
    assert (killed, held) == (running | {State.SUSPENDED}, running)


def test_each_news_is_told_once_a_window_and_its_end_when_the_next_begins():
    latches, first, second = Latches(), window_of("hour", 0), window_of("hour", 3600)
    states = [Standing.OK, Standing.WARNED, Standing.OK, Standing.WARNED, Standing.EXCEEDED]
    told = [latches.step(b"b", first, one) for one in [*states, Standing.OK, Standing.EXCEEDED]]
    assert told == [[], [News.WARNED], [], [], [News.EXCEEDED], [], []]
    again = Latches(latches.told)  # after a restart
    assert again.step(b"b", first, Standing.EXCEEDED) == []
    assert again.step(b"b", second, Standing.OK) == [News.LIFTED]
    assert again.step(b"b", second, Standing.EXCEEDED) == [News.EXCEEDED]
    assert again.step(b"b", first, Standing.EXCEEDED) == [], "the clock was set back"
    assert again.forget(b"b") == [News.LIFTED]
    assert again.told == {}
    assert Latches({b"c": Told(0, Standing.OK)}).forget(b"c") == []


ALLOWED = Allowance(bytes(16), "b", TERMS)


def test_a_look_by_a_clock_that_was_ahead_silences_nothing_that_follows():
    latches, now_s, day = Latches(), 1_790_000_000, 86_400
    ahead = window_of("day", now_s + 400 * day)
    today, tomorrow = window_of("day", now_s), window_of("day", now_s + day)
    assert latches.step(b"b", ahead, Standing.EXCEEDED) == [News.EXCEEDED]
    assert latches.step(b"b", today, Standing.WARNED) == [News.LIFTED, News.WARNED]
    assert latches.step(b"b", today, Standing.EXCEEDED) == [News.EXCEEDED]
    assert latches.step(b"b", today, Standing.EXCEEDED) == []
    assert latches.step(b"b", tomorrow, Standing.OK) == [News.LIFTED]
    assert latches.step(b"b", today, Standing.EXCEEDED) == [News.EXCEEDED]
    assert Latches({b"b": Told(ahead.start_s, Standing.EXCEEDED)}).step(
        b"b", today, Standing.WARNED
    ) == [News.LIFTED, News.WARNED], "also after a restart"


def session(state: State) -> SessionRecord:
    return SessionRecord(SessionId(state), 7, "a", state, 0.0, 0.0)


def meant(found) -> set[State]:
    return {one.session.state for one in found}


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
