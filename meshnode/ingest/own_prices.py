"""Prices that a user has written down, and names that the user calls models by.

Invariant: the first rule that matches holds, whole; a rule with a fault is not here, only the
sentence about it.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import msgspec

from meshnode.core.ledger.tiers import PLACED, STANDARD, tier_parts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshnode.core.ledger.prices import Rates

FOREVER_S = float("inf")


class Rule(msgspec.Struct, frozen=True):
    """What models whose names match cost, from a time until before another; globs in lower case."""

    where: str  # file:line
    model: str
    provider: str
    since_s: float
    until_s: float
    rates: Mapping[str, tuple[tuple[int, Rates], ...]]
    """By service tier, standard always included: (prompt longer than, rates), from 0 upwards."""

    def matches(self, model: str, provider: str) -> bool:
        """Whether the rule is about a model of a provider, whatever the date."""
        return _matches(model, self.model) and _matches(provider, self.provider)

    def active(self, at_s: float) -> bool:
        """Whether the rule holds at a time."""
        return self.since_s <= at_s < self.until_s

    @property
    def tiers(self) -> list[str]:
        """Name the tiers that have rates of their own, standard first."""
        return [
            f"{service}>{over}" if over else service
            for service, steps in self.rates.items()
            for over, _ in steps
        ]

    def knows(self, tier: str) -> bool:
        """Whether the rule has rates of its own for a service tier; standard always has."""
        return tier_parts(tier)[0] in self.rates

    def rates_of(self, tier: str) -> Rates:
        """Return the rates of a tier; if the rule has none of its own, anywhere's, or standard."""
        service, prompt_over = tier_parts(tier)
        anywhere = self.rates.get(service.partition(PLACED)[0], self.rates[STANDARD])
        steps = self.rates.get(service, anywhere)
        return [rates for over, rates in steps if over <= prompt_over][-1]


class Alias(msgspec.Struct, frozen=True):
    """Another name of a model; `provider` is "" unless the alias says it."""

    where: str
    called: str
    model: str
    provider: str


class OwnPrices(msgspec.Struct, frozen=True):
    """What one file says; `version` changes with its contents."""

    name: str = ""  # of the file; "" if there is none
    version: str = ""
    rules: tuple[Rule, ...] = ()
    aliases: tuple[Alias, ...] = ()
    faults: tuple[str, ...] = ()  # sentences: what was left out, and why

    @property
    def source(self) -> str:
        """The file and the version of its contents."""
        return f"{self.name}@{self.version}"

    def meant(self, model: str, provider: str) -> Alias | None:
        """Return the first alias of a name, which is not looked up as an alias again."""
        for alias in self.aliases:
            if _matches(model, alias.called):
                return Alias(alias.where, alias.called, alias.model, alias.provider or provider)
        return None


def _matches(name: str, glob: str) -> bool:
    """Whether a name is meant; as it is, it is: some have brackets, as in `opus[1m]`."""
    return name == glob or fnmatchcase(name, glob)
