"""The control set is a function of what was ever heard and of the time, whatever the order."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.core.control import control as control_module
from meshnode.core.control.control import ControlSet
from meshnode.core.control.entries import (
    CANCEL_LIFE_S_MAX,
    NEVER_S,
    Body,
    Cancel,
    Forget,
    Revoke,
    StandingKill,
    entry_from_signed,
    entry_id_of,
    role_entry,
    sign_entry,
)
from meshnode.core.control.roles import Role
from meshnode.core.control.settings import Policy
from meshnode.core.effects import Send
from meshnode.core.errors import PeerError
from meshnode.core.feeds.headers import Header, sign_header
from meshnode.core.feeds.messages import BucketHashes, Digest, Pull, Vector
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.reconcile import Replication
from meshnode.core.ids import NodeId, node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.membership.genesis import Genesis

chance = Random(71).randbytes
ROOT, ADMIN, OPERATOR, OTHER, STRANGER, NODE = (Key.new(chance) for _ in range(6))
GENESIS = Genesis((ROOT.public,), 1, "test", bytes(16))
HOUR_S = 3600
NOW_S = 1_790_000_000
ISSUED_MAX = 5  # in these tests


def role(issuer: Key, subject: Key, name: str) -> Signed:
    value = Role(subject.public, name, "", issuer.public, NOW_S, None)
    return role_entry(issuer, GENESIS.mesh_id, value, chance)


def said(issuer: Key, body: Body, issued_s: int = NOW_S, expires_s: int | None = None) -> Signed:
    return sign_entry(issuer, GENESIS.mesh_id, body, chance, issued_s=issued_s, expires_s=expires_s)


@contextmanager
def bounded() -> Iterator[None]:
    """Let every issuer have a few entries only."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ISSUED_MAX", "ISSUED_BY_ADMIN_MAX"):
            patch.setattr(control_module, name, ISSUED_MAX)
        yield


def head(seq: int) -> Header:
    node_id = node_id_of(NODE.public)
    zero = bytes(32)
    return sign_header(
        NODE, Header(GENESIS.mesh_id, node_id, 1, 1, seq, seq, zero, zero, float(seq))
    )


ROLES = [
    role(ROOT, ADMIN, "admin"),
    role(ADMIN, OPERATOR, "operator"),
    role(ADMIN, OTHER, "observer"),
]
REVOCATIONS = [
    said(ADMIN, Revoke("key", OPERATOR.public)),
    said(OTHER, Revoke("key", OTHER.public)),
]
STAYING = [*ROLES, *REVOCATIONS]
POOL = [
    *ROLES,
    *(said(OPERATOR, StandingKill(agent="a"), NOW_S + n, NOW_S + n * 900) for n in range(1, 9)),
    *(said(OPERATOR, Cancel(bytes(16)), NOW_S, NOW_S + n * HOUR_S) for n in range(1, 3)),
    *(said(key, Policy("p", {"n": n}), NOW_S + n) for key in (ADMIN, OPERATOR) for n in range(3)),
    said(ADMIN, Policy("p", None), NOW_S + 9),
    *(said(ADMIN, Forget(head(seq))) for seq in (3, 9, 5)),
    *REVOCATIONS,
    *(said(STRANGER, body) for body in (Policy("p", {}), Forget(head(7)))),
    said(OTHER, Policy("p", {})),
    said(OPERATOR, Revoke("key", ADMIN.public)),
]
BY_ID = {entry_id_of(entry): entry for entry in POOL}
FORBIDDEN = {entry_id_of(entry) for entry in POOL[-4:]}


def model(heard: list[Signed], now_s: int) -> set[bytes]:
    """What a set must hold: naively, from everything ever heard, roles and revocations first."""
    kept = {entry_id_of(entry) for entry in heard if entry in STAYING}
    by_issuer: dict[bytes, dict[Any, tuple[int, int, bytes]]] = {}
    for signed in heard:
        entry = entry_from_signed(signed, GENESIS.mesh_id)
        entry_id = entry_id_of(signed)
        if entry_id in kept | FORBIDDEN or entry.expires_s <= now_s:
            continue
        place = (entry.expires_s, entry.issued_s, entry_id)
        slots = by_issuer.setdefault(entry.issuer, {})
        slot = (entry.kind, entry.slot) if entry.slot else entry_id
        slots[slot] = max(place, slots.get(slot, place))
    for slots in by_issuer.values():
        kept |= {place[2] for place in sorted(slots.values())[-ISSUED_MAX:]}
    return kept


def held_by(control: ControlSet) -> set[bytes]:
    return {entry_id_of(entry) for entry in control.entries()}


@settings(max_examples=150)
@given(
    order=st.lists(st.sampled_from(POOL), max_size=60),
    moments=st.lists(st.integers(0, 3 * HOUR_S), max_size=60),
)
def test_any_order_and_repetition_gives_the_same_set(order: list[Signed], moments: list[int]):
    with bounded():
        control = ControlSet(GENESIS)
        control.add_all(ROLES, NOW_S)
        end_s = NOW_S + max(moments, default=0)
        for entry, past_s in zip_longest(order, sorted(moments)):
            if entry is not None:
                add(control, entry, end_s if past_s is None else NOW_S + past_s)
        control.expire(end_s)
        assert held_by(control) == model([*ROLES, *order], end_s)
        fresh = ControlSet(GENESIS)
        refused = fresh.add_all(reversed([*ROLES, *order]), end_s)
    assert {entry_id_of(entry) for entry in refused} <= FORBIDDEN
    assert fresh.root() == control.root()
    assert fresh.forgotten == control.forgotten


def add(control: ControlSet, entry: Signed, now_s: int) -> None:
    try:
        control.add(entry, now_s)
    except PeerError:
        assert entry_id_of(entry) in FORBIDDEN


class Peer:
    """Everything replicated that one node holds, and its own clock."""

    def __init__(self, off_s: int) -> None:
        self.off_s = off_s
        self.control = ControlSet(GENESIS)
        own = OwnFeed(Key.new(chance), GENESIS.mesh_id, GENESIS.limits, 1)
        self.held = Replication(GENESIS, own, self.control)
        self.id = own.origin

    def take(self, source: NodeId, message: object, now_s: int) -> list[Any]:
        match message:
            case Digest():
                outcome = self.held.on_digest(source, message)
            case BucketHashes():
                outcome = self.held.on_bucket_hashes(source, message)
            case Vector():
                outcome = self.held.on_vector(source, message, now_s)
            case Pull():
                outcome = self.held.on_pull(source, message)
            case Signed():
                outcome = self.held.on_control(message, now_s + self.off_s)
            case _:
                raise AssertionError(message)
        return [effect.message for effect in outcome.effects if isinstance(effect, Send)]


def reconciled(one: Peer, other: Peer, now_s: int) -> int:
    """Let both begin a reconciliation; return how many messages it took until silence."""
    for peer in (one, other):
        peer.control.expire(now_s + peer.off_s)
    wire = [(one, other, one.held.digest()), (other, one, other.held.digest())]
    count = 0
    while wire:
        source, target, message = wire.pop(0)
        count += 1
        assert count < 500, "they never come to an end"
        wire += [(target, source, answer) for answer in target.take(source.id, message, now_s)]
    return count


QUIET = 3  # two digests, and one that says what has expired where


@settings(max_examples=100)
@given(
    mine=st.sets(st.sampled_from(range(len(POOL)))),
    theirs=st.sets(st.sampled_from(range(len(POOL)))),
    off_s=st.integers(-HOUR_S, HOUR_S),
    moments=st.lists(st.integers(0, 4 * HOUR_S), min_size=1, max_size=6),
)
def test_nodes_whose_clocks_are_an_hour_apart_converge_and_go_quiet(
    mine: set[int], theirs: set[int], off_s: int, moments: list[int]
):
    with bounded():
        one, other = Peer(0), Peer(off_s)
        one.control.add_all([*ROLES, *(POOL[number] for number in mine)], NOW_S)
        other.control.add_all([*ROLES, *(POOL[number] for number in theirs)], NOW_S + off_s)
        for past_s in sorted(moments):
            now_s = NOW_S + past_s
            for _ in range(3):
                reconciled(one, other, now_s)
            assert reconciled(one, other, now_s) <= QUIET
            heard = [*ROLES, *(POOL[number] for number in mine | theirs)]
            behind, ahead = sorted((one, other), key=lambda peer: peer.off_s)
            both = model(heard, now_s + ahead.off_s)
            assert held_by(ahead.control) == both
            assert both <= held_by(behind.control)
            for entry_id in held_by(behind.control) - both:
                entry = entry_from_signed(BY_ID[entry_id], GENESIS.mesh_id)
                assert now_s + behind.off_s < entry.expires_s <= now_s + ahead.off_s
        end_s = NOW_S + CANCEL_LIFE_S_MAX + 2 * HOUR_S
        reconciled(one, other, end_s)
        assert one.control.root() == other.control.root()
        assert reconciled(one, other, end_s) == 2
        assert all(
            entry_from_signed(entry, GENESIS.mesh_id).expires_s == NEVER_S
            for entry in one.control.entries()
        )


@settings(max_examples=100)
@given(
    mine=st.sets(st.sampled_from(range(len(POOL)))),
    theirs=st.sets(st.sampled_from(range(len(POOL)))),
    off_s=st.integers(-HOUR_S, HOUR_S),
    past_s=st.integers(0, 4 * HOUR_S),
)
def test_who_asks_is_abreast_soon_and_then_holds_all_that_its_neighbour_does(
    mine: set[int], theirs: set[int], off_s: int, past_s: int
):
    with bounded():
        one, other = Peer(0), Peer(off_s)
        one.control.add_all([*ROLES, *(POOL[number] for number in mine)], NOW_S)
        other.control.add_all([*ROLES, *(POOL[number] for number in theirs)], NOW_S + off_s)
        now_s = NOW_S + past_s
        for peer in (one, other):
            peer.control.expire(now_s + peer.off_s)
        for _ in range(3):
            asked = one.held.digest()
            assert asked.asks is not one.held.abreast
            wire = [(one, other, asked)]
            while wire:
                source, target, message = wire.pop(0)
                was = one.held.abreast
                answers = target.take(source.id, message, now_s)
                wire += [(target, source, answer) for answer in answers]
                if one.held.abreast and not was:
                    assert missing(one, other) == set()
        assert one.held.abreast


def missing(one: Peer, other: Peer) -> set[bytes]:
    """Return what another holds, and neither of the two has dropped as expired."""
    cut_s = max(one.control.cut_s, other.control.cut_s)
    return {
        entry_id
        for entry_id in held_by(other.control) - held_by(one.control)
        if entry_from_signed(BY_ID[entry_id], GENESIS.mesh_id).expires_s > cut_s
    }


def test_who_does_not_ask_is_met_with_silence_and_who_asks_with_one_word():
    one, other = Peer(0), Peer(0)
    assert one.held.digest().asks
    assert reconciled(one, other, NOW_S) == 4
    assert one.held.abreast
    assert other.held.abreast
    assert reconciled(one, other, NOW_S) == 2


def test_a_clock_that_was_set_back_gets_back_what_it_had_dropped():
    entry = said(OPERATOR, StandingKill(agent="a"), NOW_S, NOW_S + HOUR_S)
    one, other = Peer(0), Peer(2 * HOUR_S)
    for peer in (one, other):
        peer.control.add_all([*ROLES, entry], NOW_S)
    reconciled(one, other, NOW_S)
    assert entry_id_of(entry) not in held_by(other.control)
    assert reconciled(one, other, NOW_S) <= QUIET
    other.off_s = 0
    reconciled(one, other, NOW_S + 1)
    assert held_by(one.control) == held_by(other.control)
    assert entry_id_of(entry) in held_by(other.control)
