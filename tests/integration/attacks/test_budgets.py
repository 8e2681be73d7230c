"""Budgets: nobody sets, widens, removes or revives one without the right to, or stops others."""

from types import SimpleNamespace

import pytest
from budgeted import ADMIN, ANNA, BERT, DAY, HERE, NEAR, NOBODY, OSCAR, Budgeted, chance, word
from msgspec.structs import replace
from viewing import GENESIS, IDS

from meshnode.app.budgets.held import HELD_SHOWN
from meshnode.client.commands import budgets
from meshnode.client.connection.connection import ANSWER_BYTES_MAX
from meshnode.core.control.control import NoAuthorityError
from meshnode.core.control.entries import CONTROL
from meshnode.core.control.settings import AMOUNT_MAX, Budget, Terms
from meshnode.core.errors import NotPermittedError, PeerError
from meshnode.core.ids import b32, session_id_of
from meshnode.core.keys import key_id_of
from meshnode.core.ledger.budgets import IN_FORCE_MAX, OF_ONE_MAX, SKEW_S, UNPRICED_SHOWN
from meshnode.core.ledger.ledger import COUNT_MAX, LEDGER, SlotKey, slot_number
from meshnode.core.ledger.ledger_rows import key_to_row
from meshnode.core.packing import pack
from meshnode.core.sessions.registry import REGISTRY, Birth, registry_key, registry_row, specialist
from meshnode.core.sessions.sessions import SESSIONS, SessionRecord, State, session_to_row
from meshnode.rpc.budgets import BudgetServicer, budget_to_wire
from meshnode.v1 import budget_service_pb2 as pb

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("unsupervised")]
KILL = replace(DAY, then="kill")
WIDE = replace(DAY, limit=AMOUNT_MAX - 1)


@pytest.fixture
def node(database):
    """A node whose agent has spent what every budget here allows."""
    node = Budgeted(database)
    node.worker = node.run().session_id
    node.use(HERE, node.worker, 1000)
    return node


async def unchanged(node) -> None:
    """Nothing counts, and nobody is held."""
    await node.settle()
    assert await node.desk.listed() == []
    assert node.untouched()


async def test_an_operator_sets_a_budget_and_it_holds(node):
    """The others show nothing unless this works."""
    node.set(DAY)
    await node.settle()
    assert node.actions == [("suspend", "worker")]


@pytest.mark.parametrize("key", [NOBODY, OSCAR], ids=["no role", "an observer"])
async def test_who_has_no_right_to_sets_no_budget(node, key):
    with pytest.raises(NoAuthorityError):
        node.set(KILL, by=key)
    await unchanged(node)


async def test_a_session_key_sets_no_budget():
    said = {"name": "a", "limit": "1usd", "per": "day"}
    mesh = SimpleNamespace(environment={"SESSION_API_KEY": "smk1_x"})  # which nothing is asked of
    with pytest.raises(NotPermittedError, match="sets no budgets"):
        budgets.set_budget(mesh, said)


@pytest.mark.parametrize("ago_s", [9, 0, -SKEW_S], ids=["earlier", "later", "much later"])
@pytest.mark.parametrize("terms", [WIDE, None], ids=["widened", "removed"])
async def test_an_operator_neither_widens_nor_removes_what_an_admin_has_set(node, terms, ago_s):
    node.set(DAY, by=ADMIN, ago_s=5)
    node.set(terms, ago_s=ago_s)
    await node.settle()
    assert node.actions == [("suspend", "worker")]
    assert (await node.budget()).issuer == key_id_of(ADMIN.public)


async def test_what_an_admin_has_removed_an_older_word_of_an_operator_does_not_revive(node):
    node.set(None, by=ADMIN, ago_s=5)
    node.set(KILL, ago_s=9)
    await unchanged(node)


@pytest.mark.parametrize("older_first", [True, False])
async def test_an_older_entry_that_is_shown_again_does_not_count(node, older_first):
    wide, narrow = word(Budget("team", WIDE), ANNA, 9), word(Budget("team", DAY), BERT, 99)
    node.hear(*((wide, narrow, wide) if older_first else (narrow, wide, narrow)))
    await node.settle()
    assert node.actions == [("suspend", "worker")]


async def test_a_removed_budget_that_is_shown_again_kills_nobody(node):
    killing = word(Budget("team", KILL), ANNA, 9)
    node.hear(word(Budget("team", None), BERT, 99), killing)
    await unchanged(node)
    node.hear(killing)
    await unchanged(node)


async def test_a_budget_from_the_future_does_not_count_until_then(node):
    node.set(KILL, ago_s=-SKEW_S - 5)
    await unchanged(node)
    await node.settle(5.0)
    assert node.agents.kills == [node.worker]


async def test_the_budget_of_a_revoked_key_counts_no_more(node):
    node.set(KILL)
    node.revoke(ANNA)
    await unchanged(node)


async def test_a_revocation_between_the_journal_and_the_signal_stops_the_signal(node):
    node.set(KILL)
    node.clock.now_s += 1.0
    node.desk.look()  # the kill is under way, and waits for the disk
    node.revoke(ANNA)
    await unchanged(node)


NUMBERS = {
    "nothing": 0,
    "less than nothing": -1,
    "more than there is": AMOUNT_MAX,
    "no integer": 10.5,
    "not a number": float("nan"),
    "without end": float("inf"),
    "true": True,
    "a text": "20",
    "nil": None,
}


@pytest.mark.parametrize("limit", NUMBERS.values(), ids=NUMBERS)
async def test_a_limit_that_is_none_is_no_entry(node, limit):
    await refused(node, limit=limit)


@pytest.mark.parametrize("warn", [0, -1, 101, 80.0, float("nan"), 1 << 63])
async def test_a_share_that_is_none_is_no_entry(node, warn):
    await refused(node, warn=warn)


@pytest.mark.parametrize("bent", [{"per": "second"}, {"then": "exec"}, {"owner": "a" * 257}])
async def test_terms_that_there_are_not_are_no_entry(node, bent):
    await refused(node, **bent)


async def refused(node, **bent) -> None:
    """An operator signs a budget that no honest client would."""
    value = {"mesh": GENESIS.mesh_id, "kind": "budget", "id": chance(16), "issuer": ANNA.public}
    value |= {"issued": 9, "slot": "team"} | Budget("team", KILL).to_map()
    value["terms"] |= bent
    with pytest.raises(PeerError):
        node.hear(ANNA.sign(CONTROL, value))
    await unchanged(node)


async def test_a_flood_of_budgets_takes_no_room_from_those_of_others(node):
    for number in range(3 * OF_ONE_MAX):
        node.set(replace(WIDE, owner=""), by=BERT, name=f"flood{number:03}")
    node.set(DAY)
    await node.settle()
    assert node.actions == [("suspend", "worker")]
    states = [one.state for one in await node.desk.listed()]
    assert states.count("ignored") == 2 * OF_ONE_MAX


LONG = "\U0001f600" * 225


def fits_often(view) -> bool:
    """Whether as many budgets as there can be in force make an answer that is taken."""
    return budget_to_wire(view).ByteSize() * IN_FORCE_MAX < ANSWER_BYTES_MAX


async def test_made_up_models_are_counted_and_those_with_most_tokens_named(node):
    node.prices.rates = lambda *_: None
    node.set(Terms(10**9, "nusd", "day", "suspend"), name="money")
    node.use(HERE, node.worker, 2000, model="real")
    for number in range(2 * UNPRICED_SHOWN):
        node.use(NEAR, "lie", 1 + number % 9, model=f"{LONG}{number:03}")
    await node.settle()
    view = await node.budget("money")
    assert (len(view.unpriced), view.unpriced_more) == (UNPRICED_SHOWN, UNPRICED_SHOWN + 2)
    assert {("m", 1000), ("real", 2000)} < set(view.unpriced)
    assert sum(dict(view.unpriced).values()) + view.unpriced_more_tokens == view.tokens
    assert f"no price for {view.tokens:,} tokens of m, real, " in view.reason
    assert f" and {2 * UNPRICED_SHOWN - 1} more" in view.reason
    assert fits_often(view)


def claimed(budget_id: bytes, number: int) -> SessionRecord:
    """Make a session of a member that says that a budget holds it."""
    told = (f"{b32(budget_id)} suspended {LONG}",)
    session_id = session_id_of(IDS[NEAR], number)
    return SessionRecord(session_id, number, LONG * 4, State.SUSPENDED, 1.0, 1.0, orders=told)


async def test_sessions_that_a_member_says_are_held_hide_none_that_is(node):
    budget_id = node.set(DAY)
    await node.settle()
    for number in range(1, 2 * HELD_SHOWN + 1):
        record = claimed(budget_id, number)
        node.row(NEAR, SESSIONS, record.session_id.encode(), session_to_row(record))
    copy = replace(claimed(budget_id, 1), session_id="s" * 9000)  # no session of that node
    node.row(NEAR, SESSIONS, b"s", session_to_row(copy))
    view = await node.budget()
    assert (len(view.held), view.held_more) == (HELD_SHOWN, HELD_SHOWN + 1)
    assert node.worker in {one.session_id for one in view.held}
    assert fits_often(view)


async def test_of_what_others_have_set_nothing_comes_with_the_one_that_is_asked_for(node):
    node.set(DAY)
    node.set(DAY, name="other")
    node.set(DAY, name="later", ago_s=-2 * SKEW_S)
    servicer = BudgetServicer(node.desk, node.queries)
    named = await servicer.ListBudgets(pb.ListBudgetsRequest(name="team"), None)
    assert [one.name for one in named.budgets] == list(named.issued) == ["team"]
    assert list(named.ahead) == []
    everything = await servicer.ListBudgets(pb.ListBudgetsRequest(), None)
    assert [one.name for one in everything.budgets] == ["other", "team"]
    assert [one.name for one in everything.ahead] == ["later"]


async def test_a_flood_of_one_name_leaves_one_budget_which_acts_once(node):
    for number in range(50):
        node.set(replace(WIDE, limit=10**6 + number), ago_s=99 - number)
    node.set(DAY)
    await node.settle()
    await node.settle(30.0)
    assert [one.terms for one in await node.desk.listed()] == [DAY]
    assert node.actions == [("suspend", "worker")]


async def test_cutting_a_node_off_makes_no_kill_of_a_suspension(database):
    node = Budgeted(database, full=False)
    session = node.run().session_id
    node.set(KILL)
    node.use(HERE, session, COUNT_MAX)
    await node.settle()
    await node.settle(3600.0)
    assert (node.agents.kills, node.agents.suspended) == ([], {session})


async def test_a_member_takes_nothing_back_with_counts_below_zero(node):
    node.set(DAY)
    key = key_to_row(SlotKey("lie", "m", "standard", slot_number(node.clock.now_s)))
    for count in (-(10**6), float("-inf"), 1 << 63):
        row = pack([1, [count, 0, 0, 0, 0, 0, 0], "", "olga", "", ""])
        node.row(NEAR, LEDGER, key, row)
    await node.settle()
    assert (await node.budget()).tokens == 1000
    assert node.actions == [("suspend", "worker")]


async def test_a_member_that_claims_all_there_is_breaks_no_sum(node):
    node.set(Terms(AMOUNT_MAX - 1, "nusd", "day", "suspend"), name="money")
    for number in range(4):
        node.use(NEAR, f"lie{number}", COUNT_MAX, owner="olga")
    await node.settle()
    view = await node.budget("money")
    assert (view.tokens, view.percent) == (COUNT_MAX, 800)
    assert node.actions == [("suspend", "worker")]


async def test_a_member_cannot_say_whose_the_session_of_another_is(node):
    """It copies a session's row, with another owner, so that what is spent counts for him."""
    node.set(KILL)
    record = replace(node.sessions.get(node.worker), owner="otto", specializations=("crawl",))
    node.row(NEAR, SESSIONS, node.worker.encode(), session_to_row(record))
    node.set(replace(KILL, owner="otto"), name="otto")
    await node.settle()
    assert ((await node.budget("team")).tokens, (await node.budget("otto")).tokens) == (1000, 0)
    assert node.agents.kills == [node.worker]


async def test_what_an_agent_registers_brings_nobody_under_a_budget(node):
    entry = specialist("worker", "crawl", {"specializations": "crawl"})
    node.set(replace(KILL, owner="", specialization="crawl"))
    node.row(HERE, REGISTRY, registry_key(entry.place), registry_row(entry, Birth(1, 1)))
    await node.settle()
    assert (await node.budget()).tokens == 0
    assert node.untouched()
