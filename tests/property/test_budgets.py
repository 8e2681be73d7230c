"""Budgets: which count does not hang on the order; nobody is stopped early, twice, or unheard."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from meshnode.core.control.control import ControlSet
from meshnode.core.control.entries import Revoke, role_entry, sign_entry
from meshnode.core.control.roles import Role
from meshnode.core.control.settings import AMOUNT_MAX, Budget, Terms
from meshnode.core.ids import SessionId
from meshnode.core.keys import Key
from meshnode.core.ledger.budgets import (
    IN_FORCE_MAX,
    OF_ONE_MAX,
    SKEW_S,
    Allowance,
    Heard,
    Latches,
    Spent,
    Standing,
    allowances,
    amount_text,
    holds,
    judge,
    parse_limit,
    window_of,
)
from meshnode.core.membership.genesis import Genesis
from meshnode.core.sessions.sessions import SessionRecord, State

NOW_S = 1_790_000_000
chance = Random(11).randbytes
ROOT, ANNA, BERT, ADMIN, OSCAR = (Key.new(chance) for _ in range(5))
GENESIS = Genesis((ROOT.public,), 1, "test", bytes(16))
SIGNERS = (ANNA, BERT, ADMIN)
ROLES = [
    role_entry(ROOT, GENESIS.mesh_id, Role(key.public, role, "", ROOT.public, 1, None), chance)
    for key, role in ((ANNA, "operator"), (BERT, "operator"), (ADMIN, "admin"))
]
REVOKED = sign_entry(ROOT, GENESIS.mesh_id, Revoke("key", ADMIN.public), chance, issued_s=NOW_S)
terms = st.builds(
    Terms,
    st.integers(1, 10**12),
    st.sampled_from(["nusd", "tokens"]),
    st.sampled_from(["hour", "day", "month"]),
    st.sampled_from(["suspend", "kill"]),
    st.integers(1, 100),
    owner=st.sampled_from(["", "olga"]),
    specialization=st.sampled_from(["", "crawl"]),
)
said = st.tuples(
    st.sampled_from(SIGNERS),
    st.builds(Budget, st.sampled_from(["a", "b"]), st.none() | terms),
    st.integers(NOW_S - 3, NOW_S + SKEW_S + 2),
)
spent = st.tuples(
    st.integers(0, 10**13),
    st.integers(0, 10**13),
    st.dictionaries(st.sampled_from(["m", "n"]), st.integers(1, 10**13)),
).map(lambda said: Spent(*said))
heard = st.tuples(st.integers(1, 5), st.integers(0, 5)).map(lambda n: Heard(n[0], n[0] + n[1]))
SESSIONS = [
    SessionRecord(SessionId(name), 7, name, state, 0.0, 0.0, specializations=specs, owner=owner)
    for name, state, specs, owner in (
        ("a", State.RUNNING, ("crawl",), "olga"),
        ("b", State.SUSPENDED, (), "olga"),
        ("c", State.IDLE, ("crawl",), None),
        ("d", State.PENDING, ("crawl",), "olga"),
        ("e", State.CLOSED, ("crawl",), "olga"),
    )
]


def held(entries) -> ControlSet:
    control = ControlSet(GENESIS)
    assert control.add_all(entries, NOW_S) == []
    return control


@given(st.lists(said, max_size=8), st.randoms(use_true_random=False), st.booleans())
def test_any_order_of_entries_gives_the_same_budgets(words, random, revoked):
    signed = [
        sign_entry(by, GENESIS.mesh_id, body, chance, issued_s=at_s) for by, body, at_s in words
    ]
    entries = [*ROLES, *signed, *([REVOKED] if revoked else [])]
    found = allowances(held(entries), (), NOW_S)
    shuffled = entries * 2
    random.shuffle(shuffled)
    assert allowances(held(shuffled), (), NOW_S) == found
    for one in found.values():
        assert one.issued_s <= NOW_S + SKEW_S
        assert not (revoked and one.issuer == ADMIN.public)


@given(st.lists(said, max_size=8))
def test_what_an_admin_has_set_counts_whatever_operators_say(words):
    signed = [
        sign_entry(by, GENESIS.mesh_id, body, chance, issued_s=at_s) for by, body, at_s in words
    ]
    mine = sign_entry(
        ADMIN,
        GENESIS.mesh_id,
        Budget("a", Terms(1, "tokens", "day", "kill")),
        chance,
        issued_s=NOW_S + SKEW_S,
    )
    others = [one for one, (by, body, _) in zip(signed, words, strict=True) if by is not ADMIN]
    assert allowances(held([*ROLES, *others, mine]), (), NOW_S)["a"].by_admin


def test_what_an_admin_has_removed_is_free_for_a_later_word_and_for_none_before():
    terms = Terms(1, "tokens", "day", "kill")
    for by, later_s, counts in ((ANNA, 1, True), (ANNA, -1, False), (ADMIN, 1, True)):
        entries = [
            sign_entry(ADMIN, GENESIS.mesh_id, Budget("a", None), chance, issued_s=NOW_S),
            sign_entry(by, GENESIS.mesh_id, Budget("a", terms), chance, issued_s=NOW_S + later_s),
        ]
        assert ("a" in allowances(held([*ROLES, *entries]), (), NOW_S)) is counts


@given(terms, spent, heard)
def test_nobody_is_killed_on_part_of_the_mesh_and_nothing_is_done_below_a_limit(one, so_far, n):
    verdict = judge(one, so_far, n)
    amount = so_far.nusd if one.unit == "nusd" else so_far.tokens
    assert bool(verdict.action) == (amount >= one.limit)
    assert (verdict.standing is Standing.EXCEEDED) == bool(verdict.action)
    if verdict.action == "kill":
        assert n.is_full
        assert one.then == "kill"
    if not n.is_full:
        assert f"{n.heard} of {n.known} nodes heard" in verdict.reason
    if one.unit == "nusd" and so_far.unpriced:
        assert "no price" in verdict.reason


@given(terms, st.lists(st.tuples(spent, heard, st.integers(0, 5)), max_size=20))
def test_each_session_meets_a_budget_once_a_window(one, looks):
    allowance = Allowance(bytes(16), "a", one)
    done, told = set(), Latches()
    acted, news = [], []
    for so_far, n, hours in looks:
        window = window_of(one.per, NOW_S + 3600 * hours)
        verdict = judge(one, so_far, n)
        due = holds(allowance, window, verdict, SESSIONS, done)
        done |= {hold.key for hold in due}
        acted += [(window, hold.session.session_id) for hold in due]
        news += [(window, word) for word in told.step(bytes(16), window, verdict.standing)]
        assert not due or verdict.standing is Standing.EXCEEDED
        assert all(hold.session.state not in {State.PENDING, State.CLOSED} for hold in due)
    assert len(acted) == len(set(acted))
    hours = [hour for _, _, hour in looks]
    if hours == sorted(hours):  # a clock that is set back may tell again, but never acts again
        assert len(news) == len(set(news))


@given(st.integers(1, AMOUNT_MAX - 1), st.sampled_from(["nusd", "tokens"]))
def test_every_amount_is_read_as_it_is_written(amount, unit):
    assert parse_limit(amount_text(amount, unit)) == (amount, unit)


def test_a_flood_of_one_issuer_leaves_the_budgets_of_others_in_force():
    control = held(ROLES)
    for number in range(OF_ONE_MAX + 9):
        body = Budget(f"flood{number}", Terms(1, "tokens", "hour", "kill"))
        control.add(sign_entry(ANNA, GENESIS.mesh_id, body, chance, issued_s=1), NOW_S)
    mine = Budget("team", Terms(1, "tokens", "hour", "kill"))
    control.add(sign_entry(BERT, GENESIS.mesh_id, mine, chance, issued_s=NOW_S), NOW_S)
    found = allowances(control, (), NOW_S)
    assert not found["team"].ignored
    assert sum(one.ignored for one in found.values()) == 9
    assert OF_ONE_MAX < IN_FORCE_MAX
