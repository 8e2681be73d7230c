"""Standing kills: an order for who cannot be reached ends nobody that it must not end by then."""

import dataclasses

import pytest
from msgspec.structs import replace
from returned import (
    ADMIN,
    ANNA,
    BERT,
    DAY_S,
    GENESIS,
    HERE,
    NODE,
    NOW_S,
    OSCAR,
    SESSION,
    THERE,
    Returned,
    chance,
    entry,
)

from meshnode.app.commands.standing import LOOK_AGAIN_S, UNHEARD_S
from meshnode.app.sessions.registry import Registrar
from meshnode.core.commands.standing import CANCELLED, SETTLE_S
from meshnode.core.control.control import NoAuthorityError
from meshnode.core.control.entries import Cancel, StandingKill, entry_id_of, sign_entry
from meshnode.core.errors import PeerError
from meshnode.core.ids import SessionId
from meshnode.core.keys import Key, Signed
from meshnode.core.sessions.sessions import SESSIONS, State, session_from_row
from meshnode.store import standing

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("unsupervised")]
ORDER = StandingKill(session=SESSION.session_id, epoch=SESSION.session_epoch)


@pytest.fixture
def node(database):
    return Returned(database)


async def test_an_order_of_three_days_ago_is_carried_out_and_told(node):
    """The others show nothing unless this works."""
    (order_id,) = node.hear(entry(ORDER))
    node.meet()
    await node.settle()
    assert node.killed == [SESSION.session_id]
    assert [outcome for outcome, _ in node.outcomes] == ["applied"]
    row = session_from_row(node.published.rows[SESSIONS, SESSION.session_id.encode()])
    assert row.state is State.KILLED
    (told,) = row.orders
    assert told.split()[1] == "applied"
    assert node.control.get(order_id) is not None


@pytest.mark.parametrize("cancel_first", [True, False])
async def test_a_cancel_counts_whichever_of_the_two_comes_first(node, cancel_first):
    order = entry(ORDER)
    said = [order, entry(Cancel(entry_id_of(order)), at_s=NOW_S - DAY_S)]
    node.hear(*(reversed(said) if cancel_first else said))
    node.meet()
    await node.settle()
    assert node.untouched()


async def test_an_order_on_the_own_disk_waits_for_cancels_that_others_hold(node):
    """Cut off until now: whoever returns must not act upon what was taken back meanwhile."""
    (order_id,) = node.hear(entry(ORDER))
    await node.settle(UNHEARD_S - 1)
    assert node.untouched()
    node.hear(entry(Cancel(order_id), at_s=NOW_S - DAY_S))
    node.meet()
    await node.settle()
    assert node.untouched()


async def test_a_neighbour_that_never_agrees_does_not_keep_a_kill_back_for_ever(node):
    node.hear(entry(ORDER))
    await node.settle(UNHEARD_S)
    assert node.killed == [SESSION.session_id]


async def test_a_cancel_that_arrives_right_behind_its_order_is_in_time(node):
    """A node that was up, cut off, and hears days of entries in one repair."""
    node.meet()
    await node.settle()
    (order_id,) = node.hear(entry(ORDER))
    await node.settle(SETTLE_S / 2)
    node.hear(entry(Cancel(order_id), at_s=NOW_S - DAY_S))
    node.meet()
    await node.settle()
    assert node.untouched()


async def test_a_cancel_that_is_late_is_waited_for_until_a_neighbour_has_no_more(node):
    """The same over a link so slow that a moment is not enough."""
    node.meet()
    await node.settle()
    (order_id,) = node.hear(entry(ORDER))
    await node.settle(UNHEARD_S / 2)
    node.hear(entry(Cancel(order_id), at_s=NOW_S - DAY_S))
    node.meet()
    await node.settle()
    assert node.untouched()


async def test_a_cancel_between_the_journal_and_the_signal_stops_the_signal(node):
    (order_id,) = node.hear(entry(ORDER))
    node.meet()
    begin = node.database.run

    async def slow(*work):
        found = await begin(*work)
        if not node.control.held(Cancel):
            node.control.add(entry(Cancel(order_id), at_s=NOW_S), NOW_S)
        return found

    node.database.run = slow
    await node.settle()
    assert node.killed == []
    assert node.outcomes == [("refused", CANCELLED)]
    assert node.sessions.get(SESSION.session_id).state is State.RUNNING


async def test_an_expired_order_kills_nobody(node):
    node.hear(entry(ORDER, for_s=2 * DAY_S))
    node.meet()
    await node.settle()
    assert node.untouched()


async def test_an_order_that_expires_while_it_waits_kills_nobody(node):
    node.hear(entry(ORDER, at_s=NOW_S - 10, for_s=20))
    await node.settle(30.0)
    node.meet()
    await node.settle()
    assert node.untouched()


async def test_the_order_of_a_revoked_signer_is_refused_and_told(node):
    node.hear(entry(ORDER))
    node.revoke(ANNA)
    node.meet()
    await node.settle()
    assert node.killed == []
    assert [one.issuer for one in node.void] == [ANNA.public]
    assert node.sessions.get(SESSION.session_id) == SESSION


async def test_what_a_thief_has_ordered_costs_an_owner_one_word_an_order(database, monkeypatch):
    """Neither rows in the feed nor room on the disk: who comes after him needs both."""
    monkeypatch.setattr(standing, "MET_MAX", 8)
    names = [letter * 26 for letter in "abcdefgh"]
    sessions = [replace(SESSION, session_id=SessionId(name)) for name in names]
    node = Returned(database, sessions)
    orders = node.hear(*[entry(StandingKill(node=HERE)) for _ in range(20)])
    node.revoke(ANNA)
    node.meet()
    for _ in range(3):
        await node.settle(LOOK_AGAIN_S)
    assert sorted(one.order_id for one in node.void) == sorted(orders)
    assert (node.told, node.published.rows, node.rows()) == ([], {}, [])
    node.hear(entry(StandingKill(session=names[3], epoch=SESSION.session_epoch), by=BERT))
    node.meet()
    await node.settle()
    assert node.killed == [names[3]]


async def test_an_issuer_whose_share_is_full_does_not_hold_up_the_kill_of_another(
    node, monkeypatch
):
    monkeypatch.setattr(standing, "OF_ISSUER_MAX", 0)
    node.hear(entry(ORDER, at_s=NOW_S - 4 * DAY_S))
    node.meet()
    await node.settle()
    assert [outcome for outcome, _ in node.outcomes] == ["waits"]
    monkeypatch.setattr(standing, "OF_ISSUER_MAX", 1)
    await node.database.run(standing.begin, (b"met before", "s"), ANNA.public, NOW_S + DAY_S, NOW_S)
    node.hear(entry(ORDER, by=BERT))
    node.meet()
    await node.settle()
    assert node.killed == [SESSION.session_id]


async def test_an_observer_leaves_no_orders_and_takes_none_back(node):
    (order_id,) = node.hear(entry(ORDER))
    for said in (entry(ORDER, by=OSCAR), entry(Cancel(order_id), by=OSCAR)):
        with pytest.raises(NoAuthorityError):
            node.control.add(said, NOW_S)
    assert list(node.control.held(StandingKill)) == [order_id]
    assert node.control.held(Cancel) == {}
    node.meet()
    await node.settle()
    assert node.killed == [SESSION.session_id]


async def test_a_stranger_leaves_no_orders(node):
    with pytest.raises(NoAuthorityError):
        node.control.add(entry(ORDER, by=Key.new(chance)), NOW_S)
    node.meet()
    await node.settle()
    assert node.untouched()


async def test_another_operator_cannot_save_a_session_from_an_order(node):
    (order_id,) = node.hear(entry(ORDER))
    node.hear(entry(Cancel(order_id), by=BERT))
    node.meet()
    await node.settle()
    assert node.killed == [SESSION.session_id]


async def test_an_admin_can(node):
    (order_id,) = node.hear(entry(ORDER))
    node.hear(entry(Cancel(order_id), by=ADMIN))
    node.meet()
    await node.settle()
    assert node.untouched()


async def test_a_revoked_admin_cannot_any_more(node):
    (order_id,) = node.hear(entry(ORDER))
    node.hear(entry(Cancel(order_id), by=ADMIN))
    node.revoke(ADMIN)
    node.meet()
    await node.settle()
    assert node.killed == [SESSION.session_id]


async def test_an_agent_that_was_started_again_is_another_one(database):
    again = replace(
        SESSION, session_id=SessionId("t" * 26), session_epoch=43, created_at_s=NOW_S - 60.0
    )
    node = Returned(database, [replace(SESSION, state=State.CLOSED), again])
    node.hear(entry(ORDER), entry(StandingKill(agent="builder")))
    node.meet()
    await node.settle()
    assert (node.killed, node.told, node.rows()) == ([], [], [])


async def test_an_order_with_another_epoch_kills_nobody(node):
    node.hear(entry(replace(ORDER, epoch=SESSION.session_epoch + 1)))
    node.meet()
    await node.settle()
    assert node.untouched()


@pytest.mark.parametrize(
    "order",
    [
        replace(ORDER, node=THERE),
        StandingKill(node=THERE),
        StandingKill(agent="builder", node=THERE),
        StandingKill(session="u" * 26, epoch=42),
    ],
)
async def test_what_is_meant_for_another_owner_is_left_alone(node, order):
    node.hear(entry(order))
    node.meet()
    await node.settle()
    assert node.untouched()


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (StandingKill(), "names nobody"),
        (StandingKill(force=True), "names nobody"),
        (replace(ORDER, grace_s=61), "a grace lasts"),
        (replace(ORDER, grace_s=1 << 40), "a grace lasts"),
        (replace(ORDER, grace_s=-1), "a grace lasts"),
        (replace(ORDER, epoch=0), "with its epoch"),
        (StandingKill(agent="builder", epoch=42), "with its epoch"),
        (StandingKill(node="nowhere"), "not canonical"),
        (StandingKill(agent="b" * 300), "not a control entry"),
    ],
)
async def test_an_order_that_makes_no_sense_is_not_even_stored(node, order, said):
    with pytest.raises(PeerError, match=said):
        node.control.add(entry(order), NOW_S)
    assert node.control.held(StandingKill) == {}
    node.meet()
    await node.settle()
    assert node.untouched()


async def test_an_order_stands_for_seven_days_at_most(node):
    for at_s, for_s in ((NOW_S, 7 * DAY_S + 1), (NOW_S - 3 * DAY_S, 30 * DAY_S)):
        with pytest.raises(PeerError, match="expiry"):
            node.control.add(entry(ORDER, at_s=at_s, for_s=for_s), NOW_S)
    forever = sign_entry(ANNA, GENESIS.mesh_id, ORDER, chance, issued_s=NOW_S)
    with pytest.raises(PeerError, match="expiry"):
        node.control.add(forever, NOW_S)
    assert node.control.held(StandingKill) == {}


async def test_a_flipped_byte_makes_it_nobodys_word(node):
    order = entry(ORDER)
    mark = bytes([order.signature[0] ^ 1, *order.signature[1:]])
    with pytest.raises(PeerError):
        node.control.add(Signed(order.type, order.payload, mark), NOW_S)
    node.meet()
    await node.settle()
    assert node.untouched()


async def test_an_order_of_another_mesh_is_refused(node):
    said = sign_entry(ANNA, "m" * 52, ORDER, chance, issued_s=NOW_S, expires_s=NOW_S + 60)
    with pytest.raises(PeerError, match="another mesh"):
        node.control.add(said, NOW_S)
    assert node.control.held(StandingKill) == {}


async def test_what_was_carried_out_is_not_carried_out_again_after_a_restart(database):
    order = entry(StandingKill(agent="builder"))
    first = Returned(database)
    first.agents.killed = dataclasses.replace(first.agents.killed, gone=0, survivors=(7,))
    first.hear(order)
    first.meet()
    await first.settle()
    assert first.outcomes[0][0] == "failed", "so the session lives on, and still fits"
    second = Returned(database, [first.sessions.get(SESSION.session_id)])
    second.hear(order)
    second.meet()
    await second.settle()
    assert (second.killed, second.told) == ([], [])


async def test_a_kill_that_a_crash_cut_short_is_begun_again(database):
    order = entry(ORDER)
    first = Returned(database)
    first.agents.fault = OSError("the power went")
    first.hear(order)
    first.meet()
    with pytest.raises(OSError, match="power"):
        await first.settle()
    assert first.rows() == [(SESSION.session_id, None)]
    second = Returned(database)
    second.hear(order)
    second.meet()
    await second.settle()
    assert second.killed == [SESSION.session_id]
    assert second.rows() == [(SESSION.session_id, "applied")]


async def test_registering_a_victim_under_a_specialization_aims_nothing_at_it(node):
    """Orders go by what was fixed at the start: never by rows that anybody may write."""
    await Registrar(node.mesh.roster, node.published).register(
        {"agent_id": "builder", "specialization": "doomed"}
    )
    node.hear(entry(StandingKill(specialization="doomed")))
    node.meet()
    await node.settle()
    assert (node.killed, node.told, node.rows()) == ([], [], [])
    assert node.sessions.get(SESSION.session_id) == SESSION


async def test_an_order_from_the_future_does_not_reach_agents_that_start_before_it(node):
    node.hear(entry(StandingKill(node=HERE), at_s=NOW_S + DAY_S))
    node.meet()
    await node.settle()
    assert node.untouched()


async def test_a_disk_that_takes_nothing_keeps_a_kill_back_and_does_not_lose_it(node):
    node.hear(entry(ORDER))
    node.meet()
    node.database.run_now(
        lambda connection: connection.execute("ALTER TABLE standing RENAME TO away")
    )
    for _ in range(3):
        await node.settle(LOOK_AGAIN_S)
    assert node.killed == []
    assert [outcome for outcome, _ in node.outcomes] == ["waits"], "told once"
    node.database.run_now(
        lambda connection: connection.execute("ALTER TABLE away RENAME TO standing")
    )
    await node.settle(LOOK_AGAIN_S)
    assert node.killed == [SESSION.session_id]


async def test_the_owner_itself_signs_no_orders(node):
    """A node's key has no role, so a compromised member cannot end the sessions of others."""
    with pytest.raises(NoAuthorityError):
        node.control.add(entry(ORDER, by=NODE), NOW_S)
    node.meet()
    await node.settle()
    assert node.untouched()
