"""The price list of genai-prices, as a list of ours.

Invariant: nothing but this module imports genai-prices, and nothing does before it is asked: 16 MiB
and a third of a second that a node which never meets a provider beyond the shipped table saves.
"""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshnode.ingest.price_clauses import Clause
from meshnode.ingest.price_list import KEYS, Amount, Dated, Model, PriceList, Provider

if TYPE_CHECKING:
    from collections.abc import Iterable

    from genai_prices import types


@cache
def installed_version() -> str:
    """Return the version of genai-prices, without importing it.

    The name of a directory beside it tells; what reads its metadata takes 20 ms to import.
    """
    for directory in map(Path, sys.path):
        for found in directory.glob("genai_prices-*.dist-info"):
            return found.stem.removeprefix("genai_prices-")
    from importlib.metadata import version  # noqa: PLC0415 - where it was installed otherwise

    return version("genai-prices")


@cache
def genai_list() -> PriceList:
    """Import genai-prices and return all that it lists."""
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415 - 16 MiB, see above

    providers = tuple(_provider(one) for one in get_snapshot().providers)
    return PriceList(installed_version(), f"genai-prices {installed_version()}", providers)


def _provider(one: types.Provider) -> Provider:
    return Provider(
        id=one.id,
        called=_clause(one.provider_match) if one.provider_match else None,
        sells=_clause(one.model_match) if one.model_match else None,
        fallback=tuple(one.fallback_model_providers or ()),
        models=tuple(_model(model) for model in one.models),
    )


def _model(one: types.ModelInfo) -> Model:
    rows: Iterable[Any] = one.prices if isinstance(one.prices, list) else [one]
    return Model(
        id=one.id,
        match=_clause(one.match),
        prices=tuple(_dated(row) for row in rows),
        variants=tuple(_dated(row) for row in one.price_variants or ()),
    )


def _dated(row: Any) -> Dated:  # noqa: ANN401 - ConditionalPrice, PriceVariant or ModelInfo
    constraint = getattr(row, "constraint", None)
    start, end = getattr(constraint, "start_time", None), getattr(constraint, "end_time", None)
    return Dated(
        prices={
            key: _amount(price) for key in KEYS if (price := getattr(row.prices, key)) is not None
        },
        since=getattr(constraint, "start_date", None),
        clock=(_minutes(start), _minutes(end)) if start and end else None,
        when=getattr(row, "when", {}),
    )


def _amount(price: Decimal | types.TieredPrices) -> Amount:
    if isinstance(price, Decimal):
        return f"{price:f}"
    return ((0, f"{price.base:f}"), *((tier.start, f"{tier.price:f}") for tier in price.tiers))


def _minutes(moment: time) -> int:
    if moment.tzinfo is not None:
        moment = datetime.combine(date(1970, 1, 1), moment).astimezone(UTC).time()
    return moment.hour * 60 + moment.minute


def _clause(one: Any) -> Clause:  # noqa: ANN401 - one of seven kinds of clause, told by its field
    parts: dict[str, list[Any]] = {}
    for clause in _alternatives(one):
        [(kind, value)] = vars(clause).items()
        if kind == "and_":
            parts.setdefault("all", []).append(tuple(map(_clause, value)))
        else:
            parts.setdefault(kind, []).append(value if kind == "regex" else value.lower())
    return Clause(**{kind: tuple(dict.fromkeys(found)) for kind, found in parts.items()})


def _alternatives(one: Any) -> list[Any]:  # noqa: ANN401 - as above
    if not hasattr(one, "or_"):
        return [one]
    return [leaf for clause in one.or_ for leaf in _alternatives(clause)]
