"""The life of a command at its owner: executed at most once, and always answered alike."""

import asyncio

import pytest
from doubles import Killed, ScriptedAgents
from msgspec.structs import replace
from owner import GENESIS, KEY, NODE_ID, ROOT, SESSION, UNTIL_S, Owner, chance, key_for

from meshnode.core.commands.commands import Command, sign_command
from meshnode.core.control.entries import role_entry
from meshnode.core.control.grants import Grant, SessionKey, grant
from meshnode.core.control.roles import Role
from meshnode.core.errors import (
    ConflictError,
    DamagedError,
    ExpiredError,
    MeshError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
    RefusedError,
    StaleError,
    UnreachableError,
    UsageError,
)
from meshnode.core.floor import SKEW_S
from meshnode.core.keys import Key, Signed
from meshnode.core.packing import pack
from meshnode.core.sessions.registry import REGISTRY
from meshnode.core.sessions.sessions import LOST, SESSIONS, State, session_from_row

THE_SAME = bytes(16)


async def test_a_steer_is_delivered_and_its_receipt_names_exactly_it():
    owner = Owner()
    signed = owner.order(direction="left", message="hello")
    receipt = await owner.submit(signed)
    assert (receipt.outcome, receipt.command_hash) == ("delivered", signed.hash)
    assert (receipt.node, receipt.session) == (NODE_ID, SESSION.session_id)
    assert owner.agents.steered == [(SESSION.session_id, "left", "hello")]
    await owner.sessions.untold.tell_all()  # a moment later it would be told anyway
    row = owner.published.rows[SESSIONS, SESSION.session_id.encode()]
    assert row is not None
    assert session_from_row(row).message_count == 1


async def test_a_kill_that_leaves_survivors_has_failed():
    owner = Owner(ScriptedAgents(killed=Killed(3, 2, (7,))))
    receipt = await owner.submit(owner.order("kill", grace_s=1))
    assert receipt.outcome == "failed"
    assert receipt.processes == {"found": 3, "gone": 2, "survivors": [7]}


async def test_a_kill_of_what_has_ended_is_applied_and_touches_nothing():
    owner = Owner()
    owner.sessions.restore([replace(SESSION, state=State.CLOSED, ended_at_s=2.0)])
    receipt = await owner.submit(owner.order("kill"))
    assert receipt.outcome == "applied"
    assert owner.agents.kills == []


LOST_ROW = replace(
    SESSION, state=State.FAILED, ended_at_s=2.0, end_reason=f"{LOST}; still there are 7"
)


@pytest.mark.parametrize(("action", "heard"), [("kill", "kills"), ("close", "asked_to_end")])
async def test_what_was_told_lost_is_ended_all_the_same_if_its_supervisor_answers(action, heard):
    owner = Owner()
    owner.sessions.restore([LOST_ROW])
    assert (await owner.submit(owner.order(action))).detail == "already ended"
    assert getattr(owner.agents, heard) == []
    owner.agents.answering.add(SESSION.session_id)
    receipt = await owner.submit(owner.order(action))
    assert (receipt.outcome, receipt.processes["gone"]) == ("applied", 1)
    assert getattr(owner.agents, heard) == [SESSION.session_id]


@pytest.mark.parametrize("action", ["steer", "kill", "register"])
async def test_beside_a_copy_of_the_home_nothing_is_carried_out_and_what_was_is_answered(action):
    owner = Owner()
    words = {"agent_id": "agent", "specialization": "docs"} if action == "register" else {}
    before = owner.order(direction="left")
    receipt = await owner.submit(before)

    def check_sole() -> None:
        raise RefusedError("another machine runs with a copy of this home")

    owner.desk.check_sole = check_sole
    anew = owner.order(action, **words)
    with pytest.raises(RefusedError, match="another machine"):
        await owner.submit(anew)
    assert owner.agents.kills == []
    assert len(owner.agents.steered) == 1
    assert await owner.submit(before) == receipt
    owner.desk.check_sole = lambda: None
    assert (await owner.submit(anew)).outcome in {"delivered", "applied"}, "it was journalled"


async def test_a_registration_is_published():
    owner = Owner()
    receipt = await owner.submit(
        owner.order("register", agent_id="agent", specialization="docs", attributes={"load": "0.5"})
    )
    assert receipt.outcome == "applied"
    assert [table for table, _ in owner.published.rows] == [REGISTRY]


async def test_an_entry_is_taken_out_once_and_what_nobody_entered_is_unknown():
    owner = Owner()
    entry = {"agent_id": "agent", "specialization": "docs"}
    await owner.submit(owner.order("register", **entry))
    assert (await owner.submit(owner.order("unregister", **entry))).outcome == "applied"
    assert owner.published.rows == {(REGISTRY, pack(["agent", "docs"])): None}
    receipt = await owner.submit(owner.order("unregister", **entry))
    assert (receipt.outcome, receipt.detail) == ("unknown", "agent is not registered for docs")


async def test_who_may_not_register_may_not_unregister():
    owner = Owner()
    link = grant(
        ROOT,
        Grant(GENESIS.mesh_id, ROOT.public, ROOT.public, ("steer",), 0, UNTIL_S, bytes(16)),
    )
    words = {"agent_id": "agent", "specialization": "docs"}
    signed = owner.order("unregister", key=SessionKey(ROOT, (link,)), **words)
    with pytest.raises(NotPermittedError):
        await owner.desk.submit(signed, "")


async def test_a_hundred_duplicates_at_once_are_executed_once_and_answered_alike():
    owner = Owner(ScriptedAgents(gate=asyncio.Event()))
    signed = owner.order()
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(owner.desk.submit(signed, "")) for _ in range(100)]
        await owner.agents.reached.wait()
        assert owner.agents.gate is not None
        owner.agents.gate.set()
    assert len({task.result().hash for task in waiting}) == 1
    assert len(owner.agents.steered) == 1
    assert sum(owner.memory.begun.values()) == 1


async def test_a_duplicate_after_the_end_gets_the_first_receipt():
    owner = Owner()
    signed = owner.order()
    first = await owner.desk.submit(signed, "")
    owner.clock.now_s += 30
    assert await owner.desk.submit(signed, "") == first
    assert len(owner.agents.steered) == 1


async def test_what_was_done_is_told_after_its_key_has_expired_and_nothing_new_is_done():
    owner = Owner()
    key = key_for(expires_s=int(owner.clock.now_s) + 60)
    until_s = int(owner.clock.now_s) + 43_200
    kill, other = (sign_command(key, owner.command("kill", expires_s=until_s)) for _ in range(2))
    first = await owner.desk.submit(kill, "")
    owner.clock.now_s += 60 + SKEW_S + 1
    assert await owner.desk.submit(kill, "") == first
    with pytest.raises(NotAuthenticatedError, match="has expired"):
        await owner.desk.submit(other, "")
    assert len(owner.agents.kills) == 1


async def test_after_a_restart_of_the_desk_the_journal_answers():
    owner = Owner()
    signed = owner.order()
    first = await owner.desk.submit(signed, "")
    again = Owner(journal=owner.memory)
    assert await again.desk.submit(signed, "") == first
    assert again.agents.steered == []


async def test_the_same_id_with_other_args_is_a_conflict_while_and_after():
    owner = Owner(ScriptedAgents(gate=asyncio.Event()))
    one, other = owner.order(command_id=THE_SAME), owner.order(command_id=THE_SAME, message="bye")
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(owner.desk.submit(one, ""))
        await owner.agents.reached.wait()
        second = tasks.create_task(_conflict(owner, other))
        assert owner.agents.gate is not None
        owner.agents.gate.set()
    assert first.result()
    assert second.result()
    assert await _conflict(owner, other)
    assert owner.agents.steered == [(SESSION.session_id, None, "hello")]


async def _conflict(owner: Owner, signed: Signed) -> bool:
    with pytest.raises(ConflictError, match="same id"):
        await owner.desk.submit(signed, "")
    return True


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (RefusedError("the agent reads nothing"), "refused"),
        (UnreachableError("nobody knows"), "indeterminate"),
        (ConflictError("it has ended"), "refused"),
        (NotAuthenticatedError("no role any more"), "refused"),
        (UsageError("no such direction"), "refused"),
        (NotFoundError("no such agent"), "unknown"),
        (ExpiredError("too late"), "expired"),
        (DamagedError("not as it was written"), "failed"),
        (MeshError("something"), "failed"),
    ],
)
async def test_what_goes_wrong_while_executing_becomes_a_receipt(fault: MeshError, outcome: str):
    owner = Owner(ScriptedAgents(fault=fault))
    signed = owner.order()
    receipt = await owner.submit(signed)
    assert (receipt.outcome, receipt.detail) == (outcome, fault.message)
    assert await owner.submit(signed) == receipt


@pytest.mark.parametrize("args", [{"message": 5}, {"direction": "", "message": ""}, {"other": 1}])
async def test_a_steer_that_says_nothing_is_refused_and_reaches_nobody(args: dict):
    owner = Owner()
    assert (await owner.submit(owner.order(**args))).outcome == "refused"
    assert not owner.agents.reached.is_set()


@pytest.mark.parametrize("grace_s", [-1, 61, "long", float("nan")])
async def test_a_kill_with_an_odd_grace_is_refused_and_kills_nobody(grace_s: object):
    owner = Owner()
    assert (await owner.submit(owner.order("kill", grace_s=grace_s))).outcome == "refused"
    assert owner.agents.kills == []


async def test_an_unforeseen_failure_is_indeterminate_and_not_repeated():
    owner = Owner(ScriptedAgents(fault=OSError("broken")))
    signed = owner.order()
    receipt = await owner.submit(signed)
    assert receipt.outcome == "indeterminate"
    assert "broken" not in receipt.detail
    owner.agents.fault = None
    assert await owner.submit(signed) == receipt
    assert owner.agents.steered == []


async def test_what_is_not_allowed_never_reaches_the_journal():
    owner = Owner()
    stale = replace(KEY, key=Key.new(chance))
    for signed, refused in (
        (sign_command(stale, _command(owner)), NotAuthenticatedError),
        (sign_command(KEY, replace(_command(owner), epoch=1)), StaleError),
        (sign_command(KEY, replace(_command(owner), session="x" * 26)), NotFoundError),
    ):
        with pytest.raises(refused):
            await owner.desk.submit(signed, "")
    assert not owner.memory.begun
    assert not owner.agents.reached.is_set()


def _command(owner: Owner) -> Command:
    now_s = int(owner.clock.now_s)
    return Command(
        GENESIS.mesh_id,
        chance(16),
        NODE_ID,
        SESSION.session_id,
        SESSION.session_epoch,
        "steer",
        now_s,
        now_s + 60,
        args={"message": "hello"},
    )


async def test_a_command_that_expires_while_the_journal_is_written_is_not_executed():
    """Step 10: the last look is at the moment of execution."""
    owner = Owner()
    signed = owner.order()
    begin = owner.journal.begin

    async def slow(*args: object) -> Signed | None:
        found = await begin(*args)  # type: ignore[arg-type] # passed through
        owner.clock.now_s += 60 + SKEW_S + 1
        return found

    owner.journal.begin = slow  # type: ignore[method-assign,assignment] # a slower one for this test
    receipt = await owner.submit(signed)
    assert receipt.outcome == "expired"
    assert owner.agents.steered == []


async def test_reading_is_judged_and_not_journalled():
    owner = Owner()
    signed = owner.order("read_messages")
    command = owner.desk.judge_reading(signed, "")
    assert (command.action, command.session) == ("read_messages", SESSION.session_id)
    with pytest.raises(RefusedError):
        await owner.desk.submit(signed, "")
    with pytest.raises(RefusedError):
        owner.desk.judge_reading(owner.order(), "")
    assert not owner.memory.begun


async def test_an_operator_with_a_role_in_the_control_set_may_command():
    owner = Owner()
    operator, key = Key.new(chance), Key.new(chance)
    link = Grant(GENESIS.mesh_id, operator.public, key.public, ("steer",), 0, UNTIL_S, bytes(16))
    signed = sign_command(SessionKey(key, (grant(operator, link),)), _command(owner))
    with pytest.raises(NotAuthenticatedError):
        await owner.desk.submit(signed, "")
    role = Role(operator.public, "operator", "", ROOT.public, 1, None)
    owner.control.add(role_entry(ROOT, GENESIS.mesh_id, role, chance), 0.0)
    assert (await owner.submit(signed)).outcome == "delivered"
