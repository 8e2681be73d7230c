"""What waits to be written to one link."""

import pytest

from meshnode.app.mesh.outbox import (
    HAVE_POSITIONS_MAX,
    MESSAGE_BYTES,
    OUTBOX_BYTES_MAX,
    PARTING_BYTES_MAX,
    PRUNED_MAX,
    Outbox,
)
from meshnode.core.feeds.feed import Flush
from meshnode.core.feeds.headers import Header
from meshnode.core.feeds.heads import Head
from meshnode.core.feeds.messages import (
    BucketRows,
    Digest,
    Farewell,
    Have,
    Message,
    Order,
    Prune,
    Pull,
    Pulse,
    Routed,
    Vector,
)
from meshnode.core.ids import NodeId
from meshnode.core.keys import Signed

DIGEST = Digest(bytes(16), bytes(16))
CONTROL = Signed("control", b"entry", bytes(64))
FAREWELL = Farewell("good bye")
HEADER = Header("mesh", NodeId("n"), 1, 1, 1, 1, bytes(32), bytes(32), 0.0)


def chunk(size: int) -> BucketRows:
    return BucketRows(HEADER.origin, bytes(size), last=True)


def test_messages_come_out_in_order():
    outbox = Outbox()
    messages = [chunk(number) for number in range(5)]
    for message in messages:
        outbox.put(message)
    assert [outbox.pop() for _ in messages] == messages


def test_urgent_messages_overtake_news_but_not_each_other():
    outbox = Outbox()
    for message in (DIGEST, CONTROL, chunk(1), Pulse(1)):
        outbox.put(message)
    assert [outbox.pop() for _ in range(4)] == [CONTROL, Pulse(1), DIGEST, chunk(1)]


def test_one_pulse_says_it_all():
    outbox = Outbox()
    for count in range(5):
        outbox.put(Pulse(count))
    outbox.put(DIGEST)
    assert outbox.pop() == Pulse(0)
    assert outbox.pop() == DIGEST


def test_one_digest_starts_one_comparison():
    outbox = Outbox()
    for number in range(3):
        outbox.put(Digest(bytes([number]) * 16, bytes(16)))
    assert outbox.pop() == DIGEST
    assert outbox.pop() is None


def test_announcements_that_wait_travel_together_up_to_a_bound():
    outbox = Outbox()
    for number in range(HAVE_POSITIONS_MAX + 1):
        outbox.put(Have({NodeId(f"n{number}"): Head(1, 1)}))
    outbox.put(Have({NodeId("n0"): Head(1, 2)}))
    first, second = outbox.pop(), outbox.pop()
    assert isinstance(first, Have)
    assert isinstance(second, Have)
    assert len(first.positions) == HAVE_POSITIONS_MAX
    assert second.positions[NodeId("n0")] == Head(1, 2)
    assert outbox.pop() is None


def test_prunes_that_wait_travel_together_up_to_a_bound():
    outbox = Outbox()
    names = [NodeId(f"n{number}") for number in range(PRUNED_MAX + 1)]
    for name in (*names, names[0]):
        outbox.put(Prune(frozenset({name})))
    assert outbox.pop() == Prune(frozenset(names[:PRUNED_MAX]))
    assert outbox.pop() == Prune(frozenset(names[PRUNED_MAX:]))
    assert outbox.pop() is None


@pytest.mark.parametrize("size", [0, 1000, 1 << 20])
def test_what_waits_is_bounded_and_what_is_dropped_is_told(size: int):
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
        outbox.pop()
        found += 1
    assert found == fits
    assert outbox.emptied_after_overflow()
    assert not outbox.emptied_after_overflow()  # asked once an overflow


def test_room_is_given_back_when_messages_are_taken():
    outbox = Outbox()
    for _ in range(20):
        outbox.put(chunk(OUTBOX_BYTES_MAX // 2))
        outbox.put(Flush(HEADER, bytes(1000)))
        outbox.pop()
        outbox.pop()
    assert not outbox.overflowed


def test_a_farewell_fits_always():
    outbox = Outbox()
    outbox.put(chunk(OUTBOX_BYTES_MAX - MESSAGE_BYTES))
    outbox.put(DIGEST)
    assert outbox.overflowed
    outbox.put(FAREWELL)
    assert outbox.pop() == FAREWELL


def test_a_closed_outbox_says_good_bye_and_nothing_else():
    outbox = Outbox()
    for message in (DIGEST, CONTROL, FAREWELL, chunk(1)):
        outbox.put(message)
    outbox.close()
    assert outbox.pop() == FAREWELL
    assert outbox.pop() is None
    assert outbox.pop() is None


def test_a_parting_outbox_gives_out_what_waits_and_a_farewell_last():
    outbox = Outbox()
    for message in (DIGEST, CONTROL, chunk(1)):
        outbox.put(message)
    outbox.part(FAREWELL)
    assert outbox.closed
    assert [outbox.pop() for _ in range(5)] == [CONTROL, DIGEST, chunk(1), FAREWELL, None]
    assert outbox._bytes == 0


def test_a_parting_outbox_gives_out_no_more_than_its_bound():
    outbox = Outbox()
    size = PARTING_BYTES_MAX // 4 - MESSAGE_BYTES
    for _ in range(10):
        outbox.put(chunk(size))
    outbox.part(FAREWELL)
    assert [outbox.pop() for _ in range(6)] == [chunk(size)] * 4 + [FAREWELL, None]


def test_a_parting_that_takes_too_long_says_good_bye_and_nothing_else():
    outbox = Outbox()
    for message in (DIGEST, CONTROL, chunk(1)):
        outbox.put(message)
    outbox.part(FAREWELL)
    outbox.pop()
    outbox.close()
    assert [outbox.pop() for _ in range(2)] == [FAREWELL, None]


@pytest.mark.parametrize(
    "message",
    [
        Pull({}, frozenset(n.to_bytes(16, "big") for n in range(10_000))),
        Vector({NodeId(f"n{number}"): Head(1, 1) for number in range(10_000)}),
        Prune(frozenset(NodeId(f"n{number}") for number in range(10_000))),
        Routed((NodeId("a"), NodeId("b")), 1, Order(1, bytes(1 << 20))),
    ],
)
def test_what_is_large_counts_as_large(message: Message):
    outbox = Outbox()
    for _ in range(100):
        outbox.put(message)
    assert outbox.overflowed
