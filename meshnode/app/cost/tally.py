"""Adding up: counts by group and by what is priced alike, priced when all is added.

Invariant: money is added exactly and rounded once, in the total. The groups share that total out,
each within one nano-USD of its own, so they add up to it however they are cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from meshnode.app.pieces import chunks
from meshnode.core.errors import UsageError
from meshnode.core.ledger.counts import exactly
from meshnode.core.ledger.ledger import SLOT_S
from meshnode.core.ledger.prices import PUSD_PER_NUSD, cost_pusd, rounded_nusd
from meshnode.core.periods import DAY_S

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping

    from meshnode.core.ledger.prices import Priced, Rates

    GroupKey = tuple[str, ...]

GROUPS_MAX = 10_000  # of one answer, some 3 MB; more: UsageError, before the rest is added up
MOST_MAX = GROUPS_MAX - 1  # that can be told apart where the others are one more
UNITS_MAX = 65_536  # prices remembered; more: all are looked for again


class Prices(Protocol):
    """A price list, or several in order."""

    def rates(self, model: str, provider: str, tier: str, at_s: float) -> Priced | None:
        """Return the rates of a model at a time; None if no list knows it."""

    def is_steady(self, model: str, provider: str, tier: str, day_s: int) -> bool:
        """Tell whether nothing sets a price within a UTC day, if that is known without a look."""

    def source_text(self) -> str:
        """Name the lists and their versions: costs that are kept hold while this is the same.

        Takes up what has changed in the lists, so it is asked before the rates of a query.
        """


class Combination(NamedTuple):
    """What is priced alike at one time."""

    model: str
    provider: str
    tier: str


class Unit(NamedTuple):
    """What has one price: a combination, and from when on, in seconds since 1970."""

    what: Combination
    at_s: float


class Use(NamedTuple):
    """How many tokens were used of a model from a moment on."""

    at_s: float
    model: str
    tokens: int


class UsedLast(msgspec.Struct):
    """The model used last: of several in one slot that with most tokens.

    Within a slot, half an hour, nobody knows which came last; of equal ones it is the last by name.
    """

    last_s: float = -1.0
    tokens: dict[str, int] = msgspec.field(default_factory=dict)  # from then on, by model

    def add(self, use: Use) -> None:
        """Take one more use."""
        if use.at_s > self.last_s:
            self.last_s, self.tokens = use.at_s, {}
        if use.at_s == self.last_s:
            self.tokens[use.model] = self.tokens.get(use.model, 0) + use.tokens

    @property
    def model(self) -> str | None:
        """Which it is; None of no use."""
        tokens = self.tokens
        return max(tokens, key=lambda model: (tokens[model], model), default=None)


def used_last(uses: Iterable[Use]) -> str | None:
    """Return the model used last, as `UsedLast` has it."""
    found = UsedLast()
    for use in uses:
        found.add(use)
    return found.model


class Kind:
    """What is priced alike, at whatever times: one object for all that is equal."""

    __slots__ = ("as_standard", "rates", "what")

    def __init__(
        self, what: Combination, rates: Rates | None, *, as_standard: bool = False
    ) -> None:
        self.what = what
        self.rates = rates  # None: no list has a price
        self.as_standard = as_standard  # whatever its tier: no list has a price of that

    def cost_pusd(self, counts: int) -> int | None:
        """Return what counts (core/ledger/counts.py) cost, in pico-USD; None without a price."""
        if self.rates is None:
            return None
        records, usage = exactly(counts)
        return cost_pusd(usage, self.rates, records)


class Lot(NamedTuple):
    """Where something is counted: in which group, and priced as what."""

    group: GroupKey
    kind: Kind


class Sum(msgspec.Struct, frozen=True):
    """A group, added up. `counts` as in core/ledger/counts.py."""

    counts: int
    pusd: int | None  # of the priced part; None if nothing in it is priced
    unpriced: Mapping[Combination, int]  # counts
    as_standard: Mapping[Combination, int]  # the same, of what has another tier's price
    what: frozenset[Combination]


class Rated:
    """Prices, each looked for once."""

    def __init__(self, prices: Prices) -> None:
        self.prices = prices
        self.source = ""
        self._alike: dict[Unit, bool] = {}
        self._kinds: dict[Unit, Kind] = {}
        self._equal: dict[tuple[Combination, Rates | None, bool], Kind] = {}

    def refresh(self) -> str:
        """Forget all if the lists have changed, or if it is too much; returns their names."""
        source = self.prices.source_text()
        many = len(self._kinds) > UNITS_MAX or len(self._alike) > UNITS_MAX
        if many or source != self.source:
            self._alike, self._kinds, self._equal = {}, {}, {}
            self.source = source
        return source

    def is_alike(self, what: Combination, day_s: int) -> bool:
        """Whether a model has one price all that UTC day, so that its sum can be priced."""
        asked = Unit(what, day_s)
        known = self._alike.get(asked)
        if known is None and self.prices.is_steady(*what, day_s):
            known = self._alike[asked] = True
        elif known is None:
            first = self.prices.rates(*what, day_s)
            later = (
                self.prices.rates(*what, at_s)
                for at_s in range(day_s + SLOT_S, day_s + DAY_S, SLOT_S)
            )
            known = self._alike[asked] = all(one is first or one == first for one in later)
        return known

    def knows(self, unit: Unit) -> bool:
        """Whether no price has to be looked for: of a made-up model that takes milliseconds."""
        return unit in self._kinds

    def kind(self, unit: Unit) -> Kind:
        """Return what a unit is priced as."""
        found = self._kinds.get(unit)
        if found is None:
            priced = self.prices.rates(*unit.what, unit.at_s)
            rates = None if priced is None else priced.rates
            as_standard = priced is not None and priced.as_standard
            new = Kind(unit.what, rates, as_standard=as_standard)
            found = self._equal.setdefault((unit.what, rates, as_standard), new)
            self._kinds[unit] = found
        return found


class Tally:
    """Counts by group, and within a group by what is priced alike.

    A group more than GROUPS_MAX raises UsageError, unless it may hold any number.
    """

    def __init__(self, *, holds_any: bool = False) -> None:
        self._holds_any = holds_any
        self.groups: dict[GroupKey, dict[Kind, int]] = {}

    def add(self, group: GroupKey, kind: Kind, counts: int) -> None:
        """Count something."""
        kinds = self.kinds(group)
        kinds[kind] = kinds.get(kind, 0) + counts

    def kinds(self, group: GroupKey) -> dict[Kind, int]:
        """Return the counts of a group, to be added to."""
        kinds = self.groups.get(group)
        if kinds is None:
            if len(self.groups) == GROUPS_MAX and not self._holds_any:
                hint = (
                    "ask about less (--since, --until, fewer --by), or cost --most 100: the dearest"
                )
                raise UsageError(f"an answer holds {GROUPS_MAX} groups, and these are more", hint)
            kinds = self.groups[group] = {}
        return kinds


def added_up(kinds: Mapping[Kind, int]) -> Generator[None, None, Sum]:
    """Add up and price what is in one group; a chance to pause at each yield."""
    pusd: int | None = None
    unpriced: dict[Combination, int] = {}
    as_standard: dict[Combination, int] = {}
    for some in chunks(kinds.items()):
        for kind, counts in some:
            cost = kind.cost_pusd(counts)
            if cost is None:
                unpriced[kind.what] = counts
            else:
                pusd = (pusd or 0) + cost
            if kind.as_standard:
                as_standard[kind.what] = as_standard.get(kind.what, 0) + counts
        yield
    what = frozenset(kind.what for kind in kinds)
    return Sum(sum(kinds.values()), pusd, unpriced, as_standard, what)


def shared_out(pusd: Mapping[GroupKey, int | None]) -> dict[GroupKey, int | None]:
    """Round each amount to nano-USD so that they add up to their rounded sum.

    By largest remainder (Hamilton, 1792); of equal remainders the first in order is rounded up.
    """
    known = {group: amount for group, amount in pusd.items() if amount is not None}
    floors = {group: divmod(amount, PUSD_PER_NUSD) for group, amount in known.items()}
    left = rounded_nusd(sum(known.values())) - sum(floor for floor, _ in floors.values())
    by_rest = sorted(floors, key=lambda group: (-floors[group][1], group))
    raised = set(by_rest[:left])
    return {
        group: floors[group][0] + (group in raised) if group in floors else None for group in pusd
    }
