"""What one entry costs does not grow with what is held: nobody's key makes all nodes slow."""

from collections import Counter
from collections.abc import Callable

import pytest
from unit.core.ruling import (
    ADMIN,
    ADMITTER,
    GENESIS,
    NOW_S,
    OPERATOR,
    ROOT,
    STRANGER,
    chance,
    made_by,
    ruled,
    word,
)

from meshnode.core.commands.standing import due
from meshnode.core.control.control import ControlSet
from meshnode.core.control.entries import Body, Forget, Revoke, StandingKill, sign_entry
from meshnode.core.control.revocations import Revocations
from meshnode.core.control.settings import Budget, Terms
from meshnode.core.feeds.headers import Header, sign_header
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.ledger.budgets import allowances
from meshnode.core.sessions.sessions import SessionRecord, State

FEW, MANY = 3, 12  # forgotten nodes, and as many roles of those who have forgotten them
STEPS = ("has_key", "spares", "cuts_off")  # `spares` is asked of each role that may count


def said(issuer: Key, body: Body, issued_s: int = NOW_S, expires_s: int | None = None) -> Signed:
    return sign_entry(issuer, GENESIS.mesh_id, body, chance, issued_s=issued_s, expires_s=expires_s)


def forget(issuer: Key, seq: int, node: Key | None = None) -> Signed:
    node = node or Key.new(chance)
    node_id, zero = node_id_of(node.public), bytes(32)
    header = Header(GENESIS.mesh_id, node_id, 1, 1, seq, seq, zero, zero, float(NOW_S))
    return said(issuer, Forget(sign_header(node, header)), NOW_S + seq)


def peopled(count: int) -> ControlSet:
    """An operator with that many roles of each kind, who has forgotten as many nodes; its admin."""
    control = ruled()
    one_node = Key.new(chance)
    roles = [made_by(ADMIN, OPERATOR, "operator") for _ in range(count)]
    roles += [made_by(ADMITTER, OPERATOR, "operator", word()) for _ in range(count)]
    roles += [made_by(ADMIN, ADMIN, "operator") for _ in range(count)]
    others = [Key.new(chance) for _ in range(count)]
    roles += [made_by(ADMIN, key, "operator") for key in others]
    forgets = [forget(key, seq) for seq in range(1, count + 1) for key in (ADMIN, OPERATOR)]
    forgets += [forget(key, seq, one_node) for seq, key in enumerate(others, 1)]
    assert control.add_all([*roles, *forgets], NOW_S) == []
    assert len(control.forgotten) == 2 * count + 1
    return control


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count each time that it is looked up what was revoked."""
    counted: Counter[str] = Counter()

    def counting(name: str, real: Callable[..., bool]) -> Callable[..., bool]:
        def counts(*args: object) -> bool:
            counted[name] += 1
            return real(*args)

        return counts

    for name in STEPS:
        monkeypatch.setattr(Revocations, name, counting(name, getattr(Revocations, name)))
    return counted


ENTRIES = {
    "an admin revokes a node": lambda: said(ADMIN, Revoke("node", Key.new(chance).public)),
    "the root revokes a node": lambda: said(ROOT, Revoke("node", Key.new(chance).public)),
    "an operator forgets a node": lambda: forget(OPERATOR, 99),
    "an operator gets another role": lambda: made_by(ADMIN, OPERATOR, "operator"),
    "an operator gets one by an invite": lambda: made_by(ADMITTER, OPERATOR, "operator", word()),
    "an admin gets another role": lambda: made_by(ADMIN, ADMIN, "operator"),
    "an admin is made one again": lambda: made_by(ROOT, ADMIN, "admin"),
    "another admin is made": lambda: made_by(ROOT, STRANGER, "admin"),
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_an_entry_asks_as_much_whatever_is_held(entry: Callable[[], Signed], work: Counter[str]):
    spent = []
    for count in (FEW, MANY):
        control = peopled(count)
        work.clear()
        assert control.add(entry(), NOW_S)
        spent.append(work.total())
    assert spent[0] == spent[1] <= 8


def test_who_is_revoked_again_and_again_is_looked_at_once(work: Counter[str]):
    """By one key: what it says first counts, and after that it can only spare more."""
    control = peopled(MANY)
    assert control.add(said(ADMIN, Revoke("key", ADMIN.public)), NOW_S)
    assert control.forgotten == {}
    work.clear()
    again = [said(ADMIN, Revoke("key", ADMIN.public, (OPERATOR.public,))) for _ in range(3)]
    assert control.add_all(again, NOW_S) == []
    assert control.forgotten == {}
    assert work["spares"] <= 3 * 2  # the two kinds of role of the one that is named


def test_a_revocation_asks_of_each_role_once_that_hangs_on_it(work: Counter[str]):
    for count in (FEW, MANY):
        control = peopled(count)
        work.clear()
        assert control.add(said(ROOT, Revoke("key", ADMIN.public)), NOW_S)
        assert work["spares"] <= count + 4
        assert control.forgotten == {}


def test_budgets_and_orders_ask_once_for_all_of_one_issuer(work: Counter[str]):
    control = peopled(MANY)
    terms = Terms(1, "tokens", "day", "suspend", 80)
    budgets = [said(OPERATOR, Budget(f"budget-{number}", terms)) for number in range(MANY)]
    late = NOW_S + 60
    orders = [said(OPERATOR, StandingKill(agent="bot"), expires_s=late) for _ in range(MANY)]
    assert control.add_all([*budgets, *orders], NOW_S) == []
    assert control.add(said(ROOT, Revoke("key", ADMIN.public, (OPERATOR.public,))), NOW_S)
    work.clear()
    assert len(allowances(control, (), NOW_S)) == MANY
    session = SessionRecord("s", 1, "bot", State.RUNNING, 1.0, 2.0)
    assert len(due(control, node_id_of(OPERATOR.public), [session], set(), NOW_S)) == 1
    assert work["spares"] <= 2, "the operator's two kinds of role"


FOLLOWS = {
    "its node is revoked": (Revoke("node", ADMITTER.public), ""),
    "its node is, and it is spared": (
        Revoke("node", ADMITTER.public, (OPERATOR.public,)),
        "operator",
    ),
    "its admin is revoked": (Revoke("key", ADMIN.public), ""),
    "its admin is, and it is spared": (Revoke("key", ADMIN.public, (OPERATOR.public,)), "operator"),
    "it is revoked": (Revoke("key", OPERATOR.public, (OPERATOR.public,)), ""),
}


@pytest.mark.parametrize(("body", "role"), FOLLOWS.values(), ids=FOLLOWS)
def test_what_was_answered_before_is_worked_out_anew_by_what_concerns_it(body: Body, role: str):
    control = ruled()
    node = Key.new(chance)
    control.add(made_by(ADMITTER, OPERATOR, "operator", word()), NOW_S)
    control.add(forget(OPERATOR, 1, node), NOW_S)
    control.take_reconsidered()
    assert control.role_of(OPERATOR.public) == "operator"
    assert control.add(said(ROOT, body), NOW_S)
    assert control.role_of(OPERATOR.public) == role
    assert bool(control.forgotten) == bool(role)
    assert control.take_reconsidered() == (set() if role else {node_id_of(node.public)})
    if not role and body.name != OPERATOR.public:
        spared = Revoke(body.what, body.name, (OPERATOR.public,))
        assert control.add(said(ROOT, spared), NOW_S)
        assert control.role_of(OPERATOR.public) == "operator"
        assert control.take_reconsidered() == {node_id_of(node.public)}
