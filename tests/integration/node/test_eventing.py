"""What a node that is stopped in order leaves of whom it saw, however long its end takes."""

import asyncio
from contextlib import AsyncExitStack, closing, contextmanager

from integration.client.service import short_home
from integration.node.test_ending import running
from integration.rpc.fleet import WAIT_S

from meshnode.client.mesh import MeshClient
from meshnode.core.liveness import MemberState
from meshnode.node import joining
from meshnode.node.eventing import left_from
from meshnode.node.founding import found
from meshnode.store import events
from meshnode.store.database import Database


@contextmanager
def two_homes():
    with short_home() as first, short_home() as second:
        found(first, None, "anna", None)
        yield first, second


def admit(host, guest) -> None:
    with MeshClient(host) as mesh:
        made = joining.invite(host, mesh, joining.Inviting(900))
    joining.join(guest, made["invite"], node_name="berta")


async def until(condition) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - of a node in this process
            await asyncio.sleep(0.01)


async def test_who_falls_away_while_a_node_ends_was_there_when_it_goes_on():
    with two_homes() as (first, second):
        async with AsyncExitStack() as nodes:
            anna = await nodes.enter_async_context(running(first))
            await asyncio.to_thread(admit, first, second)
            async with running(second) as berta:
                alive = berta._mesh.liveness.alive
                await until(lambda: len(alive) == 2)
                eventing, agents = berta._eventing, berta._hosting.agents
                await until(lambda: len(eventing._changes.states()) == 2)
                close = agents.close

                async def closing_late():
                    await until(lambda: len(alive) == 1)  # its links are closed by then
                    eventing._take_heard()
                    await close()

                agents.close = closing_late
                berta.ask_to_stop()
            with closing(Database(second.database)) as database:
                left = left_from(database.run_now(events.begin, "a" * 8).stopped)
            anna.ask_to_stop()
    assert set(left.states.values()) == {MemberState.ALIVE}
    assert len(left.states) == 2
