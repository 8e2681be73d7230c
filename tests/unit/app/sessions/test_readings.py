"""Output read a piece at a time: in order, once, bounded, and only while it may be read."""

import asyncio
import threading

import pytest
from doubles import ManualClock

from meshnode.app.sessions import readings as module
from meshnode.app.sessions.readings import IDLE_S, LAST_S, READINGS_MAX, READINGS_OF_MAX, Readings
from meshnode.core.commands.commands import Command
from meshnode.core.errors import ExhaustedError, NotPermittedError, RefusedError, StaleError
from meshnode.core.ids import SessionId
from meshnode.core.keys import Signed
from meshnode.core.sessions.sessions import SessionRecord, State

WAIT_S = 10.0
SESSION = SessionRecord(SessionId("s" * 26), 1, "a", State.RUNNING, 1.0, 1.0)


def signed(number: int = 0) -> Signed:
    return Signed("command", b"%d" % number, bytes(64))


class Desk:
    """Judges as told, and yields the pieces of a file that knows whether it was closed."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.pieces = [b"one", b"two", b"three"]
        self.may_read, self.opened, self.closed, self.judged = True, 0, 0, 0
        self.readings = Readings(self.judge, self.recheck, self.read_log, self.clock)

    def recheck(self, command: Command, via: str) -> None:
        assert (command.session, bool(via)) == (SESSION.session_id, True)
        if not self.may_read:
            raise NotPermittedError("not any more")

    def judge(self, command: Signed, via: str):
        self.judged += 1
        if not self.may_read:
            raise NotPermittedError("not any more")
        args = {"tail": 5} if command.payload == b"5" else {}
        about = SESSION.session_id
        return Command("m", bytes(16), "n", about, 1, "read_messages", 0, 1, args=args)

    def read_log(self, command: Command):
        assert command.session == SESSION.session_id
        self.opened += 1
        self.tail = command.args.get("tail")
        try:
            yield from self.pieces
        finally:
            self.closed += 1

    async def piece(self, number: int, command: int = 0, via: str = "anna") -> tuple[bytes, bool]:
        return await self.readings.piece(signed(command), via, number)


def breaking_off(*pieces: bytes):
    yield from pieces
    raise RefusedError("the session's log is no plain file")


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_pieces_come_in_order_and_the_last_says_so(desk: Desk):
    read = [await desk.piece(number) for number in range(3)]
    assert read == [(b"one", False), (b"two", False), (b"three", True)]
    assert (desk.opened, desk.tail) == (1, None)
    assert desk.judged == 1, "who reads slowly is not told that the command has expired"


async def test_a_piece_that_was_lost_comes_again(desk: Desk):
    read = [await desk.piece(number) for number in (0, 0, 1, 1, 2, 2)]
    assert [piece for piece, _ in read] == [b"one", b"one", b"two", b"two", b"three", b"three"]
    assert desk.opened == 1


@pytest.mark.parametrize("number", [0, 3, 9])
async def test_a_piece_that_is_not_here_is_stale(desk: Desk, number: int):
    await desk.piece(0)
    await desk.piece(1)
    with pytest.raises(StaleError):
        await desk.piece(number)
    assert await desk.piece(2) == (b"three", True)


async def test_nothing_follows_the_last(desk: Desk):
    for number in range(3):
        await desk.piece(number)
    with pytest.raises(StaleError):
        await desk.piece(3)


async def test_an_empty_output_is_one_last_piece_of_nothing(desk: Desk):
    desk.pieces = []
    assert await desk.piece(0) == (b"", True)


async def test_who_may_no_longer_read_gets_nothing_more(desk: Desk):
    await desk.piece(0)
    desk.may_read = False
    with pytest.raises(NotPermittedError):
        await desk.piece(1)


async def test_two_readers_of_one_output_do_not_share_a_place(desk: Desk):
    await desk.piece(0, via="anna")
    await desk.piece(1, via="anna")
    assert await desk.piece(0, via="bert") == (b"one", False)
    assert desk.opened == 2


async def test_how_many_lines_are_wanted_is_the_commands_word(desk: Desk):
    await desk.piece(0, command=5)
    assert desk.tail == 5


async def test_readings_are_bounded_for_one_reader_and_for_all(desk: Desk):
    for command in range(READINGS_OF_MAX):
        await desk.piece(0, command)
    with pytest.raises(ExhaustedError):
        await desk.piece(0, READINGS_OF_MAX)
    for number in range(READINGS_MAX - READINGS_OF_MAX):
        await desk.piece(0, via=f"reader{number}")
    with pytest.raises(ExhaustedError):
        await desk.piece(0, via="one more")
    assert desk.opened == READINGS_MAX


async def test_a_reading_that_is_over_leaves_its_place_to_the_next(desk: Desk):
    for command in range(READINGS_OF_MAX):
        for number in range(3):
            await desk.piece(number, command)
        desk.clock.now_s += 0.1
    await desk.piece(0, READINGS_OF_MAX)
    assert await desk.piece(2, 1) == (b"three", True), "those that were over later are still there"
    with pytest.raises(StaleError):
        await desk.piece(2, 0)
    assert (desk.opened, desk.closed) == (READINGS_OF_MAX + 1, READINGS_OF_MAX)


async def test_readings_that_are_over_keep_no_other_reader_out(desk: Desk):
    for number in range(READINGS_MAX):
        for piece in range(3):
            await desk.piece(piece, via=f"reader{number}")
    assert await desk.piece(0, via="one more") == (b"one", False)
    assert len(desk.readings._open) == READINGS_MAX


async def test_a_reading_that_is_refused_keeps_no_place_and_is_refused_again(
    desk: Desk, monkeypatch
):
    monkeypatch.setattr(desk.readings, "_read", lambda _: breaking_off())
    for command in [*range(READINGS_OF_MAX), 0]:
        with pytest.raises(RefusedError, match="no plain file"):
            await desk.piece(0, command)
    monkeypatch.undo()
    assert await desk.piece(0) == (b"one", False)


async def test_a_reading_that_breaks_off_is_not_taken_for_one_that_is_over(desk: Desk, monkeypatch):
    monkeypatch.setattr(desk.readings, "_read", lambda _: breaking_off(b"one", b"two"))
    assert await desk.piece(0) == (b"one", False)
    asked = [desk.piece(1), desk.piece(1)]
    said = await asyncio.gather(*asked, return_exceptions=True)
    assert list(map(type, said)) == [RefusedError, StaleError]


@pytest.mark.parametrize(("pieces", "patience_s"), [(1, IDLE_S), (3, LAST_S)])
async def test_a_reading_that_nobody_goes_on_with_is_closed(desk: Desk, pieces, patience_s):
    for number in range(pieces):
        await desk.piece(number)
    desk.clock.now_s += patience_s + 1
    await desk.piece(0, via="somebody else")
    with pytest.raises(StaleError):
        await desk.piece(pieces)
    assert (desk.opened, desk.closed) == (2, 1)


async def test_it_is_closed_without_anybody_coming(desk: Desk, monkeypatch):
    monkeypatch.setattr(module, "LAST_S", 0.01)
    closed = asyncio.Event()

    def pieces():
        try:
            yield from desk.pieces
        finally:
            closed.set()

    monkeypatch.setattr(desk.readings, "_read", lambda _: pieces())
    await desk.piece(0)
    desk.clock.now_s += IDLE_S + 1
    async with asyncio.timeout(WAIT_S):
        await closed.wait()


async def test_a_reading_with_nothing_new_is_waited_for_and_then_answered_empty(
    desk: Desk, monkeypatch
):
    monkeypatch.setattr(module, "LATER_S", 0.0)
    monkeypatch.setattr(module, "AWAITED_S", 0.0)
    desk.pieces = [b"head", b"", b"", b"more", b""]
    told = [await desk.piece(number) for number in range(5)]
    assert told == [(b"head", False), (b"", False), (b"", False), (b"more", False), (b"", True)]


async def test_who_is_cancelled_keeps_its_turn_while_a_thread_reads_for_it(desk: Desk, monkeypatch):
    """The next one would find the same generator at work, and the reading broken off."""
    begun, go_on = threading.Event(), threading.Event()

    def slow(_command: Command):
        begun.set()
        assert go_on.wait(WAIT_S)
        yield from (b"one", b"two")

    monkeypatch.setattr(desk.readings, "_read", slow)
    first = asyncio.create_task(desk.piece(0))
    assert await asyncio.to_thread(begun.wait, WAIT_S)
    again = asyncio.create_task(desk.piece(0))
    for _ in range(2):
        first.cancel()
        await asyncio.wait([first, again], timeout=0.0)
    assert [first.done(), again.done()] == [False, False]
    go_on.set()
    assert await again == (b"one", False)
    assert first.cancelled()
    assert await desk.piece(1) == (b"two", True)


async def test_who_is_cancelled_while_a_reading_breaks_off_leaves_none_behind(
    desk: Desk, monkeypatch
):
    begun, go_on = threading.Event(), threading.Event()

    def broken(_command: Command):
        begun.set()
        assert go_on.wait(WAIT_S)
        yield from breaking_off()

    monkeypatch.setattr(desk.readings, "_read", broken)
    first = asyncio.create_task(desk.piece(0))
    assert await asyncio.to_thread(begun.wait, WAIT_S)
    first.cancel()
    go_on.set()
    with pytest.raises(RefusedError):
        await first
    assert not desk.readings._open


async def test_a_reading_gives_what_is_new_as_soon_as_it_is_there(desk: Desk, monkeypatch):
    monkeypatch.setattr(module, "LATER_S", 0.0)
    desk.pieces = [b"head", *[b""] * 100, b"more"]
    assert [await desk.piece(number) for number in range(2)] == [(b"head", False), (b"more", True)]
