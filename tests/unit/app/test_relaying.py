"""Commands over links: sent, answered, refused, given up."""

import asyncio
from random import Random

import pytest

from meshnode.app.mesh import Mesh, Self
from meshnode.app.relaying import ORDERS_MAX, Relaying
from meshnode.core.effects import Effect, Send
from meshnode.core.errors import RefusedError, StaleError, UnreachableError
from meshnode.core.genesis import Genesis
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.linkgraph import Standing, mark_of
from meshnode.core.messages import Order, Reply, Routed

chance = Random(18).randbytes
KEY, OWNER_KEY = Key.new(chance), Key.new(chance)
GENESIS = Genesis((KEY.public,), 1, "test", bytes(16))
SELF, OWNER = node_id_of(KEY.public), node_id_of(OWNER_KEY.public)
COMMAND = Signed("command", b"do it", bytes(64))
RECEIPT = Signed("receipt", b"done", bytes(64))
WAY = (SELF, OWNER)


class Desk:
    """Stands for everything around: performs sends by keeping them, and judges commands."""

    def __init__(self) -> None:
        self.mesh = Mesh(GENESIS, Self(KEY, 1, Random(1)))
        self.sent: asyncio.Queue[Routed] = asyncio.Queue()
        self.tasks: set[asyncio.Task[None]] = set()
        self.error: Exception | None = None
        self.may_answer = asyncio.Event()
        self.relaying = Relaying(self.mesh, self.perform, self.judge, self.spawn)

    def link(self) -> None:
        self.mesh.linked(OWNER, 0.0, dialled=True)
        self.mesh.liveness.hear(OWNER, Standing("up", frozenset({mark_of(SELF)})))

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            assert isinstance(effect, Send)
            assert isinstance(effect.message, Routed)
            assert effect.peer == OWNER
            self.sent.put_nowait(effect.message)

    async def judge(self, command: Signed, via: str, *, until_accepted: bool = False) -> Signed:
        assert (command, via) == (COMMAND, OWNER)
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return RECEIPT

    def spawn(self, work) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def sent_order(desk: Desk) -> Order:
    body = (await desk.sent.get()).body
    assert isinstance(body, Order)
    assert body.command == COMMAND
    return body


async def test_a_receipt_comes_back_to_whoever_sent_the_command(desk: Desk):
    desk.link()
    assert desk.relaying.is_linked(OWNER)
    assert desk.relaying.has_path(OWNER)
    async with asyncio.TaskGroup() as tasks:
        receipt = tasks.create_task(desk.relaying.submit(OWNER, COMMAND))
        order = await sent_order(desk)
        desk.relaying.answered(Reply(order.number + 1, None))  # somebody else's
        desk.relaying.answered(Reply(order.number, RECEIPT))
        desk.relaying.answered(Reply(order.number, None))  # too late
    assert receipt.result() == RECEIPT


async def test_what_the_owner_says_is_raised_as_what_it_is(desk: Desk):
    desk.link()
    with pytest.RaisesGroup(StaleError):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(desk.relaying.submit(OWNER, COMMAND))
            order = await sent_order(desk)
            desk.relaying.answered(Reply(order.number, None, ("stale", "started anew", "again")))


async def test_without_a_path_nothing_is_sent(desk: Desk):
    assert not desk.relaying.has_path(OWNER)
    with pytest.raises(UnreachableError, match="no path"):
        await desk.relaying.submit(OWNER, COMMAND)
    assert desk.sent.empty()


async def test_an_owner_that_does_not_answer_is_given_up_and_forgotten(desk: Desk):
    desk.link()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.0):
            await desk.relaying.submit(OWNER, COMMAND)
    assert desk.relaying._waiting == {}


async def test_commands_that_wait_are_bounded(desk: Desk):
    desk.link()
    loop = asyncio.get_running_loop()
    desk.relaying._waiting = {number: loop.create_future() for number in range(ORDERS_MAX)}
    with pytest.raises(RefusedError):
        await desk.relaying.submit(OWNER, COMMAND)


async def answers(desk: Desk, count: int) -> list[Reply]:
    answered = [await desk.sent.get() for _ in range(count)]
    assert all(routed.route == WAY for routed in answered)
    return [routed.body for routed in answered if isinstance(routed.body, Reply)]


async def test_a_command_that_came_over_links_is_judged_and_answered(desk: Desk):
    desk.may_answer.set()
    desk.relaying.obey(Order(7, COMMAND), OWNER, WAY)
    assert await answers(desk, 1) == [Reply(7, RECEIPT)]


async def test_a_refusal_goes_back_with_its_reason(desk: Desk):
    desk.may_answer.set()
    desk.error = RefusedError("not now", "later")
    desk.relaying.obey(Order(7, COMMAND), OWNER, WAY)
    assert await answers(desk, 1) == [Reply(7, None, ("refused", "not now", "later"))]


async def test_commands_of_others_are_bounded(desk: Desk):
    for number in range(ORDERS_MAX + 1):
        desk.relaying.obey(Order(number, COMMAND), OWNER, WAY)
    (refused,) = await answers(desk, 1)
    assert (refused.number, refused.error[0]) == (ORDERS_MAX, "refused")
    desk.may_answer.set()
    assert len(await answers(desk, ORDERS_MAX)) == ORDERS_MAX
    assert desk.relaying._judging == 0
