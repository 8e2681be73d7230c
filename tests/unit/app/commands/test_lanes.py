"""Commands under way: in turn, shared by those who wait, and gone on with after a crash."""

import asyncio

import pytest
from doubles import ManualClock, MemoryJournal, ScriptedAgents
from msgspec.structs import replace
from owner import KEY, NODE, SESSION, Owner

from meshnode.app.commands.lanes import EXECUTING_MAX, WAITING_MAX
from meshnode.core.commands.commands import receipt_from_signed, sign_command
from meshnode.core.errors import (
    ExhaustedError,
    NoAnswerError,
    RefusedError,
)
from meshnode.core.floor import SKEW_S
from meshnode.core.ids import SessionId
from meshnode.core.keys import Signed


async def held_up(owner: Owner, orders: list[Signed]) -> list[asyncio.Task[Signed]]:
    """Submit orders that hang at their agents, and wait until the first is there."""
    running = [asyncio.ensure_future(owner.desk.submit(signed, "")) for signed in orders]
    await owner.agents.reached.wait()
    for _ in range(10 * len(orders)):
        await asyncio.sleep(0)
    return running


def crowd(count: int, action: str = "steer") -> tuple[Owner, list[Signed]]:
    """Return an owner of so many sessions whose agents hang, and an order to each."""
    records = [replace(SESSION, session_id=SessionId(f"{number:026}")) for number in range(count)]
    owner = Owner(ScriptedAgents(gate=asyncio.Event()), sessions=[SESSION, *records])
    commands = [owner.command(action, session=record.session_id) for record in records]
    return owner, [sign_command(KEY, command) for command in commands]


async def test_more_at_once_than_the_limit_wait_for_their_turn_and_more_than_that_are_refused():
    owner, orders = crowd(EXECUTING_MAX + WAITING_MAX + 1)
    running = await held_up(owner, orders[:-1])
    assert len(owner.memory.executing) == EXECUTING_MAX
    with pytest.raises(ExhaustedError, match="wait to be executed"):
        await owner.desk.submit(orders[-1], "")
    assert owner.agents.gate is not None
    owner.agents.gate.set()
    assert len(await asyncio.gather(*running)) == EXECUTING_MAX + WAITING_MAX
    assert (await owner.submit(orders[-1])).outcome == "delivered"


async def test_steers_that_hang_keep_nobody_from_a_kill():
    owner, orders = crowd(EXECUTING_MAX + 5)
    running = await held_up(owner, orders)
    kill = asyncio.ensure_future(owner.desk.submit(owner.order("kill"), ""))
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(owner.memory.executing) == EXECUTING_MAX + 1
    assert owner.agents.gate is not None
    owner.agents.gate.set()
    await asyncio.gather(kill, *running)
    assert owner.agents.kills == [SESSION.session_id]


async def test_agents_that_take_their_time_to_end_hold_up_neither_others_nor_the_registry():
    owner, orders = crowd(EXECUTING_MAX + 5, "close")
    closes = await held_up(owner, orders)
    assert len(owner.memory.executing) == EXECUTING_MAX
    entry = {"agent_id": "agent", "specialization": "build"}
    steer, suspend = (owner.order(action) for action in ("steer", "suspend"))
    others = await held_up(owner, [steer, suspend, owner.order("register", **entry)])
    assert others[2].done()
    assert len(owner.memory.executing) == EXECUTING_MAX + 3
    assert owner.agents.gate is not None
    owner.agents.gate.set()
    await asyncio.gather(*closes, *others)
    assert len(owner.agents.asked_to_end) == EXECUTING_MAX + 5


async def test_a_caller_who_goes_away_takes_nothing_from_those_who_wait_for_the_same():
    owner = Owner(ScriptedAgents(gate=asyncio.Event()))
    signed = owner.order()
    (first,) = await held_up(owner, [signed])
    second = asyncio.ensure_future(owner.desk.submit(signed, ""))
    await asyncio.sleep(0)
    first.cancel()
    assert owner.agents.gate is not None
    owner.agents.gate.set()
    receipt = receipt_from_signed(await second, NODE.public)
    assert receipt.outcome == "delivered"
    assert first.cancelled()
    assert len(owner.agents.steered) == 1


async def test_who_waits_for_acceptance_only_is_answered_before_the_agent_is():
    owner = Owner(ScriptedAgents(gate=asyncio.Event()))
    signed = owner.order()
    receipt = await owner.submit(signed, until_accepted=True)
    assert (receipt.outcome, receipt.command_hash) == ("accepted", signed.hash)
    assert owner.agents.steered == []
    assert owner.agents.gate is not None
    owner.agents.gate.set()
    assert (await owner.submit(signed)).outcome == "delivered"
    assert (await owner.submit(signed, until_accepted=True)).outcome == "delivered"


async def test_who_waits_for_acceptance_is_told_a_refusal_too():
    owner = Owner(journal=MemoryJournal(commands_max=0))
    with pytest.raises(RefusedError, match="full"):
        await owner.submit(owner.order(), until_accepted=True)


async def test_a_node_that_ends_tells_those_who_wait_that_it_is_not_known():
    owner = Owner(ScriptedAgents(gate=asyncio.Event()))
    (waiting,) = await held_up(owner, [owner.order()])
    await owner.crash()
    with pytest.raises(NoAnswerError):
        await waiting


async def test_after_a_crash_a_kill_runs_again_and_a_steer_is_indeterminate():
    for action, outcome, done in (("kill", "applied", 1), ("steer", "indeterminate", 0)):
        owner = Owner(ScriptedAgents(gate=asyncio.Event()))
        signed = owner.order(action)
        await held_up(owner, [signed])
        await owner.crash()
        again = Owner(journal=owner.memory)
        again.resume(await owner.memory.undone())
        assert (await again.submit(signed)).outcome == outcome
        assert len(again.agents.kills + again.agents.steered) == done


async def test_after_a_crash_what_had_not_begun_is_executed_if_it_is_still_in_time():
    for late_s, outcome in ((0, "delivered"), (60 + SKEW_S + 1, "expired")):
        owner = Owner()
        signed = owner.order()
        owner.journal.execute = forever  # type: ignore[method-assign] # the node ends before
        waiting = asyncio.ensure_future(owner.submit(signed, until_accepted=True))
        assert (await waiting).outcome == "accepted"
        await owner.crash()
        again = Owner(journal=owner.memory, clock=ManualClock(owner.clock.now_s + late_s))
        del owner.memory.execute  # type: ignore[attr-defined] # the class's own is back
        again.resume(await owner.memory.undone())
        assert (await again.submit(signed)).outcome == outcome
        assert len(again.agents.steered) == (outcome == "delivered")


async def forever(command_id: bytes) -> None:
    await asyncio.Event().wait()


async def test_a_kill_that_was_interrupted_and_may_not_run_again_is_indeterminate():
    owner = Owner(ScriptedAgents(gate=asyncio.Event()))
    signed = owner.order("kill")
    await held_up(owner, [signed])
    await owner.crash()
    again = Owner(journal=owner.memory, sessions=[replace(SESSION, session_epoch=43)])
    again.resume(await owner.memory.undone())
    for _ in range(20):
        await asyncio.sleep(0)
    ((entry, receipt),) = owner.memory.kept.values()
    assert entry.content_hash == signed.hash
    assert receipt is not None
    said = receipt_from_signed(receipt, NODE.public)
    assert said.outcome == "indeterminate"
    assert "not run again" in said.detail
    assert again.agents.kills == []


async def test_what_has_its_turn_at_once_is_journalled_as_begun_and_never_begun_again():
    owner = Owner(ScriptedAgents(gate=asyncio.Event()))
    owner.journal.execute = forever  # type: ignore[method-assign] # the one write that is not made
    signed = owner.order()
    await held_up(owner, [signed])
    assert owner.memory.executing == set(owner.memory.kept)
    await owner.crash()
    again = Owner(journal=owner.memory)
    again.resume(await owner.memory.undone())
    assert (await again.submit(signed)).outcome == "indeterminate"
    assert again.agents.steered == []
