"""One link: what is put is written in order, and closing ends the waiting."""

import asyncio

from meshnode.core.feeds.feed import Flush
from meshnode.core.feeds.headers import Header, sign_header
from meshnode.core.feeds.messages import Digest, Pulse
from meshnode.core.ids import NodeId, node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.rpc.links import TOGETHER_BYTES_MAX, TOGETHER_MAX, Link, OnceEncoded
from meshnode.wire.links import message_to_wire

DIGEST = Digest(bytes(16), bytes(16))
KEY = Key(bytes(range(32)))


def a_link() -> Link:
    return Link(NodeId("peer"), NodeId("self"), 1)


async def test_next_waits_for_a_message():
    link = a_link()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(link.next())
        await asyncio.sleep(0)
        assert not waiting.done()
        link.put(DIGEST)
    assert waiting.result() == [message_to_wire(DIGEST)]


async def test_closing_wakes_whoever_waits():
    link = a_link()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(link.next())
        await asyncio.sleep(0)
        link.close("reset")
    assert waiting.result() == []


async def test_what_waits_together_travels_together_urgent_things_first():
    link = a_link()
    link.put(DIGEST)
    link.put(Pulse(0))
    assert await link.next() == [message_to_wire(Pulse(0)), message_to_wire(DIGEST)]


async def test_no_more_travels_together_than_the_bounds_allow():
    link = a_link()
    for _ in range(TOGETHER_MAX + 1):
        link.put(Signed("control", b"", b""))
    assert len(await link.next()) == TOGETHER_MAX
    assert len(await link.next()) == 1
    half = bytes(TOGETHER_BYTES_MAX // 2)
    for _ in range(4):
        link.put(Signed("control", half, b""))
    assert [len(await link.next()) for _ in range(2)] == [2, 2]


async def test_a_flush_for_many_links_is_encoded_once_and_another_one_anew():
    encode = OnceEncoded()
    links = [Link(NodeId(name), NodeId("self"), 1, encode=encode) for name in ("a", "b")]
    written: list[object] = []
    for seq in (1, 2):
        flush = a_flush(seq)
        for link in links:
            link.put(flush)
        both = [frame for link in links for frame in await link.next()]
        assert both == [message_to_wire(flush)] * 2
        assert both[0] is both[1]
        written.append(both[0])
    assert written[0] != written[1]


def a_flush(seq: int) -> Flush:
    header = Header("mesh", node_id_of(KEY.public), 1, 1, seq, seq, bytes(32), bytes(32), at_s=1.0)
    return Flush(sign_header(KEY, header), b"delta", eager=True)
