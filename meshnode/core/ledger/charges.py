"""What one response cost: kept with its record, for prices change."""

from __future__ import annotations

import msgspec


class Charge(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What a response cost by the prices of the time it was recorded; None where it had none."""

    cost_nusd: int | None = None
    price_source: str = ""  # name@version, as `prices explain` tells it
