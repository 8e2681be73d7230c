"""A node's own sessions: side by side, and while nothing can be published; never half done."""

import asyncio
from random import Random

import pytest
from doubles import ManualClock, Published, ScriptedAgents, nowhere

from meshnode.app.ports import Steered
from meshnode.app.sessions.endings import Ended
from meshnode.app.sessions.opening import Opening
from meshnode.app.sessions.sessions import ENDED_KEPT, ENDED_KEPT_S, OwnSessions
from meshnode.app.settling import SETTLED_S
from meshnode.core.errors import (
    ExhaustedError,
    NotFoundError,
    RefusedError,
    StorageError,
    UnreachableError,
    UsageError,
)
from meshnode.core.sessions.sessions import LOST, State


class Publishing:
    """A feed that fails with `fault`, if it is set."""

    def __init__(self) -> None:
        self.fault: Exception | None = None

    async def __call__(self, table: str, key: bytes, value: bytes | None) -> None:
        del table, key, value
        if self.fault is not None:
            raise self.fault


def _run_nothing(work) -> None:
    work.close()


@pytest.fixture
def publishing() -> Publishing:
    return Publishing()


@pytest.fixture
def agents() -> ScriptedAgents:
    return ScriptedAgents()


@pytest.fixture
def sessions(publishing: Publishing, agents: ScriptedAgents) -> OwnSessions:
    chance = Random(4).randbytes
    return OwnSessions(publishing, agents, ManualClock(), chance, nowhere, _run_nothing)


FULL = StorageError("the disk is full", "free some room")
FAULTS = [FULL, RefusedError("another machine runs with a copy of this home")]


async def test_a_session_that_cannot_be_written_has_failed_and_its_caller_is_told(
    sessions, publishing
):
    publishing.fault = FULL
    with pytest.raises(StorageError, match="is full"):
        await sessions.open(Opening(agent_id="worker"))
    assert sessions.live() == []


async def test_a_session_that_has_no_room_has_failed_and_nothing_is_left_of_it(
    sessions, publishing
):
    told = []
    sessions.on_change = lambda _, after: told.append(after)
    publishing.fault = ExhaustedError("this node publishes 20000 rows already", "do it elsewhere")
    with pytest.raises(ExhaustedError, match="20000 rows"):
        await sessions.open(Opening(agent_id="worker"))
    assert [(one.state, one.end_reason) for one in told] == [
        (State.PENDING, None),
        (State.FAILED, "could not be published"),
    ]
    assert (sessions.live(), sessions.get(told[-1].session_id)) == ([], None)


async def test_nothing_is_opened_while_writes_are_stopped(sessions):
    def stopped() -> None:
        raise RefusedError("this node takes nothing new")

    sessions.check_writable = stopped
    with pytest.raises(RefusedError, match="takes nothing new"):
        await sessions.open(Opening(agent_id="worker"))
    assert sessions.live() == []


async def test_sessions_that_open_side_by_side_sweep_each_old_one_once():
    published, clock = Published(), ManualClock()
    chance = Random(4).randbytes
    sessions = OwnSessions(published, ScriptedAgents(), clock, chance, nowhere, _run_nothing)
    old = [await sessions.open(Opening(agent_id=f"old{number}")) for number in range(3)]
    for record in old:
        ending = Ended(0, None, None, killed=False, at_s=clock.now_s)
        await sessions.ended(record.session_id, ending)
    clock.now_s += ENDED_KEPT_S + 1
    new = await asyncio.gather(*(sessions.open(Opening(agent_id=f"new{n}")) for n in range(3)))
    kept = {key for (_, key), value in published.rows.items() if value is not None}
    assert kept == {record.session_id.encode() for record in new}
    assert [sessions.get(record.session_id) for record in old] == [None] * 3


async def crowded_out(sessions, first):
    """End a session, and then so many others that it is listed no more."""
    others = [await sessions.open(Opening(agent_id="later")) for _ in range(ENDED_KEPT)]
    ends = [(first, 1.8e9), *((one, 1.9e9) for one in others)]
    # Side by side, as when many are killed: whoever waits for the first is told behind them.
    await asyncio.gather(
        *(
            sessions.ended(one.session_id, Ended(0, None, None, killed=False, at_s=at_s))
            for one, at_s in ends
        ),
        sessions.open(Opening(agent_id="last")),
    )
    assert sessions.get(first.session_id) is None


async def test_who_waits_for_a_session_that_is_listed_no_more_is_told(sessions, agents):
    opened = await sessions.open(Opening(agent_id="worker"))
    agents.gate = asyncio.Event()
    beginning = asyncio.create_task(sessions.begun(opened.session_id))
    ending = asyncio.create_task(sessions.told_of_end(opened.session_id))
    steering = asyncio.create_task(sessions.steer(opened, "id", {"message": "on"}))
    await agents.reached.wait()
    await crowded_out(sessions, opened)
    agents.gate.set()
    assert (await steering).outcome == "delivered"
    with pytest.raises(NotFoundError, match="listed no more"):
        await beginning
    await ending
    assert sessions.get(opened.session_id) is None


async def test_an_agent_that_begins_after_its_session_has_ended_is_killed(sessions, agents):
    opened = await sessions.open(Opening(agent_id="worker"))
    await sessions.ended(opened.session_id, Ended(None, None, "lost", killed=False, at_s=1.8e9))
    agents.fault = UnreachableError("its supervisor does not answer")
    await sessions.started(opened.session_id, 7)
    agents.fault = None
    await sessions.started(opened.session_id, 7)
    assert agents.kills == [opened.session_id]
    assert (sessions.get(opened.session_id).state, sessions.live()) == (State.FAILED, [])


async def test_an_agent_that_is_found_late_holds_up_no_other(sessions, agents):
    frozen, *others = [await sessions.open(Opening(agent_id=f"a{n}")) for n in range(3)]
    found, thawed = asyncio.Queue(), asyncio.Event()

    async def attach(session_id, *_):
        if session_id == frozen.session_id:
            await thawed.wait()
        found.put_nowait(session_id)

    agents.attach = attach
    finding = asyncio.create_task(sessions.reattach())
    assert {await found.get() for _ in others} == {one.session_id for one in others}
    thawed.set()
    await finding
    assert found.get_nowait() == frozen.session_id


async def test_a_clock_that_is_weeks_ahead_for_a_moment_takes_no_ended_session_off_the_list():
    clock = ManualClock()
    chance = Random(4).randbytes
    sessions = OwnSessions(Published(), ScriptedAgents(), clock, chance, nowhere, _run_nothing)
    clock.now_s += SETTLED_S
    old = await sessions.open(Opening(agent_id="old"))
    await sessions.ended(old.session_id, Ended(0, None, None, killed=False, at_s=clock.now_s))
    for ahead_s, pass_s in ((2 * ENDED_KEPT_S, SETTLED_S - 1), (0, SETTLED_S - 1)):
        clock.ahead_s = ahead_s
        await sessions.open(Opening(agent_id="at once"))
        clock.now_s += pass_s
        await sessions.open(Opening(agent_id="later"))
        assert sessions.get(old.session_id) is not None
    clock.now_s += ENDED_KEPT_S
    await sessions.open(Opening(agent_id="in a week"))
    assert sessions.get(old.session_id) is None


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_happens_to_an_agent_is_recorded_whatever_the_disk_does(
    sessions, publishing, agents, fault
):
    opened = await sessions.open(Opening(agent_id="worker"))
    publishing.fault = fault
    await sessions.started(opened.session_id, 7)
    running = sessions.get(opened.session_id)
    assert (running.state, running.pid) == (State.RUNNING, 7)
    steered = await sessions.steer(running, "id", {"message": "on"})
    assert steered.outcome == "delivered", "the agent has the line"
    assert agents.steered
    await sessions.ended(opened.session_id, Ended(0, None, None, killed=False, at_s=1.8e9))
    assert sessions.get(opened.session_id).state is State.CLOSED


@pytest.mark.parametrize("killed", [False, True])
async def test_who_failed_to_kill_an_agent_is_named_only_if_it_ended_by_that(
    sessions, agents, killed
):
    opened = await sessions.open(Opening(agent_id="worker"))
    agents.fault = UnreachableError("its supervisor does not answer")
    with pytest.raises(UnreachableError):
        await sessions.kill(opened, "id", {}, "somebody")
    ending = Ended(0, None, None, killed=killed, at_s=1.8e9)
    await sessions.ended(opened.session_id, ending)
    ended = sessions.get(opened.session_id)
    assert (ended.ended, ended.ended_by) == (True, "somebody" if killed else None)


@pytest.mark.parametrize(
    ("landed", "outcome", "said"),
    [
        (Steered(on_stdin=True, followed=False), "delivered", "nobody follows its inbox"),
        (Steered(on_stdin=True, followed=True), "delivered", "its inbox is followed too"),
        (Steered(on_stdin=False, followed=True), "delivered", "whoever follows the agent's inbox"),
        (Steered(on_stdin=False, followed=False), "queued", "which nobody follows now"),
        (Steered(on_stdin=True, followed=False, interrupted="SIGINT"), "delivered", "sent SIGINT"),
        (Steered(on_stdin=False, followed=True, behind=2), "queued", "behind 2 that it has not"),
    ],
)
async def test_a_receipt_says_where_a_steer_has_come(sessions, agents, landed, outcome, said):
    agents.landed = landed
    opened = await sessions.open(Opening(agent_id="worker"))
    mode = "after" if landed.behind else "soft"
    steered = await sessions.steer(opened, "id", {"direction": "north", "mode": mode})
    assert steered.outcome == outcome
    assert said in steered.detail


@pytest.mark.parametrize("args", [{"message": "on", "mode": "loud"}, {"message": "on", "mode": 1}])
async def test_a_mode_that_does_not_exist_is_refused_and_nothing_said(sessions, agents, args):
    opened = await sessions.open(Opening(agent_id="worker"))
    with pytest.raises(UsageError, match="mode"):
        await sessions.steer(opened, "id", args)
    assert agents.steered == []


async def test_a_session_that_was_told_lost_lives_once_its_supervisor_answers(sessions, agents):
    record = await sessions.open(Opening(agent_id="worker"))
    await sessions.started(record.session_id, 7)
    assert await sessions.find_lost(record.session_id)
    await sessions.ended(record.session_id, Ended(None, None, LOST, killed=False, at_s=9.0))
    assert not await sessions.find_lost(record.session_id)
    agents.answering.add(record.session_id)
    assert await sessions.find_lost(record.session_id)
    found = sessions.get(record.session_id)
    assert (found.state, found.ended_at_s, found.end_reason) == (State.RUNNING, None, None)


@pytest.mark.parametrize("killed", [False, True])
async def test_a_session_that_ended_otherwise_stays_as_it_ended(sessions, agents, killed):
    record = await sessions.open(Opening(agent_id="worker"))
    await sessions.started(record.session_id, 7)
    await sessions.ended(record.session_id, Ended(1, None, None, killed=killed, at_s=9.0))
    agents.answering.add(record.session_id)
    assert not await sessions.find_lost(record.session_id)
    assert sessions.get(record.session_id).ended
