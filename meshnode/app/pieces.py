"""Long work beside other work: steps with a chance to pause after each, and pauses when it is time.

Invariant: whoever yields does so after a bounded number of looks, each of microseconds, so that no
data of anybody makes a piece much longer than PIECE_S, on whatever machine.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

PIECE_S = 0.005  # of work between two pauses
LOOKS = 16  # at rows, cells or prices between two chances to pause
Result = TypeVar("Result")
Item = TypeVar("Item")


def finished(steps: Generator[None, None, Result]) -> Result:
    """Take all steps at once."""
    while True:
        try:
            next(steps)
        except StopIteration as answered:
            result: Result = answered.value
            return result


async def in_pieces(steps: Generator[None, None, Result]) -> Result:
    """Take all steps, inside a node that goes on with its work meanwhile."""
    import asyncio  # noqa: PLC0415 - `usage` sums without a loop, and saves 40 ms

    timed = pauses(steps, asyncio.get_running_loop().time)
    while True:
        try:
            next(timed)
        except StopIteration as answered:
            result: Result = answered.value
            return result
        await asyncio.sleep(0)


def pauses(
    steps: Generator[None, None, Result], steady_s: Callable[[], float]
) -> Generator[None, None, Result]:
    """Take steps, and pause where that took PIECE_S since the last pause; `steady_s`: a clock."""
    began_s = steady_s()
    while True:
        try:
            next(steps)
        except StopIteration as answered:
            result: Result = answered.value
            return result
        if steady_s() - began_s >= PIECE_S:
            yield
            began_s = steady_s()


def chunks(items: Iterable[Item], size: int = LOOKS) -> Iterator[list[Item]]:
    """Cut into lists of `size`, the last one shorter."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
