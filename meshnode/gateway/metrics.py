"""Metrics of this node for Prometheus: its counters, and what it sees now.

Invariant: each metric has a HELP and a unit, in base units; what is summed over nodes is counted by
the owner alone, so that adding up all nodes counts nothing twice. The seeds' own names are served
beside ours; as their counters do not end in `_total`, those have no type.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    UnknownMetricFamily,
)
from prometheus_client.registry import Collector

from meshnode.app.cost.cutting import CostQuery
from meshnode.app.cost.tally import GROUPS_MAX
from meshnode.app.counting import Charges
from meshnode.app.pieces import in_pieces
from meshnode.core.ledger.budgets import Standing
from meshnode.core.links.liveness import MemberState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client import Metric

    from meshnode.app.audit.alarms import Alarms
    from meshnode.app.cost.cost import CostAnswer, CostGroup
    from meshnode.app.counting import Counting, Histogram
    from meshnode.app.queries.queries import Queries
    from meshnode.app.queries.views import BudgetView
    from meshnode.app.sessions.sessions import OwnSessions

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "session_mesh_"
NUSD = 1e9  # a dollar in nano-dollars
PAGE_S = 1.0  # whoever asks sooner gets the same page: it takes 1 to 15 ms, of anybody
TOKENS = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output")  # add up to all


class Measured(msgspec.Struct, frozen=True):
    """The parts of a node that are measured."""

    counting: Counting
    queries: Queries
    sessions: OwnSessions
    alarms: Alarms
    budgets: Mapping[str, BudgetView]
    certificate_ends_s: Callable[[], float]
    steady_s: Callable[[], float]


class Metrics(Collector):
    """Makes the page that Prometheus reads."""

    def __init__(self, measured: Measured) -> None:
        self._counting = measured.counting
        self._queries = measured.queries
        self._sessions = measured.sessions
        self._measured = measured
        self._charges = Charges()
        here = measured.queries.mesh.self_id
        self._spent_here = CostQuery(by=("model",), node_id=here, most=GROUPS_MAX - 1)
        self._made, self._made_at_s = b"", -PAGE_S
        self._making = asyncio.Lock()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    async def page(self) -> bytes:
        """Return the metrics as text, at most PAGE_S old."""
        async with self._making:
            if self._measured.steady_s() - self._made_at_s >= PAGE_S or not self._made:
                spent = await in_pieces(self._queries.cost_steps(self._spent_here))
                self._charges.take(*_by_model(spent))
                self._made = generate_latest(self._registry)
                self._made_at_s = self._measured.steady_s()
            return self._made

    def describe(self) -> list[Metric]:
        """Return nothing: which labels there are depends on what has happened."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield each metric as it is now."""
        yield from self._of_sessions()
        yield from self._of_commands()
        yield from self._of_the_mesh()
        yield from self._of_the_ledger()
        yield from self._of_budgets()
        yield from self._of_troubles()
        yield from self._of_the_seeds()

    def _of_sessions(self) -> Iterator[Metric]:
        counting = self._counting
        yield _gauge(
            "sessions_active", "Sessions of this node that have not ended.", self._active()
        )
        yield _counter(
            "sessions_created", "Sessions opened at this node.", counting.sessions_created
        )
        yield _histogram(
            PREFIX + "session_duration_seconds",
            "How long sessions of this node lasted, in seconds.",
            counting.session_seconds,
        )
        yield _histogram(
            PREFIX + "messages_per_session",
            "How many messages sessions had got when they ended.",
            counting.messages_per_session,
        )
        yield _counter(
            "session_reconnects",
            "Agents found again, having lived on without their node.",
            counting.session_reconnects,
        )
        yield _labelled(
            "session_errors",
            "Sessions that failed, by how: exit code or signal.",
            ("error_type",),
            {(kind,): count for kind, count in counting.session_errors.items()},
        )
        yield _counter(
            "session_timeouts", "Sessions ended by a time-out.", counting.session_timeouts
        )
        yield _counter(
            "pool_exhaustion_events",
            "Sessions refused because this node has as many as it takes.",
            counting.pool_exhaustion,
        )

    def _of_commands(self) -> Iterator[Metric]:
        counting = self._counting
        yield _counter(
            "rate_limited", "Requests over HTTP that were told to wait.", counting.rate_limited
        )
        yield _labelled(
            "commands",
            "Commands judged by this node, by action and outcome.",
            ("action", "outcome"),
            dict(counting.commands.items()),
        )
        yield _histogram(
            PREFIX + "command_seconds",
            "From the journal to the receipt, in seconds.",
            counting.command_seconds,
        )

    def _of_the_mesh(self) -> Iterator[Metric]:
        counting, mesh = self._counting, self._queries.mesh
        states = Counter(str(self._queries.state_of(peer)) for peer in mesh.liveness.members())
        members = GaugeMetricFamily(
            PREFIX + "members", "Members of the mesh as this node sees them.", labels=("state",)
        )
        for state in MemberState:
            members.add_metric((str(state),), states[str(state)])
        yield members
        coverage = self._queries.coverage()
        yield _gauge("nodes_known", "Members that answers should speak for.", coverage.nodes_known)
        yield _gauge(
            "nodes_heard", "Those that answers do speak for: the coverage.", coverage.nodes_heard
        )
        yield _gauge("links", "Links of this node that work.", len(mesh.overlay.links))
        yield _labelled(
            "feed_flushes",
            "Flushes that this node wrote (out) or took (in).",
            ("direction",),
            {(way,): count for way, count in counting.flushes.items()},
        )
        yield _labelled(
            "feed_bytes",
            "Bytes of those flushes.",
            ("direction",),
            {(way,): count for way, count in counting.flush_bytes.items()},
        )
        yield _histogram(
            PREFIX + "dissemination_seconds",
            "From the signature of a flush to its place here, by the clocks of both, in seconds.",
            counting.dissemination_seconds,
        )
        yield _labelled(
            "accusations",
            "Members that could not be reached and were dead (confirmed) or came back (refuted).",
            ("outcome",),
            {(outcome,): count for outcome, count in counting.accusations.items()},
        )
        yield _gauge("loop_lag_seconds", "By how much this node is late, in seconds.", mesh.lag_s)

    def _of_the_ledger(self) -> Iterator[Metric]:
        charged = self._charges.by_model
        tokens: dict[tuple[str, ...], float] = {
            (bucket, model): getattr(one.usage, bucket)
            for model, one in charged.items()
            for bucket in TOKENS
        }
        costs: dict[tuple[str, ...], float] = {
            (model,): one.nusd / NUSD for model, one in charged.items() if one.nusd is not None
        }
        yield _labelled(
            "tokens",
            "Tokens in this node's ledger, by buckets that add up to all.",
            ("bucket", "model"),
            tokens,
        )
        yield _labelled(
            "reasoning_tokens",
            "Those tokens of the bucket output that were reasoning.",
            ("model",),
            {(model,): one.usage.reasoning for model, one in charged.items()},
        )
        yield _labelled(
            "web_searches",
            "Searches of the web in this node's ledger.",
            ("model",),
            {(model,): one.usage.web_search for model, one in charged.items()},
        )
        yield _labelled(
            "cost_usd", "What all those cost where there is a price, in dollars.", ("model",), costs
        )

    def _of_budgets(self) -> Iterator[Metric]:
        shown = list(self._measured.budgets.values())
        states = Counter(view.state for view in shown)
        budgets = GaugeMetricFamily(
            PREFIX + "budgets", "Budgets in force, as this node judges them.", labels=("state",)
        )
        used = GaugeMetricFamily(
            PREFIX + "budget_used_ratio",
            "How much of a budget is spent in its window; 1 is all of it.",
            labels=("budget",),
        )
        for state in (Standing.OK, Standing.WARNED, Standing.EXCEEDED):
            budgets.add_metric((str(state),), states[state])
        for view in shown:
            used.add_metric((view.name,), view.percent / 100)
        yield budgets
        yield used

    def _of_troubles(self) -> Iterator[Metric]:
        measured = self._measured
        kinds = Counter(one.id.partition(":")[0] for one in measured.alarms.standing())
        alarms = GaugeMetricFamily(
            PREFIX + "alarms",
            "Alarms that stand, as session-mesh doctor explains them.",
            labels=("kind",),
        )
        for kind, count in sorted(kinds.items()):
            alarms.add_metric((kind,), count)
        yield alarms
        yield _gauge(
            "writes_stopped",
            "Whether this node takes on nothing new: 1 if an alarm stops its writes.",
            measured.alarms.stop() is not None,
        )
        yield _gauge(
            "certificate_expires_timestamp_seconds",
            "When this node's membership ends unless it is renewed, since 1970.",
            measured.certificate_ends_s(),
        )

    def _of_the_seeds(self) -> Iterator[Metric]:
        """The names that the first users had: two projects', and nothing else."""
        counting, active = self._counting, self._active()
        yield GaugeMetricFamily("active_sessions", "As session_mesh_sessions_active.", active)
        for name, ours, count in (
            ("total_sessions_created", "sessions_created_total", counting.sessions_created),
            ("pool_exhaustion_events", "pool_exhaustion_events_total", counting.pool_exhaustion),
        ):
            yield UnknownMetricFamily(name, f"As {PREFIX}{ours}.", count)
        for name, histogram in (
            ("session_duration_seconds", counting.session_seconds),
            ("messages_per_session", counting.messages_per_session),
        ):
            yield _histogram(name, f"As {PREFIX}{name}.", histogram)
        gateway = "agentgateway_"
        yield GaugeMetricFamily(
            gateway + "sessions_active", "As session_mesh_sessions_active.", active
        )
        for name, count in (
            ("sessions_created", counting.sessions_created),
            ("session_reconnects", counting.session_reconnects),
            ("session_timeouts", counting.session_timeouts),
        ):
            yield CounterMetricFamily(gateway + name, f"As {PREFIX}{name}_total.", count)
        errors = CounterMetricFamily(
            gateway + "session_errors", f"As {PREFIX}session_errors_total.", labels=("error_type",)
        )
        for kind, count in counting.session_errors.items():
            errors.add_metric((kind,), count)
        yield errors
        yield _histogram(
            gateway + "session_duration_seconds",
            f"As {PREFIX}session_duration_seconds.",
            counting.session_seconds,
        )

    def _active(self) -> int:
        return len(self._sessions.live())


def _by_model(spent: CostAnswer) -> tuple[dict[str, CostGroup], CostGroup | None]:
    """Return the groups by model, and the one of all beyond GROUPS_MAX, which is no model's."""
    rest = spent.groups[-1] if spent.groups_more else None
    own = spent.groups[:-1] if rest else spent.groups
    return {one.key["model"]: one for one in own}, rest


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, what, value)


def _counter(name: str, what: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, what, value)


def _labelled(
    name: str, what: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]
) -> Metric:
    family = CounterMetricFamily(PREFIX + name, what, labels=labels)
    for place, value in sorted(values.items()):
        family.add_metric(place, value)
    return family


def _histogram(name: str, what: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(name, what, histogram.cumulative(), histogram.total)
