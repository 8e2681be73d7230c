"""How far a feed is known. Who only compares that needs no signatures, nor their library."""

from __future__ import annotations

import msgspec


class Head(msgspec.Struct, frozen=True, order=True):
    """How far a feed is known."""

    epoch: int
    seq: int


NOTHING = Head(0, 0)
