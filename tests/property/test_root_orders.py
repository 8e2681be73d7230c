"""Whatever the order in which roots are exchanged and keys promoted, all nodes answer alike."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from unit.core.ruling import ADMIN, GENESIS, NOW_S, OPERATOR, ROOT, STRANGER, asked, made_by

from meshnode.core.control.control import ControlSet
from meshnode.core.control.entries import Body, Forget, Revoke, entry_id_of, sign_entry
from meshnode.core.control.succession import RootKeys
from meshnode.core.feeds.headers import Header, sign_header
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key, Signed

chance = Random(74).randbytes
SECOND, THIRD, PROMOTED, BY_SECOND, BY_THIRD = (Key.new(chance) for _ in range(5))
NODES = [Key.new(chance) for _ in range(4)]
KEYS = [ROOT, SECOND, THIRD, ADMIN, PROMOTED, BY_SECOND, BY_THIRD, OPERATOR, STRANGER]


def said(issuer: Key, body: Body) -> Signed:
    return sign_entry(issuer, GENESIS.mesh_id, body, chance, issued_s=NOW_S, expires_s=None)


def forgotten(issuer: Key, node: Key, seq: int) -> Signed:
    node_id, zero = node_id_of(node.public), bytes(32)
    header = Header(GENESIS.mesh_id, node_id, 1, 1, seq, seq, zero, zero, float(seq))
    return said(issuer, Forget(sign_header(node, header)))


POOL = [
    said(ROOT, RootKeys(2, (ROOT.public, SECOND.public))),
    said(ROOT, RootKeys(3, (ROOT.public, SECOND.public, THIRD.public))),
    said(THIRD, RootKeys(4, (ROOT.public, THIRD.public))),
    made_by(ROOT, ADMIN, "admin"),
    made_by(ADMIN, PROMOTED, "operator"),
    made_by(THIRD, PROMOTED, "admin"),
    made_by(SECOND, BY_SECOND, "admin"),
    made_by(THIRD, BY_THIRD, "admin"),
    made_by(BY_THIRD, OPERATOR, "operator"),
    made_by(PROMOTED, STRANGER, "operator"),
    said(ADMIN, Revoke("key", PROMOTED.public)),
    said(BY_THIRD, Revoke("key", OPERATOR.public, (OPERATOR.public,))),
    said(SECOND, Revoke("key", BY_THIRD.public)),
    *(
        forgotten(issuer, node, seq)
        for node, issuers in zip(
            NODES,
            ((PROMOTED, ADMIN), (BY_THIRD, OPERATOR), (BY_SECOND, STRANGER), (BY_THIRD,)),
            strict=True,
        )
        for seq, issuer in enumerate(reversed(issuers), 1)
    ),
]


def answers(control: ControlSet) -> tuple[object, ...]:
    """Return what a set holds, and what is judged by it."""
    return (
        {entry_id_of(entry) for entry in control.entries()},
        dict(control.forgotten),
        [control.role_of(key.public) for key in KEYS],
        control.succession.present,
        set(control.revocations.nodes),
    )


@settings(max_examples=150)
@given(
    st.lists(st.sampled_from(POOL), unique=True),
    st.sampled_from(POOL[:6]),
    st.randoms(use_true_random=False),
)
def test_any_order_of_arrival_gives_the_same_set_and_the_same_answers(
    heard: list[Signed], late: Signed, random: Random
):
    """One of those on which much hangs comes last: nothing that follows looks again."""
    first, second = ControlSet(GENESIS), ControlSet(GENESIS)
    early = [entry for entry in heard if entry is not late]
    first.add_all([*first.add_all(early, NOW_S), late], NOW_S)
    second.add_all(random.sample([*early, late], len(early) + 1), NOW_S)
    third = asked(ControlSet(GENESIS), [*early, late], answers)
    assert answers(first) == answers(second) == answers(third)
