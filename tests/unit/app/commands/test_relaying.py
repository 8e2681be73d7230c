"""Commands over links: sealed, sent, answered, refused, given up."""

import asyncio
from random import Random

import pytest
from msgspec.structs import replace

from meshnode.app.commands import relaying as module
from meshnode.app.commands.relaying import ORDERS_MAX, PIECE_TRIES, Desk, Relaying
from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.core.commands.envelopes import RENEWAL, Answer, Correspondence, Request
from meshnode.core.effects import Effect, Send
from meshnode.core.errors import (
    NoAnswerError,
    NotPermittedError,
    RefusedError,
    StaleError,
    UnreachableError,
)
from meshnode.core.feeds.messages import Order, Reply, Routed
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.links.linkgraph import Standing, mark_of
from meshnode.core.membership.genesis import Genesis
from meshnode.core.membership.members import NODE, ONLY_ROW, NodeRecord, node_to_row
from meshnode.core.sealing import SealingKey

chance = Random(18).randbytes
KEY, OWNER_KEY = Key.new(chance), Key.new(chance)
GENESIS = Genesis((KEY.public,), 1, "test", bytes(16))
SELF, OWNER = node_id_of(KEY.public), node_id_of(OWNER_KEY.public)
COMMAND = Signed("command", b"do it", bytes(64))
RECEIPT = Signed("receipt", b"done", bytes(64))
WAY = (SELF, OWNER)
AT_OWNER = Correspondence(OWNER_KEY, GENESIS.mesh_id, chance)
SEALING = SealingKey.of_node(OWNER_KEY, GENESIS.mesh_id).public


class Around:
    """Stands for everything around: performs sends by keeping them, and judges commands."""

    def __init__(self, sealing_key: bytes = SEALING) -> None:
        self.mesh = Mesh(GENESIS, Self(KEY, 1, Random(1)))
        self.mesh.linked(OWNER, 0.0, dialled=True)
        self.mesh.liveness.hear(OWNER, Standing("up", frozenset({mark_of(SELF)})))
        self._hear_of(sealing_key)
        self.sent: asyncio.Queue[Routed] = asyncio.Queue()
        self.tasks: set[asyncio.Task[None]] = set()
        self.error: Exception | None = None
        self.may_answer = asyncio.Event()
        self.reads: list[int] = []
        letters = Correspondence(KEY, GENESIS.mesh_id, chance)
        desk = Desk(self.judge, self.read)
        self.relaying = Relaying(self.mesh, letters, self.perform, desk, self.spawn)

    def _hear_of(self, sealing_key: bytes) -> None:
        feed = OwnFeed(OWNER_KEY, GENESIS.mesh_id, GENESIS.limits, 1)
        feed.write(NODE, ONLY_ROW, node_to_row(NodeRecord("owner", sealing_key=sealing_key)))
        feed.flush(1.0)
        self.mesh.replication.replicas[OWNER] = feed

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

    async def read(self, command: Signed, via: str, number: int) -> tuple[bytes, bool]:
        assert (command, via) == (COMMAND, OWNER)
        self.reads.append(number)
        return b"piece", number == 1

    def spawn(self, work) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def asked(self):
        """Open the next request as its owner does."""
        routed = await self.sent.get()
        assert isinstance(routed.body, Order)
        assert COMMAND.payload not in routed.body.sealed
        return routed.body.number, AT_OWNER.hear(SELF, routed.body.number, routed.body.sealed)

    async def replies(self, answer: Answer) -> None:
        number, asked = await self.asked()
        self.relaying.answered(Reply(number, asked.answer(answer)))

    def order(self, number: int, request: Request):
        """Seal a request of the other node to us."""
        key = SealingKey.of_node(KEY, GENESIS.mesh_id).public
        sealed, awaited = AT_OWNER.ask(SELF, key, number, request)
        return Order(number, sealed), awaited

    async def says(self, awaited) -> Answer:
        routed = await self.sent.get()
        assert isinstance(routed.body, Reply)
        assert routed.route == WAY
        return awaited.open(routed.body.sealed)


@pytest.fixture
def around() -> Around:
    return Around()


async def test_a_receipt_comes_back_to_whoever_sent_the_command(around: Around):
    assert around.relaying.is_linked(OWNER)
    assert around.relaying.has_path(OWNER)
    async with asyncio.TaskGroup() as tasks:
        receipt = tasks.create_task(around.relaying.submit(OWNER, COMMAND))
        number, asked = await around.asked()
        assert asked.request == Request(COMMAND)
        around.relaying.answered(Reply(number + 1))  # somebody else's
        around.relaying.answered(Reply(number, asked.answer(Answer(RECEIPT))))
        around.relaying.answered(Reply(number))  # too late
    assert receipt.result() == RECEIPT


async def test_what_the_owner_says_is_raised_as_what_it_is(around: Around):
    with pytest.RaisesGroup(StaleError):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(around.relaying.submit(OWNER, COMMAND))
            await around.replies(Answer(error=("stale", "started anew", "again")))


async def test_an_answer_without_a_receipt_is_no_success(around: Around):
    with pytest.RaisesGroup(pytest.RaisesExc(Exception, match="without a receipt")):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(around.relaying.submit(OWNER, COMMAND))
            await around.replies(Answer())


@pytest.mark.parametrize("code", ["not_permitted", "unreachable", "refused", "stale", "nonsense"])
async def test_what_a_node_on_the_way_says_is_never_the_owners_word(
    around: Around, monkeypatch, code: str
):
    """Not that it may not be, and not that nothing has changed: it may have passed the order on."""
    monkeypatch.setattr(module, "TRIES", 1)
    with pytest.RaisesGroup(pytest.RaisesExc(NoAnswerError, match="on the way says: no")):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(around.relaying.submit(OWNER, COMMAND))
            number, _ = await around.asked()
            around.relaying.answered(Reply(number, error=(code, "no", "run this")))


async def test_what_was_sent_once_is_not_said_to_have_changed_nothing_when_the_path_is_gone(
    around: Around, monkeypatch
):
    monkeypatch.setattr(module, "AGAIN_S", 0.0)
    with pytest.RaisesGroup(pytest.RaisesExc(NoAnswerError, match="a link on the way was lost")):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(around.relaying.submit(OWNER, COMMAND))
            number, _ = await around.asked()
            around.mesh.unlinked(OWNER, "reset", 1.0)
            lost = ("unreachable", "a link on the way was lost", "")
            around.relaying.answered(Reply(number, error=lost))
    assert around.sent.empty()


async def test_who_is_turned_back_by_a_share_asks_again_for_a_while(around: Around, monkeypatch):
    monkeypatch.setattr(module, "AGAIN_S", 0.001)
    with pytest.RaisesGroup(pytest.RaisesExc(UnreachableError, match="32 of one sender")):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(around.relaying.submit(OWNER, COMMAND))
            numbers = set()
            for _ in range(module.TRIES):
                number, asked = await around.asked()
                assert asked.request == Request(COMMAND)
                numbers.add(number)
                busy = ("refused", "32 of one sender are under way", "")
                around.relaying.answered(Reply(number, error=busy))
    assert len(numbers) == module.TRIES


async def test_a_member_gets_its_certificate_and_nobody_another_s(around: Around):
    order, awaited = around.order(1, RENEWAL)
    around.relaying.obey(order, WAY)
    assert (await around.says(awaited)).error[0] == "refused", "this node admits nobody"
    around.relaying.issue = str.encode
    order, awaited = around.order(2, RENEWAL)
    around.relaying.obey(order, WAY)
    assert await around.says(awaited) == Answer(piece=OWNER.encode(), last=True)
    assert around.reads == [], "it is no reading"

    async with asyncio.TaskGroup() as tasks:
        issued = tasks.create_task(around.relaying.renew(OWNER))
        number, asked = await around.asked()
        assert asked.request == RENEWAL
        around.relaying.answered(Reply(number, asked.answer(Answer(piece=b"new", last=True))))
    assert issued.result() == b"new"


async def test_without_a_path_nothing_is_sent(around: Around):
    around.mesh.unlinked(OWNER, "reset", 1.0)
    assert not around.relaying.has_path(OWNER)
    with pytest.raises(UnreachableError, match="no path"):
        await around.relaying.submit(OWNER, COMMAND)
    assert around.sent.empty()


async def test_an_owner_without_a_sealing_key_is_sent_nothing_in_clear():
    around = Around(sealing_key=b"")
    assert not around.relaying.is_linked(OWNER)
    assert not around.relaying.has_path(OWNER)
    with pytest.raises(UnreachableError, match="no key to seal to"):
        await around.relaying.submit(OWNER, COMMAND)
    assert around.sent.empty()


async def test_an_owner_that_does_not_answer_is_given_up_and_forgotten(around: Around):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.0):
            await around.relaying.submit(OWNER, COMMAND)
    assert around.relaying._waiting == {}


async def test_commands_that_wait_are_bounded(around: Around):
    loop = asyncio.get_running_loop()
    around.relaying._waiting = {number: loop.create_future() for number in range(ORDERS_MAX)}
    with pytest.raises(RefusedError):
        await around.relaying.submit(OWNER, COMMAND)


async def test_a_command_that_came_over_links_is_judged_and_answered(around: Around):
    around.may_answer.set()
    order, awaited = around.order(7, Request(COMMAND))
    around.relaying.obey(order, WAY)
    assert await around.says(awaited) == Answer(RECEIPT)


async def test_a_refusal_goes_back_with_its_reason(around: Around):
    around.may_answer.set()
    around.error = NotPermittedError("not you", "ask")
    order, awaited = around.order(7, Request(COMMAND))
    around.relaying.obey(order, WAY)
    assert (await around.says(awaited)).error == ("not_permitted", "not you", "ask")


async def test_commands_of_others_are_bounded(around: Around):
    letters = {}
    for number in range(ORDERS_MAX + 1):
        order, letters[number] = around.order(number, Request(COMMAND))
        around.relaying.obey(order, WAY)
    assert (await around.says(letters[ORDERS_MAX])).error[0] == "too_many"
    around.may_answer.set()
    for number in range(ORDERS_MAX):
        assert await around.says(letters[number]) == Answer(RECEIPT)
    assert around.relaying._judging == 0


async def test_output_is_asked_for_a_piece_at_a_time(around: Around):
    async with asyncio.TaskGroup() as tasks:

        async def read() -> list[bytes]:
            return [piece async for piece in around.relaying.read(OWNER, COMMAND, 5.0)]

        reading = tasks.create_task(read())
        for number, last in ((0, False), (1, True)):
            sent, asked = await around.asked()
            assert around.sent.empty()  # the next is not asked for before this one came
            assert asked.request == Request(COMMAND, number)
            answer = asked.answer(Answer(piece=b"%d" % number, last=last))
            around.relaying.answered(Reply(sent, answer))
    assert reading.result() == [b"0", b"1"]


async def test_a_piece_that_is_lost_on_the_way_is_asked_for_again(around: Around):
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(anext(around.relaying.read(OWNER, COMMAND, 5.0)))
        number, _ = await around.asked()
        around.relaying.answered(Reply(number, error=("unreachable", "a link was lost", "")))
        await around.replies(Answer(piece=b"said", last=True))
    assert reading.result() == b"said"


async def test_output_that_does_not_come_is_given_up(around: Around, monkeypatch):
    monkeypatch.setattr(module, "PIECE_S", 0.01)
    with pytest.raises(UnreachableError, match="in time"):
        await anext(around.relaying.read(OWNER, COMMAND, 5.0))
    assert around.sent.qsize() == PIECE_TRIES
    assert around.relaying._waiting == {}


async def test_a_reading_that_came_over_links_is_answered_piece_by_piece(around: Around):
    order, awaited = around.order(7, Request(COMMAND, 0))
    around.relaying.obey(order, WAY)
    assert await around.says(awaited) == Answer(piece=b"piece")
    order, awaited = around.order(8, Request(COMMAND, 1))
    around.relaying.obey(order, WAY)
    assert await around.says(awaited) == Answer(piece=b"piece", last=True)
    assert around.reads == [0, 1]


async def test_what_does_not_open_is_turned_back_and_judged_by_nobody(around: Around):
    order, _ = around.order(7, Request(COMMAND))
    flipped = bytes([order.sealed[0] ^ 1]) + order.sealed[1:]
    for wrong in (replace(order, sealed=flipped), replace(order, number=8), Order(7, b"")):
        around.relaying.obey(wrong, WAY)
        body = (await around.sent.get()).body
        assert isinstance(body, Reply)
        assert (body.sealed, body.error[0]) == (b"", "peer")
    assert around.tasks == set()
