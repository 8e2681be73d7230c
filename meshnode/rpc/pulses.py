"""A stream that says now and then that its node lives, while it has nothing else to say.

Invariant: what is streamed is neither delayed nor lost by it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PULSE_S = 3.0

Item = TypeVar("Item")


async def pulsed(items: AsyncIterator[Item]) -> AsyncIterator[Item | None]:
    """Yield the items; None at once, and whenever none has come for PULSE_S."""
    yield None
    coming: asyncio.Task[Item | None] | None = None
    try:
        while True:
            coming = coming or asyncio.create_task(_next_of(items))  # noqa: TID251 - awaited below
            done, _ = await asyncio.wait({coming}, timeout=PULSE_S)
            if not done:
                yield None
                continue
            item, coming = coming.result(), None
            if item is None:
                return
            yield item
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)


async def _next_of(items: AsyncIterator[Item]) -> Item | None:
    try:
        return await anext(items)
    except StopAsyncIteration:
        return None
