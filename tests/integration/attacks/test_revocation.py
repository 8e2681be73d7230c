"""Whoever holds a stolen key gains nothing by dates, by haste, by helpers or by revoking back."""

import asyncio
from collections import Counter
from itertools import permutations

import pytest
from integration.attacks.grantors import (
    DAY_S,
    GENESIS,
    KEYS,
    NODE_ID,
    NOW_S,
    ROLES,
    SECRET,
    Chain,
    Desk,
    Door,
    application,
    chance,
    key,
    of,
    role,
    said,
    word,
)

from meshnode.app import pieces
from meshnode.app.membership.authorities import Authorities
from meshnode.client.connection.connection import ANSWER_BYTES_MAX
from meshnode.core.control.entries import SURVIVORS_MAX, Cancel, Revoke, StandingKill, role_entry
from meshnode.core.control.grants import grant_from_signed
from meshnode.core.control.roles import Role
from meshnode.core.control.shares import ENTRIES_MAX
from meshnode.core.errors import NotAuthenticatedError, NotPermittedError
from meshnode.core.keys import Signed
from meshnode.rpc.authorities import AuthorityServicer
from meshnode.v1 import authority_service_pb2 as pb


@pytest.fixture
def desk() -> Desk:
    return Desk()


def revoke(issuer: str, name: str, *survivors: bytes, what: str = "key") -> Signed:
    return said(issuer, Revoke(what, key(name), survivors))


def grant_id(chain: Chain) -> bytes:
    return grant_from_signed(chain.links[-1]).grant_id


def public(chain: Chain) -> bytes:
    return chain.key.public


@pytest.mark.parametrize("made_s", [-20 * DAY_S, -10, 0])
async def test_a_key_of_a_revoked_operator_is_void_whenever_it_says_to_be_made(desk, made_s):
    granted = of("carl").child(not_before_s=NOW_S + made_s)
    deeper = granted.child()
    await desk.obeys(deeper)
    desk.hear(revoke("ada", "carl"))
    for chain in (granted, deeper, of("carl").child(not_before_s=NOW_S - 25 * DAY_S)):
        for action in ("steer", "kill", "read_messages"):
            assert "revoked" in await desk.refuses(NotAuthenticatedError, chain, action)


async def test_what_is_revoked_between_being_accepted_and_being_done_is_not_done(desk):
    killer = of("carl").child()
    begin = desk.journal.begin

    async def begun_too_late(entry, now_s):
        answer = await begin(entry, now_s)
        desk.hear(revoke("ada", "carl"))
        return answer

    desk.journal.begin = begun_too_late
    receipt = await desk.outcome(desk.order(killer, "kill"))
    assert (receipt.outcome, "revoked" in receipt.detail) == ("refused", True)
    assert desk.agents.kills == []


async def test_every_key_of_a_chain_counts_and_not_only_the_first(desk):
    first = of("carl").child()
    second = first.child()
    third = second.child()
    await desk.obeys(third)
    desk.hear(said("root", Revoke("key", public(second))))
    await desk.obeys(first)
    for chain in (second, third):
        await desk.refuses(NotAuthenticatedError, chain)


async def test_survivors_of_a_revoked_operator_are_those_listed_and_no_others(desk):
    kept, lost = of("carl").child(), of("carl").child()
    desk.hear(revoke("ada", "carl", public(kept)))
    await desk.obeys(kept)
    await desk.obeys(kept.child())
    await desk.refuses(NotAuthenticatedError, lost)
    desk.hear(revoke("root", "carl"))
    await desk.refuses(NotAuthenticatedError, kept)


async def test_a_thief_adds_no_survivors_to_what_it_was_revoked_by(desk):
    own, helper = of("carl").child(), of("carl").child()
    desk.hear(revoke("carl", "carl", public(own)))
    await desk.refuses(NotAuthenticatedError, own)
    desk.hear(revoke("carl", "carl", public(helper), key("carl")))
    for chain in (own, helper, of("carl").child(subject=key("carl"))):
        await desk.refuses(NotAuthenticatedError, chain)


async def test_a_revoked_admin_brings_nobody_back_whom_it_had_revoked(desk):
    granted = of("carl").child()
    desk.hear(revoke("ada", "carl"), revoke("root", "ada", key("carl")))
    desk.hear(revoke("ada", "carl", public(granted)), role("ada", "carl", "operator"))
    await desk.refuses(NotAuthenticatedError, granted)
    assert desk.control.role_of(key("carl")) == ""


async def test_the_thief_of_an_admins_key_puts_out_no_other_admin_in_any_order_of_arrival():
    entries = [role("bob", "ada", "observer"), revoke("bob", "ada", key("bob"))]
    for order in permutations([*entries, revoke("root", "bob")]):
        desk = Desk()
        desk.control.add_all(order, NOW_S)
        await desk.obeys(of("ada").child())
        await desk.refuses(NotAuthenticatedError, of("bob").child())


@pytest.mark.parametrize("issuer", ["carl", "dora", "thief", "admitter"])
async def test_nobody_but_root_and_admins_revokes_others(desk, issuer):
    granted = of("ada").child()
    with desk.unchanged():
        for what, name in (("key", "ada"), ("key", "bob"), ("node", "node")):
            refused = desk.control.add_all([revoke(issuer, name, what=what)], NOW_S)
            assert len(refused) == 1
    await desk.obeys(granted)


async def test_nobody_revokes_the_root(desk):
    desk.hear(revoke("root", "root"))
    await desk.obeys(of("root").child())


async def test_a_role_that_a_revoked_admin_gave_is_void_however_it_was_given(desk):
    for name in ("carl", "eve"):
        await desk.obeys(of(name).child())
    desk.hear(revoke("root", "ada", key("eve")))
    desk.hear(role("ada", "thief", "operator"), role("admitter", "thief", "operator", word("ada")))
    await desk.obeys(of("eve").child())
    for name in ("ada", "carl", "thief"):
        await desk.refuses(NotAuthenticatedError, of(name).child())


async def test_who_stole_an_admitter_hands_out_no_more_roles(desk):
    stolen = word("ada")
    desk.hear(said("root", Revoke("node", key("admitter"), (key("eve"),))))
    desk.hear(role("admitter", "thief", "operator", stolen))
    await desk.refuses(NotAuthenticatedError, of("thief").child())
    await desk.obeys(of("eve").child())


async def test_the_id_of_a_grant_is_revoked_by_whoever_gave_it_and_by_admins_only(desk):
    mine, others = of("carl").child(), of("ada").child()
    same_id = of("bob").child(grant_id=grant_id(mine))
    desk.hear(said("dora", Revoke("grant", grant_id(mine)), life_s=DAY_S))
    desk.hear(said("carl", Revoke("grant", grant_id(others)), life_s=DAY_S))
    for chain in (mine, others, same_id):
        await desk.obeys(chain)
    desk.hear(said("carl", Revoke("grant", grant_id(mine)), life_s=DAY_S))
    await desk.refuses(NotAuthenticatedError, mine)
    await desk.refuses(NotAuthenticatedError, mine.child())
    await desk.obeys(same_id)
    desk.hear(said("ada", Revoke("grant", grant_id(same_id)), life_s=DAY_S))
    await desk.refuses(NotAuthenticatedError, same_id)


async def test_a_revoked_renewal_key_renews_nothing_and_its_children_are_void(desk):
    renewal = of("carl").child(actions=("steer", "keys"))
    child = renewal.child(actions=("steer",))
    await desk.obeys(child)
    desk.hear(said("carl", Revoke("grant", grant_id(renewal)), life_s=DAY_S))
    for chain in (child, renewal.child(actions=("steer",))):
        await desk.refuses(NotAuthenticatedError, chain)


async def test_one_child_of_a_renewal_key_is_revoked_by_whoever_gave_that(desk):
    renewal = of("carl").child(actions=("steer", "keys"))
    lost, kept = (renewal.child(actions=("steer",)) for _ in range(2))
    desk.hear(said("carl", Revoke("grant", grant_id(lost)), life_s=DAY_S))
    await desk.refuses(NotAuthenticatedError, lost)
    await desk.obeys(kept)


async def test_what_a_revoked_key_signs_into_the_control_set_here_is_refused(desk):
    desk.hear(revoke("ada", "carl"))
    for body in (StandingKill(agent="a"), Cancel(bytes(16))):
        with desk.unchanged(), pytest.raises(NotPermittedError):
            await desk.submit_control(said("carl", body, life_s=60))


async def test_reading_a_log_ends_when_the_readers_key_is_revoked(desk):
    reader = of("carl").child()
    pieces = desk.read(desk.order(reader, "read_messages"))
    assert await anext(pieces) == b"one"
    desk.hear(revoke("ada", "carl"))
    with pytest.raises(NotAuthenticatedError):
        await anext(pieces)


async def test_an_invite_of_a_revoked_admin_lets_nobody_in():
    door = Door()
    await door.invite("ada")
    door.desk.hear(revoke("root", "ada"))
    with door.unchanged(), pytest.raises(NotPermittedError, match="revoked"):
        await door.join(application())
    with door.unchanged(), pytest.raises(NotPermittedError):
        await door.invite("ada")
    await door.invite("bob")
    assert (await door.join(application())).certificates


async def test_a_revoked_admitter_that_hears_of_it_lets_nobody_in():
    door = Door()
    await door.invite("ada")
    door.desk.hear(said("root", Revoke("node", key("admitter"))))
    with door.unchanged(), pytest.raises(NotPermittedError, match="this node was revoked"):
        await door.join(application())


async def test_no_admin_revokes_a_node_that_admits_others():
    door = Door()
    await door.invite("ada")
    door.desk.hear(revoke("ada", "admitter", what="node"))
    assert (await door.join(application(), SECRET)).certificates


async def test_many_revocations_at_once_are_all_obeyed(desk):
    chains = [of("carl").child() for _ in range(50)]
    desk.hear(*(said("carl", Revoke("grant", grant_id(one)), life_s=DAY_S) for one in chains[::2]))
    told = await asyncio.gather(
        *(desk.outcome(desk.order(one)) for one in chains), return_exceptions=True
    )
    assert [isinstance(one, NotAuthenticatedError) for one in told] == [True, False] * 25
    assert len(desk.agents.steered) == 25


def test_the_roles_of_these_tests_are_as_they_say(desk):
    names = ("ada", "bob", "carl", "dora", "eve", "thief")
    roles = [desk.control.role_of(KEYS[name].public) for name in names]
    assert roles == ["admin", "admin", "operator", "observer", "operator", ""]
    assert (len(ROLES), len(NODE_ID)) == (5, 52)


LONG = "\U0001f600" * 900


def long_role() -> Signed:
    value = Role(chance(32), "observer", LONG, key("ada"), NOW_S, None)
    return role_entry(KEYS["ada"], GENESIS.mesh_id, value, chance)


def long_word() -> Signed:
    return said("ada", Revoke("node", chance(32), tuple(chance(32) for _ in range(SURVIVORS_MAX))))


async def answer(desk: Desk) -> pb.ListAuthoritiesResponse:
    servicer = AuthorityServicer(Authorities(desk.control))
    return await servicer.ListAuthorities(pb.ListAuthoritiesRequest(), None)


@pytest.mark.parametrize("speak", [long_role, long_word])
async def test_however_much_a_thief_says_the_answer_by_which_it_is_taken_out_is_taken(desk, speak):
    before = (await answer(desk)).ByteSize()
    desk.hear(*(speak() for _ in range(20)))
    each = ((await answer(desk)).ByteSize() - before) / 20
    assert 0 < each * ENTRIES_MAX < ANSWER_BYTES_MAX


async def test_a_node_goes_on_while_it_says_who_may_command(desk, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_S", 0.0)
    desk.hear(*(long_word() for _ in range(2 * pieces.LOOKS)))
    desk.hear(*(long_role() for _ in range(2 * pieces.LOOKS)))
    seen: Counter[str] = Counter()

    async def others() -> None:
        while True:
            seen["turns"] += 1
            await asyncio.sleep(0)

    others_work = asyncio.create_task(others())
    found = await answer(desk)
    others_work.cancel()
    assert (len(found.revocations), len(found.roles)) == (2 * pieces.LOOKS, 2 * pieces.LOOKS + 5)
    assert seen["turns"] >= 4
