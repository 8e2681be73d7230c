"""What waits to be written to one link."""

import asyncio

import pytest

from meshnode.app.outbox import MESSAGE_BYTES, OUTBOX_BYTES_MAX, Outbox
from meshnode.core.feed import Flush, Header
from meshnode.core.ids import NodeId
from meshnode.core.keys import Signed
from meshnode.core.messages import Digest, Farewell, Pulse, SnapshotChunk

DIGEST = Digest(bytes(16), bytes(16))
CONTROL = Signed("control", b"entry", bytes(64))
FAREWELL = Farewell("good bye")
HEADER = Header("mesh", NodeId("n"), 1, 1, 1, 1, bytes(32), bytes(32), 0.0)


def chunk(size: int) -> SnapshotChunk:
    return SnapshotChunk(HEADER, bytes(size), last=True)


async def test_messages_come_out_in_order():
    outbox = Outbox()
    messages = [chunk(number) for number in range(5)]
    for message in messages:
        outbox.put(message)
    assert [await outbox.get() for _ in messages] == messages


async def test_urgent_messages_overtake_news_but_not_each_other():
    outbox = Outbox()
    for message in (DIGEST, CONTROL, chunk(1), Pulse(1)):
        outbox.put(message)
    assert [await outbox.get() for _ in range(4)] == [CONTROL, Pulse(1), DIGEST, chunk(1)]


async def test_one_pulse_says_it_all():
    outbox = Outbox()
    for count in range(5):
        outbox.put(Pulse(count))
    outbox.put(DIGEST)
    assert await outbox.get() == Pulse(0)
    assert await outbox.get() == DIGEST


async def test_get_waits_for_a_message():
    outbox = Outbox()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(outbox.get())
        await asyncio.sleep(0)
        assert not waiting.done()
        outbox.put(DIGEST)
    assert waiting.result() == DIGEST


@pytest.mark.parametrize("size", [0, 1000, 1 << 20])
async def test_what_waits_is_bounded_and_what_is_dropped_is_told(size: int):
    outbox = Outbox()
    fits = OUTBOX_BYTES_MAX // (size + MESSAGE_BYTES)
    for _ in range(fits):
        outbox.put(chunk(size))
    assert not outbox.overflowed
    outbox.put(chunk(size))
    assert outbox.overflowed
    assert not outbox.emptied_after_overflow()
    found = 0
    while outbox._rest:
        await outbox.get()
        found += 1
    assert found == fits
    assert outbox.emptied_after_overflow()
    assert not outbox.emptied_after_overflow()  # asked once an overflow


async def test_room_is_given_back_when_messages_are_taken():
    outbox = Outbox()
    for _ in range(20):
        outbox.put(chunk(OUTBOX_BYTES_MAX // 2))
        outbox.put(Flush(HEADER, bytes(1000)))
        await outbox.get()
        await outbox.get()
    assert not outbox.overflowed


async def test_a_farewell_fits_always():
    outbox = Outbox()
    outbox.put(chunk(OUTBOX_BYTES_MAX - MESSAGE_BYTES))
    outbox.put(DIGEST)
    assert outbox.overflowed
    outbox.put(FAREWELL)
    assert await outbox.get() == FAREWELL


async def test_a_closed_outbox_says_good_bye_and_nothing_else():
    outbox = Outbox()
    for message in (DIGEST, CONTROL, FAREWELL, chunk(1)):
        outbox.put(message)
    outbox.close()
    assert await outbox.get() == FAREWELL
    assert await outbox.get() is None
    assert await outbox.get() is None


async def test_closing_wakes_whoever_waits():
    outbox = Outbox()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(outbox.get())
        await asyncio.sleep(0)
        outbox.close()
    assert waiting.result() is None
