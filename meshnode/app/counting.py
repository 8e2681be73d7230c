"""What a node counts while somebody wants metrics of it: plain numbers, since its start.

Invariant: every label has a bounded set of values, whatever peers and callers send, so that nobody
can fill a time series database from outside. Nothing here looks at a clock of its own.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from meshnode.core.commands.commands import NODE_ACTIONS, SESSION_ACTIONS
from meshnode.core.ledger.ledger import Buckets
from meshnode.core.links.liveness import MemberState
from meshnode.core.sessions.sessions import State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from meshnode.app.cost.cost import CostGroup
    from meshnode.core.feeds.feed import Change
    from meshnode.core.ids import NodeId
    from meshnode.core.sessions.sessions import SessionRecord

MODELS_MAX = 200  # named in metrics; what others use is counted as `other`
OTHERS = "other"
OUTCOMES_MAX = 32  # kinds of outcomes; others are counted as `other`
LASTED_S = (1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0)
MESSAGES = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 500.0)
COMMAND_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SPREAD_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)
SPREAD_S_MAX = 3600.0  # longer, also what was missed while down: counted as that
_AWAY = frozenset({MemberState.UNREACHABLE, MemberState.STALLED})


class Histogram(msgspec.Struct):
    """How often a value was at most each bound."""

    bounds: tuple[float, ...]
    counts: list[int] = msgspec.field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, int]]:
        """Return each bound with how many values were at most that, `+Inf` last."""
        sums, so_far = [], 0
        for bound, count in zip((*self.bounds, None), self.counts, strict=True):
            so_far += count
            sums.append(("+Inf" if bound is None else f"{bound:g}", so_far))
        return sums


class Counting:
    """The counters of one node, told of what happens by its parts."""

    def __init__(self, self_id: NodeId, wall_s: Callable[[], float]) -> None:
        self._self_id = self_id
        self._wall_s = wall_s
        self._heard: set[NodeId] = set()  # members that were alive since the start
        self.sessions_created = 0
        self.session_seconds = Histogram(LASTED_S)
        self.messages_per_session = Histogram(MESSAGES)
        self.session_reconnects = 0
        self.session_errors: Counter[str] = Counter({"failed": 0, "signal": 0})
        self.session_timeouts = 0
        self.pool_exhaustion = 0
        self.rate_limited = 0
        # There from the start: the first of a new series would be no increase to an alert.
        self.commands: Counter[tuple[str, str]] = Counter(
            {(action, "indeterminate"): 0 for action in SESSION_ACTIONS | NODE_ACTIONS}
        )
        self.command_seconds = Histogram(COMMAND_S)
        self.flushes: Counter[str] = Counter({"in": 0, "out": 0})
        self.flush_bytes: Counter[str] = Counter({"in": 0, "out": 0})
        self.dissemination_seconds = Histogram(SPREAD_S)
        self.accusations: Counter[str] = Counter({"confirmed": 0, "refuted": 0})

    def session(self, before: SessionRecord | None, after: SessionRecord) -> None:
        """Count what a session went through, from its row before and after."""
        if before is None:
            self.sessions_created += 1
        if not after.ended or (before is not None and before.ended):
            return
        self.session_seconds.add(max(0.0, (after.ended_at_s or 0.0) - after.created_at_s))
        self.messages_per_session.add(after.message_count)
        if after.state is State.EXPIRED:
            self.session_timeouts += 1
        if after.state is State.FAILED:
            self.session_errors["signal" if after.signal else "failed"] += 1

    def command(self, action: str, outcome: str, lasted_s: float | None) -> None:
        """Count what became of a command."""
        known = action if action in SESSION_ACTIONS | NODE_ACTIONS else "other"
        place = (known, outcome)
        if place not in self.commands and len(self.commands) >= OUTCOMES_MAX * 4:
            place = ("other", "other")
        self.commands[place] += 1
        if lasted_s is not None:
            self.command_seconds.add(max(0.0, lasted_s))

    def change(self, change: Change) -> None:
        """Count a flush, or a snapshot, that was written here or came in."""
        direction = "out" if change.origin == self._self_id else "in"
        self.flushes[direction] += 1
        if change.flush is not None:
            self.flush_bytes[direction] += len(change.flush.delta)
            if direction == "in":
                # A member signs whatever time it likes, and one such value would hide all others.
                took_s = self._wall_s() - change.header.at_s
                self.dissemination_seconds.add(min(max(0.0, took_s), SPREAD_S_MAX))

    def member(self, peer: NodeId, before: MemberState | None, after: MemberState) -> None:
        """Count what became of a suspicion: the member is dead, or it is back.

        Who was not heard since our start is under none: it may have been dead for long, or we late.
        """
        if peer in self._heard and before in _AWAY and after is MemberState.DEAD:
            self.accusations["confirmed"] += 1
        elif peer in self._heard and before in _AWAY and after is MemberState.ALIVE:
            self.accusations["refuted"] += 1
        if MemberState.ALIVE in {before, after}:
            self._heard.add(peer)

    def limited(self, *_: Any) -> None:  # noqa: ANN401 - whoever was turned away
        """Count a caller that was told to come back later."""
        self.rate_limited += 1

    def full(self) -> None:
        """Count a session that was refused because there are too many."""
        self.pool_exhaustion += 1

    def found(self) -> None:
        """Count an agent that was found again, having lived on without its node."""
        self.session_reconnects += 1


class Charged(msgspec.Struct):
    """What one model, or all those without a place of their own, was charged with."""

    usage: Buckets = msgspec.field(default_factory=Buckets)
    nusd: int | None = None


class Charges:
    """What the ledger adds up to, by model.

    Invariant: at most MODELS_MAX models are named, those first that used most, and a model that has
    its name keeps it; the rest is OTHERS. No figure falls while a node runs, though a ledger may be
    corrected and a price lowered: Prometheus would take that for a restart, and all for new. It may
    begin lower at the next start: `docs/metrics.md` says how to ask for what was spent.
    """

    def __init__(self) -> None:
        self.by_model: dict[str, Charged] = {}
        self._named: set[str] = set()

    def take(self, spent: Mapping[str, CostGroup], rest: CostGroup | None = None) -> None:
        """Take what the ledger holds now, by model, and that of models which are not told apart."""
        new = sorted(spent.keys() - self._named, key=lambda one: (-spent[one].usage.total, one))
        self._named.update(new[: MODELS_MAX - len(self._named)])
        sums: dict[str, Charged] = {}
        for model, one in spent.items():
            held = sums.setdefault(model if model in self._named else OTHERS, Charged())
            held.usage += one.usage
            held.nusd = _most(held.nusd, one.cost_nusd, int.__add__)
        if rest is not None:
            self._add_rest(sums, rest)
        for model, held in sums.items():
            shown = self.by_model.setdefault(model, Charged())
            pairs = zip(shown.usage.counts, held.usage.counts, strict=True)
            shown.usage = Buckets(*map(max, pairs))
            shown.nusd = _most(shown.nusd, held.nusd, max)

    def _add_rest(self, sums: dict[str, Charged], rest: CostGroup) -> None:
        # Named models among them stand where they stood: what they showed is not shown again.
        hidden = [self.by_model[model] for model in self._named - sums.keys()]
        shown = sum((one.usage for one in hidden), Buckets())
        nusd = rest.cost_nusd
        if nusd is not None:
            nusd = max(0, nusd - sum(one.nusd or 0 for one in hidden))
        held = sums.setdefault(OTHERS, Charged())
        held.usage += rest.usage - shown
        held.nusd = _most(held.nusd, nusd, int.__add__)


def _most(one: int | None, other: int | None, joined: Callable[[int, int], int]) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return joined(one, other)
