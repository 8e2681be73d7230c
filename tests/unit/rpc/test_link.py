"""One link: what is put is written in order, and closing ends the waiting."""

import asyncio

from meshnode.core.ids import NodeId
from meshnode.core.messages import Digest
from meshnode.rpc.links import Link

DIGEST = Digest(bytes(16), bytes(16))


def a_link() -> Link:
    return Link(NodeId("peer"), NodeId("self"), 1)


async def test_next_waits_for_a_message():
    link = a_link()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(link.next())
        await asyncio.sleep(0)
        assert not waiting.done()
        link.put(DIGEST)
    assert waiting.result() == DIGEST


async def test_closing_wakes_whoever_waits():
    link = a_link()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(link.next())
        await asyncio.sleep(0)
        link.close("reset")
    assert waiting.result() is None
