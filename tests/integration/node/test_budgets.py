"""Budgets at a node with its disk: judged by the whole mesh's ledgers, held where agents run."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from budgeted import ADMIN, DAY, HERE, NEAR, Budgeted
from integration.rpc.fleet import WAIT_S
from msgspec.structs import replace
from viewing import IDS

from meshnode.app.budgets.budgets import LOOK_AGAIN_S
from meshnode.app.budgets.withholding import AGAIN_S, AGAIN_S_MAX
from meshnode.app.sessions.opening import Opening
from meshnode.core.commands.standing import SETTLE_S
from meshnode.core.control.settings import Budget, Terms
from meshnode.core.errors import RefusedError
from meshnode.core.ids import b32, session_id_of
from meshnode.core.ledger.budgets import OF_ONE_MAX, SKEW_S
from meshnode.core.ledger.prices import Priced, Rates
from meshnode.core.sessions.sessions import SESSIONS, State, session_to_row

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("unsupervised")]
HOUR = Terms(1000, "tokens", "hour", "suspend", owner="olga")
KILL = replace(DAY, then="kill")


@pytest.fixture
def node(database):
    return Budgeted(database)


async def test_what_others_have_spent_suspends_a_session_here(node):
    record = node.run()
    budget_id = node.set(DAY)
    node.use(HERE, record.session_id, 400)
    await node.settle()
    assert (node.untouched(), node.news) == (True, [])
    node.use(NEAR, "elsewhere", 400, owner="olga")
    await node.settle()
    assert (node.untouched(), node.news) == (True, [("warned", "team")])
    node.use(NEAR, "elsewhere", 600, owner="olga")
    await node.settle()
    assert node.actions == [("suspend", "worker")]
    assert node.news == [("warned", "team"), ("exceeded", "team")]
    present = node.sessions.get(record.session_id)
    assert present.state is State.SUSPENDED
    assert present.orders[0].startswith(f"{b32(budget_id)} suspended budget team: 1ktok of 1ktok")
    assert [one.agent_id for one in (await node.budget()).held] == ["worker"]


async def test_whom_it_does_not_name_runs_on(node):
    node.run("other", owner="otto")
    record = node.run()
    node.set(DAY)
    node.use(HERE, record.session_id, 2000)
    await node.settle()
    assert node.actions == [("suspend", "worker")]


async def test_a_log_that_does_not_say_whose_it_was_counts_for_who_started_the_session(node):
    record = node.run(specializations=("crawl",))
    node.set(replace(DAY, owner="", specialization="crawl"))
    node.use(NEAR, record.session_id, 1000)
    node.use(NEAR, "unknown", 5000)
    await node.settle()
    assert (await node.budget()).tokens == 1000
    node.row(HERE, SESSIONS, record.session_id.encode(), None)
    await node.settle()
    assert (await node.budget()).tokens == 1000, (
        "what is spent stays so when the session is listed no more"
    )


async def test_who_is_resumed_runs_on_until_the_next_window(node):
    record = node.run()
    node.set(HOUR)
    node.use(HERE, record.session_id, 1000)
    await node.settle()
    await node.sessions.keep(replace(node.sessions.get(record.session_id), state=State.RUNNING))
    node.use(HERE, record.session_id, 9000)
    await node.settle()
    assert node.actions == [("suspend", "worker")]
    await node.settle(3600.0)
    assert node.news[-1] == ("lifted", "team")
    assert node.actions == [("suspend", "worker")]
    node.use(HERE, record.session_id, 1000)
    await node.settle()
    assert node.actions == [("suspend", "worker")] * 2


async def test_nobody_is_resumed_by_a_new_window(node):
    record = node.run()
    node.set(HOUR)
    node.use(HERE, record.session_id, 1000)
    await node.settle()
    await node.settle(3600.0)
    assert node.sessions.get(record.session_id).state is State.SUSPENDED
    assert (await node.budget()).state == "ok"
    assert [one.agent_id for one in (await node.budget()).held] == ["worker"]


async def test_what_was_done_in_a_window_is_not_done_again_after_a_restart(node, database):
    record = node.run()
    node.set(DAY)
    node.use(HERE, record.session_id, 1000)
    await node.settle()
    later = Budgeted(database)
    record = later.run()
    later.hear(*node.control.entries())
    later.desk.restore(*node.desk.told)
    later.use(HERE, record.session_id, 1000)
    await later.settle()
    assert (later.untouched(), later.news) == (True, [])


async def test_a_budget_that_is_set_anew_acts_anew(node):
    record = node.run()
    node.set(DAY)
    node.use(HERE, record.session_id, 1000)
    await node.settle()
    node.set(replace(DAY, limit=2000), ago_s=3)
    await node.sessions.keep(replace(node.sessions.get(record.session_id), state=State.RUNNING))
    await node.settle()
    assert node.news[-1] == ("lifted", "team")
    assert (len(node.actions), (await node.budget()).state) == (1, "ok")
    node.use(HERE, record.session_id, 2000)
    await node.settle()
    assert len(node.actions) == 2


async def test_a_kill_takes_the_whole_mesh_to_be_heard(node):
    record = node.run()
    node.set(KILL)
    node.use(HERE, record.session_id, 1000)
    await node.settle()
    assert node.agents.kills == [record.session_id]
    assert node.agents.whose[record.session_id].startswith("by budget team: 1ktok of 1ktok")
    assert node.actions == [("kill", "worker")]


async def test_while_a_node_is_missing_it_is_suspended_instead_and_that_is_said(database):
    node = Budgeted(database, full=False)
    record = node.run()
    node.set(KILL)
    node.use(HERE, record.session_id, 1000)
    await node.settle()
    assert (node.actions, node.agents.kills) == ([("suspend", "worker")], [])
    assert "suspended instead of killed" in node.held[0][0].reason
    view = await node.budget()
    assert (view.nodes_heard, view.nodes_known) == (3, 4)


async def test_who_is_cut_off_right_after_a_first_budget_suspends_on_what_it_knows(database):
    node = Budgeted(database, full=False)
    record = node.run()
    node.mesh.replication.doubt()  # as every entry makes a node do
    node.set(KILL)
    node.use(HERE, record.session_id, 1000)
    await node.settle()
    assert node.actions == [("suspend", "worker")]


async def test_a_kill_waits_for_what_a_neighbour_knows_and_then_asks_again(node):
    record = node.run()
    node.set(KILL)
    node.mesh.replication.abreast = False
    node.use(HERE, record.session_id, 1000)
    await node.settle()
    assert node.untouched()
    node.set(None, ago_s=3)
    node.mesh.replication.abreast = True
    await node.settle()
    assert node.untouched()


async def test_what_begins_while_a_budget_is_exceeded_is_refused(node):
    node.set(DAY)
    node.use(NEAR, "elsewhere", 1000, owner="olga")
    await node.settle()
    with pytest.raises(
        RefusedError, match="budget team is exceeded: 1ktok of 1ktok spent this day"
    ) as refused:
        await node.sessions.open(Opening(agent_id="late", owner="olga"))
    assert "session-mesh budget set team with a higher --limit" in refused.value.hint
    assert node.sessions.live() == []
    await node.sessions.open(Opening(agent_id="other", owner="otto"))


async def test_a_session_that_is_starting_is_held_once_it_runs(node):
    record = node.run(specializations=())
    pending = replace(record, state=State.PENDING)
    node.sessions.restore([pending])
    node.set(DAY)
    node.use(HERE, record.session_id, 1000)
    await node.settle()
    assert node.untouched()
    await node.sessions.keep(record)
    await node.settle()
    assert node.actions == [("suspend", "worker")]


async def test_what_has_no_price_is_said_and_is_not_free(node):
    record = node.run()
    node.set(Terms(10**9, "nusd", "day", "suspend"))
    node.use(HERE, record.session_id, 700, "free")
    await node.settle()
    view = await node.budget()
    assert (view.amount, view.tokens, view.unpriced) == (0, 700, (("free", 700),))
    assert "no price for 700 tokens of free" in view.reason


async def test_a_price_that_comes_later_holds_who_has_spent_already(node, monkeypatch):
    record = node.run()
    node.set(Terms(1000, "nusd", "day", "suspend", owner="olga"))
    node.use(HERE, record.session_id, 10**6, model="free")
    await node.settle()
    assert node.untouched()
    listed = Priced(Rates(input_pusd=1000), "another", "free")
    monkeypatch.setattr(node.prices, "rates", lambda *_: listed)
    monkeypatch.setattr(node.prices, "source_text", lambda: "another")
    await node.settle()
    assert (node.actions, (await node.budget()).amount) == ([("suspend", "worker")], 10**6)


async def test_an_agent_that_cannot_be_stopped_is_tried_again_ever_later_and_told_once(node):
    record = node.run()
    node.set(DAY)
    node.use(HERE, record.session_id, 1000)
    node.agents.fault = RefusedError("a process waits for a device")
    await node.settle()
    pauses = []
    for _ in range(7):
        left_s = node.desk.look()
        pauses.append(left_s)
        await node.settle(left_s)
    assert [done.outcome for _, done in node.held] == ["waits"]
    assert pauses == [AGAIN_S * 2**tried for tried in range(5)] + [AGAIN_S_MAX, AGAIN_S_MAX]
    node.agents.fault = None
    await node.settle(AGAIN_S_MAX)
    assert [done.outcome for _, done in node.held] == ["waits", "applied"]


@asynccontextmanager
async def looking_by_itself(node):
    """Let the desk look for itself, at an agent that has spent too much, for WAIT_S at most."""
    record, found = node.run(), asyncio.Event()
    node.set(DAY)
    node.use(HERE, record.session_id, 1000)
    node.clock.now_s += SETTLE_S
    found.set()
    looking = asyncio.get_running_loop().create_task(node.desk.run(found))
    async with asyncio.timeout(WAIT_S):
        yield record
    looking.cancel()


async def test_the_desk_wakes_for_what_could_not_be_done(node):
    node.agents.fault = RefusedError("a process waits for a device")
    looks, look = asyncio.Queue(), node.desk.look

    def noted():
        looks.put_nowait(left_s := look())
        return left_s

    node.desk.look = noted
    async with looking_by_itself(node):  # else it would look again after LOOK_AGAIN_S
        assert await looks.get() == LOOK_AGAIN_S
        assert await looks.get() == AGAIN_S
    assert [done.outcome for _, done in node.held] == ["waits"]


async def test_a_hold_that_meets_sums_being_made_anew_is_judged_again_at_once(node):
    calls_for, unknown = node.withholding.calls_for, [""]
    node.withholding.calls_for = lambda one: unknown.pop() if unknown else calls_for(one)
    async with looking_by_itself(node) as record:  # nothing else comes before LOOK_AGAIN_S
        await node.agents.reached.wait()
    assert (unknown, record.session_id in node.agents.suspended) == ([], True)


async def test_a_look_that_fails_is_not_the_last_one(node, monkeypatch):
    monkeypatch.setattr("meshnode.app.budgets.budgets.LOOK_AGAIN_S", 0.01)
    faults, coverage = [RuntimeError("something is broken")], node.queries.coverage

    def failing_once():
        if faults:
            raise faults.pop()
        return coverage()

    monkeypatch.setattr(node.queries, "coverage", failing_once)
    async with looking_by_itself(node) as record:
        await node.agents.reached.wait()
    assert (faults, record.session_id in node.agents.suspended) == ([], True)


async def test_a_budget_of_the_configuration_gives_way_to_one_of_the_mesh(database):
    node = Budgeted(database, local=[Budget("team", DAY)])
    record = node.run()
    node.use(HERE, record.session_id, 500)
    await node.settle()
    assert ((await node.budget()).issuer, (await node.budget()).percent) == ("", 50)
    node.set(replace(DAY, limit=5000), by=ADMIN)
    await node.settle()
    assert ((await node.budget()).percent, (await node.budget()).by_admin) == (10, True)
    node.set(None, by=ADMIN, ago_s=3)
    await node.settle()
    assert (await node.budget()).percent == 50


async def test_without_a_budget_nothing_is_added_up_and_nobody_is_woken(node):
    record = node.run()
    node.use(HERE, record.session_id, 1000)
    assert node.desk.look() is None
    assert (await node.desk.listed(), node.untouched()) == ([], True)
    node.set(DAY)
    node.set(None, ago_s=3)
    assert node.desk.look() is None, "nor by one that was removed"


async def test_a_budget_that_is_dated_ahead_counts_from_then_on_although_nothing_comes(node):
    record = node.run()
    node.use(HERE, record.session_id, 1000)
    node.set(DAY, ago_s=-(SKEW_S + 2 * int(LOOK_AGAIN_S)))
    for _ in range(2):
        left_s = node.desk.look()
        assert left_s, "it looks again by itself"
        node.clock.now_s += left_s
        assert (node.desk.shown, node.untouched()) == ({}, True)
    await node.settle()
    assert node.actions == [("suspend", "worker")]


async def test_what_a_clock_ahead_has_said_is_named_until_it_counts(node):
    node.set(DAY, ago_s=-SKEW_S - 60)
    (found,) = node.desk.ahead()
    assert (found.name, found.removes) == ("team", False)
    assert found.issued_s == node.clock.now_s + SKEW_S + 60
    assert await node.desk.listed() == []
    node.clock.now_s += 60
    assert node.desk.ahead() == []
    assert [one.name for one in await node.desk.listed()] == ["team"]


async def test_the_sums_are_those_of_all_rows_whatever_comes_in_which_order(node):
    node.use(NEAR, "a", 100, owner="olga")
    node.set(DAY)
    await node.settle()
    node.use(NEAR, "b", 50, owner="olga")
    node.use(NEAR, "a", 300, owner="olga")
    theirs = session_id_of(IDS[NEAR], 7)
    node.use(NEAR, theirs, 900)
    await node.settle()
    assert (await node.budget()).tokens == 350
    record = replace(node.run(), session_id=theirs, start=7)
    node.row(NEAR, SESSIONS, theirs.encode(), session_to_row(record))
    node.set(replace(DAY, per="month"), name="month")
    node.set(replace(DAY, per="hour"), name="hour")
    await node.settle()
    assert {(await node.budget(name)).tokens for name in ("team", "month", "hour")} == {1250}


async def test_one_that_becomes_too_many_is_lifted_and_shown_no_more(node):
    changes = []
    node.desk.on_change = lambda before, after: changes.append((before, after))
    node.use(HERE, node.run().session_id, 2000)
    node.set(DAY, ago_s=1000)
    for number in range(OF_ONE_MAX):
        node.set(replace(DAY, owner="x"), name=f"b{number:02}", ago_s=900 - number)
    await node.settle()
    assert (node.news, node.desk.shown["team"].state) == ([("exceeded", "team")], "exceeded")
    changes.clear()
    node.set(replace(DAY, limit=10**7), ago_s=5)
    await node.settle()
    assert node.news == [("exceeded", "team"), ("lifted", "team")]
    assert ("team" in node.desk.shown, len(node.desk.shown)) == (False, OF_ONE_MAX)
    assert [before.name for before, after in changes if after is None] == ["team"]
    assert (await node.budget()).state == "ignored"
    node.set(None, name="b00", ago_s=4)
    await node.settle()
    assert node.desk.shown["team"].state == "ok"
