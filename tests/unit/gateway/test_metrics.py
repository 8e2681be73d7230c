"""The page that Prometheus reads, from a node's parts, as Prometheus' own parser understands it."""

import asyncio
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families
from unit.app.seen import IDS, Seen

from meshnode.app.audit.alarms import DISK, Alarm, Alarms
from meshnode.app.cost import tally
from meshnode.app.counting import MODELS_MAX, Counting
from meshnode.app.queries.views import BudgetView
from meshnode.core.control.settings import Terms
from meshnode.gateway import metrics
from meshnode.gateway.metrics import PAGE_S, Measured, Metrics

UNITS = ("seconds", "bytes", "ratio", "total", "active", "session")
NO_UNIT = {"members", "links", "nodes_known", "nodes_heard", "budgets", "alarms", "writes_stopped"}


class NoSessions:
    """A node without sessions: what hosting has."""

    def live(self):
        return []


class Watched:
    """The metrics of a node of a mesh of four."""

    def __init__(self) -> None:
        self.seen = seen = Seen()
        self.alarms = Alarms(seen.clock.wall_s, lambda _alarm, _raised: None)
        self.counting = Counting(IDS[0], seen.clock.wall_s)
        self.budgets: dict[str, BudgetView] = {}
        notice = seen.noticed

        def noticed(change) -> None:
            self.counting.change(change)
            notice(change)

        seen.noticed = noticed
        parts = (self.counting, seen.queries, NoSessions(), self.alarms, self.budgets)
        self.metrics = Metrics(Measured(*parts, lambda: 1.8e9, seen.clock.steady_s))

    def page(self) -> str:
        return asyncio.run(self.metrics.page()).decode()

    def values(self) -> dict[tuple[str, ...], float]:
        self.seen.clock.now_s += PAGE_S
        return {
            (sample.name.removeprefix("session_mesh_"), *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(self.page())
            for sample in family.samples
        }


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_each_metric_has_a_sentence_and_a_base_unit(watched: Watched):
    families = list(text_string_to_metric_families(watched.page()))
    assert len(families) > 35
    for family in families:
        assert re.fullmatch(r"[A-Z].+\.", family.documentation), family.name
        ours = family.name.removeprefix("session_mesh_")
        if ours != family.name and family.type != "counter":  # counters end in _total
            assert ours in NO_UNIT or ours.endswith(UNITS), ours


def test_the_ledger_is_this_nodes_own_and_its_buckets_add_up(watched: Watched):
    watched.seen.spend(0, "s", 1000, "m")
    watched.seen.spend(1, "t", 5000, "m")
    watched.seen.spend(0, "s", 7, "free")
    values = watched.values()
    assert values["tokens_total", "input", "m"] == 1000
    tokens = {key: value for key, value in values.items() if key[0] == "tokens_total"}
    assert sum(tokens.values()) == 1007
    assert {bucket for _, bucket, _ in tokens} == {
        *("input", "cache_read", "cache_write_5m", "cache_write_1h", "output")
    }
    assert values["cost_usd_total", "m"] == pytest.approx(1e-6)
    assert ("cost_usd_total", "free") not in values
    watched.seen.spend(0, "s", 1500, "m")
    watched.seen.spend(0, "s", 20, "m", slot=6)
    assert watched.values()["tokens_total", "input", "m"] == 1520


def test_a_log_with_many_models_makes_no_more_series_than_there_is_room_for(watched: Watched):
    for number in range(MODELS_MAX + 5):
        watched.seen.spend(0, "s", 10 + number, f'{number}"\\\n')
    values = watched.values()
    named = {key[-1] for key in values if key[0] == "tokens_total"}
    assert len(named) == MODELS_MAX + 1
    assert {"other", '204"\\\n'} <= named
    assert values["tokens_total", "input", "other"] == 10 + 11 + 12 + 13 + 14


def test_the_figures_move_on_when_there_are_more_models_than_an_answer_holds(monkeypatch):
    monkeypatch.setattr(tally, "GROUPS_MAX", 301)
    monkeypatch.setattr(metrics, "GROUPS_MAX", 301)
    watched = Watched()
    for number in range(MODELS_MAX):
        watched.seen.spend(0, "s", 10, f"first-{number}")
    assert watched.values()["tokens_total", "input", "first-0"] == 10

    for number in range(310):  # of these and those 300 are told apart
        watched.seen.spend(0, "s", 1000, f"later-{number}")
    values = watched.values()
    assert values["tokens_total", "input", "first-0"] == 10
    assert values["tokens_total", "input", "other"] == 310 * 1000
    assert values["cost_usd_total", "other"] == pytest.approx(310 * 1e-6)

    watched.seen.spend(0, "s", 50, "last")
    values = watched.values()
    assert values["tokens_total", "input", "other"] == 310 * 1000 + 50
    assert values["cost_usd_total", "other"] == pytest.approx(310 * 1e-6 + 50e-9)
    assert len({key[-1] for key in values if key[0] == "tokens_total"}) == MODELS_MAX + 1


def test_a_page_is_made_once_a_second_however_many_ask(watched: Watched):
    first = watched.page()
    watched.seen.spend(0, "s", 1000)
    watched.counting.full()
    assert watched.page() == first
    watched.seen.clock.now_s += PAGE_S

    async def many() -> set[bytes]:
        return set(await asyncio.gather(*(watched.metrics.page() for _ in range(20))))

    (second,) = asyncio.run(many())
    assert b"pool_exhaustion_events_total 1.0" in second
    assert b'tokens_total{bucket="input",model="m"} 1000.0' in second


def test_what_is_wrong_can_be_alarmed_at(watched: Watched):
    values = watched.values()
    assert (values["writes_stopped",], values["budgets", "exceeded"]) == (0, 0)
    assert values["certificate_expires_timestamp_seconds",] == 1.8e9
    assert values["nodes_known",] - values["nodes_heard",] == 1
    watched.alarms.sound(Alarm(DISK, "the disk is full", "make room", stops_writes=True))
    watched.alarms.sound(Alarm("feed:abc", "a fork", "look"))
    watched.alarms.sound(Alarm("feed:def", "a fork", "look"))
    terms = Terms(1000, "tokens", "day", "kill", 80)
    watched.budgets["team"] = BudgetView(
        *("b", "team", terms, "", 0, "exceeded", "", 1250, 1250, 125, 0, 1, 4, 4)
    )
    values = watched.values()
    assert (values["writes_stopped",], values["alarms", "disk"]) == (1, 1)
    assert values["alarms", "feed"] == 2
    assert values["budgets", "exceeded"] == 1
    assert values["budget_used_ratio", "team"] == 1.25
