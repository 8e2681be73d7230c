"""Standing kills as a node lists them: whose word counts for what became of them."""

from types import SimpleNamespace

import pytest
from msgspec.structs import replace
from returned import ADMIN, ANNA, BERT, GENESIS, HERE, NOW_S, ROLES, ROOT, SESSION, THERE, entry
from returned import chance as random_bytes

from meshnode.app.commands import orders
from meshnode.app.commands.orders import RESULTS_IN_ALL, RESULTS_SHOWN, Orders
from meshnode.app.pieces import finished
from meshnode.app.sessions.opening import TEXT_CHARS_MAX
from meshnode.client.connection.connection import ANSWER_BYTES_MAX
from meshnode.core.control.control import ControlSet
from meshnode.core.control.entries import Cancel, StandingKill, entry_id_of, role_entry
from meshnode.core.control.roles import Role
from meshnode.core.ids import b32, session_id_of
from meshnode.core.sessions.sessions import State
from meshnode.rpc.orders import order_to_wire

ORDER = StandingKill(session=SESSION.session_id, epoch=SESSION.session_epoch, node=HERE)
ENDED = replace(SESSION, state=State.KILLED, ended_at_s=float(NOW_S))


class Seen:
    """What one node holds."""

    def __init__(self) -> None:
        self.control = ControlSet(GENESIS)
        self.rows = [(HERE, SESSION)]
        for key, role in ROLES:
            said = Role(key.public, role, "", ROOT.public, NOW_S, None)
            self.control.add(role_entry(ROOT, GENESIS.mesh_id, said, random_bytes), NOW_S)
        tables = SimpleNamespace(sessions=lambda: self.rows)
        mesh = SimpleNamespace(control=self.control, tables=tables)
        self.orders = Orders(SimpleNamespace(mesh=mesh, name_of=lambda node: node[:4]))

    def say(self, body, **how):
        signed = entry(body, **how)
        self.control.add(signed, NOW_S)
        return entry_id_of(signed)

    @property
    def only(self):
        (one,) = finished(self.orders.listed())
        return one


@pytest.fixture
def seen():
    return Seen()


@pytest.mark.parametrize(
    ("by", "state"), [(ANNA, "cancelled"), (ADMIN, "cancelled"), (BERT, "standing")]
)
def test_an_order_is_cancelled_by_whoever_may(seen, by, state):
    order_id = seen.say(ORDER)
    assert (seen.only.state, seen.only.results, seen.only.node_name) == ("standing", (), HERE[:4])
    seen.say(Cancel(order_id), by=by)
    assert seen.only.state == state


def test_an_order_for_a_session_that_has_ended_is_done(seen):
    seen.say(ORDER)
    seen.rows = [(HERE, ENDED)]
    assert seen.only.state == "done"


def test_an_order_that_was_taken_back_is_not_done_by_an_agent_that_ends_by_itself(seen):
    order_id = seen.say(ORDER)
    seen.say(Cancel(order_id), by=ANNA)
    for outcome, state in (("", "cancelled"), ("failed", "cancelled"), ("applied", "done")):
        told = (f"{b32(order_id)} {outcome} so it is",) if outcome else ()
        seen.rows = [(HERE, replace(ENDED, state=State.CLOSED, orders=told))]
        assert seen.only.state == state


def test_an_order_of_a_signer_without_a_role_is_void(seen):
    seen.say(ORDER)
    seen.control.role_of = lambda _key: ""
    assert seen.only.state == "void"
    seen.rows = [(HERE, ENDED)]
    assert seen.only.state == "void"


def test_what_the_owner_says_is_the_result(seen):
    order_id = seen.say(ORDER)
    told = f"{b32(order_id)} failed 1 process is still there"
    seen.rows = [(HERE, replace(SESSION, orders=("other applied gone", told, "odd")))]
    (result,) = seen.only.results
    assert (result.outcome, result.detail) == ("failed", "1 process is still there")
    assert (result.session.agent_id, result.node_name) == ("builder", HERE[:4])


def test_another_member_cannot_say_that_it_is_done(seen):
    """A row of its own, with the id and the epoch of the session that is meant."""
    order_id = seen.say(ORDER)
    lie = replace(ENDED, orders=(f"{b32(order_id)} applied 9 processes are gone",))
    seen.rows = [(THERE, lie), (HERE, SESSION), (THERE, replace(lie, agent_id="x"))]
    assert (seen.only.state, seen.only.results) == ("standing", ())


def test_a_session_that_is_not_meant_has_no_say(seen):
    order_id = seen.say(StandingKill(specialization="code"))
    seen.rows = [(HERE, replace(SESSION, orders=(f"{b32(order_id)} applied gone",)))]
    assert seen.only.results == ()


def test_the_newest_comes_first(seen):
    ids = [seen.say(ORDER, at_s=NOW_S - ago_s) for ago_s in (300, 100, 200)]
    listed = [one.standing.order_id for one in finished(seen.orders.listed())]
    assert listed == [ids[1], ids[2], ids[0]]


LONG = "\U0001f600"


def liar(order_id: bytes, number: int):
    """Make a session of another member, with one row of which no more fits an answer."""
    told = (f"{b32(order_id)} failed {LONG * 3000}",)
    return THERE, replace(
        SESSION,
        session_id=session_id_of(THERE, number),
        session_epoch=number,
        agent_id=LONG * TEXT_CHARS_MAX,
        orders=told,
    )


def test_a_member_that_tells_of_many_sessions_hides_no_result_and_breaks_no_list(seen):
    order_id = seen.say(StandingKill(specialization="docs"))
    told = replace(SESSION, orders=(f"{b32(order_id)} applied gone",))
    copy = replace(told, orders=(f"{b32(order_id)} failed a copy",))
    lies = [liar(order_id, number) for number in range(1, 2 * RESULTS_SHOWN + 1)]
    seen.rows = [*lies, (THERE, copy), (HERE, told)]
    view = seen.only
    assert (len(view.results), view.results_more) == (RESULTS_SHOWN, RESULTS_SHOWN + 1)
    assert [one.outcome for one in view.results if one.node_id == HERE] == ["applied"]
    assert not any(one.detail == "a copy" for one in view.results)
    of_each = order_to_wire(view).ByteSize() / RESULTS_SHOWN
    assert of_each * RESULTS_IN_ALL < ANSWER_BYTES_MAX


def test_of_many_orders_fewer_results_each_are_shown(seen, monkeypatch):
    monkeypatch.setattr(orders, "RESULTS_IN_ALL", 6)
    kill = StandingKill(specialization="docs")
    ids = [seen.say(kill, at_s=NOW_S - ago_s) for ago_s in (300, 200)]
    seen.rows = [liar(ids[number % 2], number) for number in range(1, 11)]
    found = finished(seen.orders.listed())
    assert [(len(one.results), one.results_more) for one in found] == [(3, 2), (3, 2)]
