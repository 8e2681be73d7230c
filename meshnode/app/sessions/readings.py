"""Output, rounds and audit logs that are read over links, one piece asked for at a time.

Invariant: a command is judged when its reading begins, and what it stands on is asked anew for each
piece: who was revoked gets nothing more, and who reads slowly gets all. At most READINGS_MAX
readings are open, of one reader READINGS_OF_MAX, and one that nobody goes on with is closed after
IDLE_S. One that is over leaves its place to the next that wants it, and one that fails is gone at
once.

A piece that was lost on its way may be asked for again; earlier ones are gone, as the reader has
them. So an open reading holds one piece in memory, and the file that it reads.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshnode.core.errors import ExhaustedError, StaleError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from meshnode.app.ports import Clock
    from meshnode.core.commands.commands import Command
    from meshnode.core.keys import Signed

READINGS_MAX = 32  # open at a time; more: ExhaustedError
READINGS_OF_MAX = 4  # of one reader
IDLE_S = 30.0
LATER_S = 0.1  # until a reading in which nothing was new, an empty piece, is asked again
AWAITED_S = 5.0  # for something new; then the piece is empty, and the next one may be asked for
LAST_S = 5.0  # a reading whose last piece was given out; it may have to be given out again


@dataclass(eq=False)
class _Reading:
    """An output that is being read: the piece of `number` was the last one given out."""

    command: Command
    lines: Iterator[bytes]
    used_at_s: float
    number: int = -1
    piece: bytes = b""
    ahead: bytes | None = None  # the next one: whether there is any decides what is the last
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def next(self) -> None:
        """Read on, off the event loop; for a while, if nothing is new."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + AWAITED_S
        while self.ahead == b"" and loop.time() < until_s:
            await asyncio.sleep(LATER_S)
            await _to_its_end(self._look)
        await _to_its_end(self._go_on)

    def _look(self) -> None:
        self.ahead = next(self.lines, None)

    def _go_on(self) -> None:
        first = next(self.lines, None) if self.number < 0 else self.ahead
        self.ahead = None if first is None else next(self.lines, None)
        self.piece = first or b""
        self.number += 1

    @property
    def over(self) -> bool:
        """Whether its last piece was given out, and nobody is about to get another."""
        return self.number >= 0 and self.ahead is None and not self.turn.locked()

    def close(self) -> None:
        """Let go of the file."""
        close: Callable[[], None] | None = getattr(self.lines, "close", None)
        if close is not None:
            close()


async def _to_its_end(step: Callable[[], None]) -> None:
    """Read off the loop; who is cancelled ends once nothing reads any more, and then as it says.

    A thread cannot be stopped, and two must not read on at once.
    """
    reading = asyncio.get_running_loop().run_in_executor(None, step)
    cancelled = False
    while not reading.done():
        try:
            await asyncio.wait([reading])
        except asyncio.CancelledError:
            cancelled = True
    reading.result()
    if cancelled:
        raise asyncio.CancelledError


class Readings:
    """The readings that are open at this node.

    `judge` allows one to begin and `recheck` to go on; both raise a MeshError if they refuse.
    """

    def __init__(
        self,
        judge: Callable[[Signed, str], Command],
        recheck: Callable[[Command, str], None],
        read: Callable[[Command], Iterator[bytes]],
        clock: Clock,
    ) -> None:
        self._judge = judge
        self._recheck = recheck
        self._read = read
        self._clock = clock
        self._open: dict[tuple[str, bytes], _Reading] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def piece(self, signed: Signed, via: str, number: int) -> tuple[bytes, bool]:
        """Return one piece of a session's output, and whether it is the last.

        Raises what the judge says, ExhaustedError, or StaleError for a piece that is not here.
        """
        self._close_idle()
        name = (via, signed.hash)
        reading = self._open.get(name)
        if reading is not None:
            self._recheck(reading.command, via)
        else:
            command = self._judge(signed, via)
            if number != 0:
                raise StaleError("this reading has ended here", "read it again from its beginning")
            reading = self._opened(name, command)
        async with reading.turn:
            if self._open.get(name) is not reading:  # it has failed while we waited for our turn
                raise StaleError("this reading has ended here", "read it again from its beginning")
            reading.used_at_s = self._clock.steady_s()
            if number == reading.number + 1 and (number == 0 or reading.ahead is not None):
                await self._go_on(name, reading)
            elif number != reading.number:
                raise StaleError("this piece is not here", "read it again from its beginning")
            return reading.piece, reading.ahead is None

    async def _go_on(self, name: tuple[str, bytes], reading: _Reading) -> None:
        try:
            await reading.next()
        except Exception:  # whatever it says, a reading that broke off cannot go on
            del self._open[name]
            reading.close()
            raise

    def _opened(self, name: tuple[str, bytes], command: Command) -> _Reading:
        of_reader = [one for one in self._open if one[0] == name[0]]
        if len(of_reader) >= READINGS_OF_MAX:
            self._make_room(of_reader)
        elif len(self._open) >= READINGS_MAX:
            self._make_room(self._open)
        lines = self._read(command)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LAST_S, self._tick)
        reading = self._open[name] = _Reading(command, lines, self._clock.steady_s())
        return reading

    def _make_room(self, among: Iterable[tuple[str, bytes]]) -> None:
        """Close the one that has been over for longest; raises ExhaustedError if none is."""
        over = [name for name in among if self._open[name].over]
        if not over:
            raise ExhaustedError("too many readings at once", f"try again in {IDLE_S:g} s")
        self._open.pop(min(over, key=lambda name: self._open[name].used_at_s)).close()

    def _tick(self) -> None:
        self._timer = None
        self._close_idle()
        if self._open:
            self._timer = asyncio.get_running_loop().call_later(LAST_S, self._tick)

    def _close_idle(self) -> None:
        now_s = self._clock.steady_s()
        for name, reading in list(self._open.items()):
            idle_s = now_s - reading.used_at_s
            if not reading.turn.locked() and (
                idle_s > IDLE_S or (reading.over and idle_s > LAST_S)
            ):
                reading.close()
                del self._open[name]
