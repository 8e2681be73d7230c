"""Work that is seen through although whoever asked for it goes away; who still waits is told.

Invariant: an outcome is always settled, so nobody waits for it for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from meshnode.core.errors import MeshError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable

Result = TypeVar("Result")


async def settle(work: Awaitable[Result], outcome: asyncio.Future[Result]) -> None:
    """Do some work in a task of its own, and tell what came of it.

    `outcome` is awaited through a shield. Raises what is no MeshError, for a task to tell of.
    """
    try:
        outcome.set_result(await work)
    except Exception as error:
        outcome.set_exception(error)
        outcome.exception()  # read here: perhaps nobody waits for it any more
        if not isinstance(error, MeshError):
            raise
    finally:
        outcome.cancel()  # the task was ended before it could: there is no answer
