"""Close, suspend and resume at the owner: what is recorded, and what is refused."""

import pytest
from doubles import Killed, ScriptedAgents
from msgspec.structs import replace
from owner import SESSION, Owner, key_for

from meshnode.core.errors import NotPermittedError, RefusedError, UnreachableError
from meshnode.core.sessions.sessions import SESSIONS, State, session_from_row


def published(owner):
    return session_from_row(owner.published.rows[SESSIONS, SESSION.session_id.encode()])


async def test_a_suspended_session_says_so_and_runs_again():
    owner = Owner()
    receipt = await owner.submit(owner.order("suspend"))
    assert (receipt.outcome, receipt.detail) == ("applied", "2 processes are suspended")
    assert published(owner).state is State.SUSPENDED
    receipt = await owner.submit(owner.order("resume"))
    assert (receipt.outcome, receipt.detail) == ("applied", "2 processes are running again")
    assert published(owner).state is State.RUNNING
    receipt = await owner.submit(owner.order("resume"))
    assert (receipt.outcome, receipt.detail) == ("applied", "it was not suspended")


async def test_a_steer_to_a_suspended_agent_is_queued():
    owner = Owner()
    await owner.submit(owner.order("suspend"))
    receipt = await owner.submit(owner.order(message="later"))
    assert receipt.outcome == "queued"
    assert "once it is resumed" in receipt.detail
    assert owner.agents.steered == [(SESSION.session_id, None, "later")]
    assert published(owner).state is State.SUSPENDED


async def test_a_closed_session_is_closed_and_not_killed(monkeypatch):
    owner = Owner(ScriptedAgents(killed=Killed(2, 2, ())))
    monkeypatch.setattr("meshnode.app.sessions.sessions.LAST_WORD_WAIT_S", 0.0)
    receipt = await owner.submit(owner.order("close", grace_s=1))
    assert (receipt.outcome, receipt.detail) == ("applied", "2 processes are gone")
    assert receipt.processes == {"found": 2, "gone": 2, "survivors": []}
    assert owner.agents.asked_to_end == [SESSION.session_id]
    assert owner.agents.kills == []
    row = published(owner)
    assert (row.state, row.end_reason) == (State.CLOSED, "closed")
    assert row.ended_by is not None


async def test_a_receipt_says_what_a_close_needed_beyond_the_end_of_input(monkeypatch):
    owner = Owner(ScriptedAgents(killed=Killed(1, 1, needed="TERM")))
    monkeypatch.setattr("meshnode.app.sessions.sessions.LAST_WORD_WAIT_S", 0.0)
    receipt = await owner.submit(owner.order("close", grace_s=1))
    assert receipt.outcome == "applied"
    assert (
        receipt.detail == "1 process is gone; the end of its input was not enough: TERM was needed"
    )
    by = published(owner).ended_by
    assert owner.agents.whose == {SESSION.session_id: f"by order of key {by}"}


async def test_an_agent_that_does_not_end_by_itself_stays_as_it_is():
    owner = Owner(ScriptedAgents(killed=Killed(2, 1, (7,))))
    receipt = await owner.submit(owner.order("close"))
    assert receipt.outcome == "failed"
    assert "1 process is still there" in receipt.detail
    assert owner.sessions.get(SESSION.session_id) == SESSION


@pytest.mark.parametrize("again", [True, False])
async def test_a_suspended_agent_that_a_close_does_not_end_is_shown_as_it_is_by_then(again):
    owner = Owner(ScriptedAgents(killed=Killed(1, 0, (7,), suspended=again)))
    await owner.submit(owner.order("suspend"))
    receipt = await owner.submit(owner.order("close"))
    assert (receipt.outcome, "suspended again" in receipt.detail) == ("failed", again)
    assert published(owner).state is (State.SUSPENDED if again else State.RUNNING)


async def test_what_a_kill_leaves_of_a_suspended_agent_is_not_shown_as_suspended():
    owner = Owner(ScriptedAgents(killed=Killed(1, 0, (7,))))
    await owner.submit(owner.order("suspend"))
    assert (await owner.submit(owner.order("kill"))).outcome == "failed"
    assert published(owner).state is State.RUNNING


@pytest.mark.parametrize("action", ["suspend", "resume"])
@pytest.mark.parametrize("state", [State.PENDING, State.CLOSED, State.KILLED])
async def test_what_does_not_run_is_neither_suspended_nor_resumed(action, state):
    owner = Owner()
    owner.sessions.restore([replace(SESSION, state=state)])
    assert (await owner.submit(owner.order(action))).outcome == "refused"
    assert not owner.agents.reached.is_set()
    assert owner.published.rows == {}


async def test_a_close_of_what_has_ended_is_applied_and_touches_nothing():
    owner = Owner()
    owner.sessions.restore([replace(SESSION, state=State.FAILED)])
    assert (await owner.submit(owner.order("close"))).detail == "already ended"
    assert owner.agents.asked_to_end == []


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (RefusedError("one does not stop"), "refused"),
        (UnreachableError("silence"), "indeterminate"),
    ],
)
@pytest.mark.parametrize("action", ["suspend", "resume", "close"])
async def test_what_the_agent_does_not_do_is_not_recorded(action, fault, outcome):
    owner = Owner(ScriptedAgents(fault=fault))
    assert (await owner.submit(owner.order(action))).outcome == outcome
    assert owner.sessions.get(SESSION.session_id) == SESSION
    assert owner.published.rows == {}


@pytest.mark.parametrize(
    ("action", "needs"), [("close", "kill"), ("suspend", "suspend"), ("resume", "suspend")]
)
async def test_each_order_needs_its_action(action, needs, monkeypatch):
    monkeypatch.setattr("meshnode.app.sessions.sessions.LAST_WORD_WAIT_S", 0.0)
    owner = Owner()
    others = {"steer", "kill", "suspend", "register"} - {needs}
    with pytest.raises(NotPermittedError, match=f"may not {needs}"):
        await owner.desk.submit(owner.order(action, key=key_for(actions=tuple(others))), "")
    assert not owner.journal.begun
    receipt = await owner.submit(owner.order(action, key=key_for(actions=(needs,))))
    assert receipt.outcome == "applied"


async def test_what_a_supervisor_does_without_an_order_is_shown():
    owner = Owner()
    await owner.sessions.held(SESSION.session_id, suspended=True)
    assert published(owner).state is State.SUSPENDED
    await owner.sessions.held(SESSION.session_id, suspended=False)
    assert published(owner).state is State.RUNNING


@pytest.mark.parametrize("state", [State.PENDING, State.KILLED])
async def test_what_does_not_run_is_not_shown_suspended(state):
    owner = Owner(sessions=[replace(SESSION, state=state)])
    await owner.sessions.held(SESSION.session_id, suspended=True)
    await owner.sessions.held("another", suspended=True)
    assert owner.sessions.get(SESSION.session_id).state is state


async def test_an_owner_that_finds_its_agent_suspended_says_so():
    owner = Owner()
    await owner.sessions.started(SESSION.session_id, 7, suspended=True)
    assert (published(owner).state, published(owner).pid) == (State.SUSPENDED, 7)
    await owner.sessions.started(SESSION.session_id, 7)
    assert published(owner).state is State.RUNNING
