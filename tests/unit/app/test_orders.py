"""Standing kills as a node lists them: whose word counts for what became of them."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from returned import ADMIN, ANNA, BERT, GENESIS, HERE, NOW_S, ROLES, ROOT, SESSION, THERE, entry
from returned import chance as random_bytes

from meshnode.app.orders import Orders
from meshnode.core.control import ControlSet
from meshnode.core.entries import Cancel, StandingKill, entry_id_of, role_entry
from meshnode.core.ids import b32
from meshnode.core.roles import Role
from meshnode.core.sessions import State

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
        (one,) = self.orders.listed()
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
    listed = [one.standing.order_id for one in seen.orders.listed()]
    assert listed == [ids[1], ids[2], ids[0]]
