"""Policies and budgets: named settings of the whole mesh, of which the newest counts.

Invariant: both are small, and deleting one is an entry like any other, with nothing in it: an older
one that comes late does not come back.
"""

from __future__ import annotations

from typing import Any

import msgspec

from meshnode.core.errors import PeerError
from meshnode.core.packing import typed

NAME_CHARS_MAX = 64
TEXT_CHARS_MAX = 256
SETTINGS_MAX = 32
AMOUNT_MAX = 1 << 62
PERIODS = frozenset({"hour", "day", "month"})
UNITS = frozenset({"nusd", "tokens"})
CONSEQUENCES = frozenset({"suspend", "kill"})

Setting = str | int | bool


class Policy(msgspec.Struct, frozen=True):
    """Settings under a name; None deletes it."""

    name: str
    settings: dict[str, Setting] | None

    def to_map(self) -> dict[str, Any]:
        """Return what an entry says beside its envelope."""
        return {"name": self.name, "settings": self.settings}


class Terms(msgspec.Struct, frozen=True):
    """How much may be spent in a period, by whom, and what follows. Empty is anybody's."""

    limit: int
    unit: str  # nusd, which are 1e-9 US dollars, or tokens
    per: str  # hour, day or month, in UTC
    then: str  # suspend or kill
    warn_percent: int = 80
    owner: str = ""
    agent: str = ""
    specialization: str = ""
    project: str = ""


class Budget(msgspec.Struct, frozen=True):
    """Terms under a name; None deletes it."""

    name: str
    terms: Terms | None

    def to_map(self) -> dict[str, Any]:
        """Return what an entry says beside its envelope."""
        terms = self.terms
        if terms is None:
            return {"name": self.name, "terms": None}
        return {
            "name": self.name,
            "terms": {
                "limit": terms.limit,
                "unit": terms.unit,
                "per": terms.per,
                "then": terms.then,
                "warn": terms.warn_percent,
                "owner": terms.owner,
                "agent": terms.agent,
                "spec": terms.specialization,
                "project": terms.project,
            },
        }


def policy_from_map(value: dict[str, Any]) -> Policy:
    """Decode a policy; raises PeerError, KeyError, TypeError or ValueError."""
    name, settings = _name(value["name"]), value["settings"]
    if settings is None:
        return Policy(name, None)
    if len(typed(settings, dict)) > SETTINGS_MAX:
        raise PeerError(f"a policy of more than {SETTINGS_MAX} settings")
    return Policy(name, {_name(key): _setting(one) for key, one in settings.items()})


def budget_from_map(value: dict[str, Any]) -> Budget:
    """Decode a budget; raises PeerError, KeyError, TypeError or ValueError."""
    name, said = _name(value["name"]), value["terms"]
    if said is None:
        return Budget(name, None)
    said = typed(said, dict)
    terms = Terms(
        limit=typed(said["limit"], int),
        unit=_one_of(said["unit"], UNITS),
        per=_one_of(said["per"], PERIODS),
        then=_one_of(said["then"], CONSEQUENCES),
        warn_percent=typed(said["warn"], int),
        owner=text(said["owner"]),
        agent=text(said["agent"]),
        specialization=text(said["spec"]),
        project=text(said["project"]),
    )
    if not (0 < terms.limit < AMOUNT_MAX and 1 <= terms.warn_percent <= 100):  # noqa: PLR2004 - percent
        raise PeerError("a budget whose limit or warning is out of range")
    return Budget(name, terms)


def text(value: object, chars_max: int = TEXT_CHARS_MAX) -> str:
    """Return a text of bounded length; raises TypeError or ValueError."""
    found: str = typed(value, str)
    if len(found) > chars_max:
        raise ValueError(f"a text of more than {chars_max} characters")
    return found


def _name(value: object) -> str:
    name = text(value, NAME_CHARS_MAX)
    if not name:
        raise ValueError("an empty name")
    return name


def _setting(value: object) -> Setting:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value
    return text(value)


def _one_of(value: object, words: frozenset[str]) -> str:
    word = text(value)
    if word not in words:
        raise ValueError(f"{word[:40]!r} is none of {', '.join(sorted(words))}")
    return word
