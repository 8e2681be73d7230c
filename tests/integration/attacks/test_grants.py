"""Whoever forges, stretches or rearranges a chain of grants commands nobody."""

import pytest
from integration.attacks.grantors import (
    CODE,
    DAY_S,
    DOCS,
    GATEWAY_ID,
    NODE_ID,
    NOW_S,
    Chain,
    Desk,
    chance,
    key,
    of,
)

from meshnode.core.control.grants import (
    GRANT_BYTES_MAX,
    GRANT_TTL_S_MAX,
    KeyTimeError,
    grant_from_signed,
    session_key_from_text,
)
from meshnode.core.control.roles import role_from_map
from meshnode.core.errors import (
    MeshError,
    NotAuthenticatedError,
    NotPermittedError,
    PeerError,
    UsageError,
)
from meshnode.core.floor import SKEW_S
from meshnode.core.ids import b32, node_id_of
from meshnode.core.keys import Key, Signed, encode_checked, parse_public, verify
from meshnode.core.membership.certificates import keys_shown, node_id_in
from meshnode.core.membership.enrolment import invite_from_text
from meshnode.core.membership.genesis import Genesis, genesis_from_bytes
from meshnode.core.packing import pack


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_a_child_that_claims_more_actions_than_its_parent_has_only_its_parents(desk):
    child = of("carl").child(actions=("steer",)).child(actions=("steer", "kill"))
    await desk.refuses(NotPermittedError, child, "kill")
    await desk.obeys(child)


@pytest.mark.parametrize(
    "limit",
    [{"nodes": ("x",)}, {"agents": ("x",)}, {"sessions": ("x",)}, {"specializations": ("x",)}],
)
async def test_a_child_without_its_parents_limits_is_within_them_all_the_same(desk, limit):
    await desk.refuses(NotPermittedError, of("carl").child(**limit).child())


async def test_a_child_does_not_outlive_its_parent(desk):
    child = of("carl").child(expires_s=NOW_S + 60).child(expires_s=NOW_S + 9999)
    await desk.obeys(child)
    desk.clock.now_s += 61 + SKEW_S
    assert "expired" in await desk.refuses(KeyTimeError, child)


async def test_a_chain_without_its_beginning_proves_nothing(desk):
    child = of("carl").child(actions=("steer",)).child()
    await desk.refuses(NotAuthenticatedError, child.with_links(*child.links[1:]))
    stripped = Chain(child.key).child(issuer=child.key.public)
    await desk.refuses(NotAuthenticatedError, stripped)


async def test_a_chain_that_is_cut_to_its_parent_is_not_the_childs(desk):
    parent = of("carl").child()
    child = parent.child(actions=())
    await desk.refuses(NotAuthenticatedError, child.with_links(*parent.links), "kill")


async def test_a_chain_of_five_links_proves_nothing(desk):
    deep = of("carl")
    for _ in range(4):
        deep = deep.child()
    await desk.obeys(deep)
    await desk.refuses(NotAuthenticatedError, deep.child())


async def test_links_in_another_order_prove_nothing(desk):
    child = of("carl").child().child()
    await desk.refuses(NotAuthenticatedError, child.with_links(*reversed(child.links)))


async def test_a_link_under_another_parent_of_the_same_key_proves_nothing(desk):
    narrow = of("carl").child(actions=("steer",))
    subject = grant_from_signed(narrow.links[0]).subject
    wide = of("carl").child(subject=subject)
    child = narrow.child()
    await desk.obeys(child)
    await desk.refuses(NotAuthenticatedError, child.with_links(wide.links[0], child.links[1]))


async def test_a_link_that_lies_about_its_depth_proves_nothing(desk):
    for depth in (1, 2, 3):
        await desk.refuses(NotAuthenticatedError, of("carl").child(depth=depth))


async def test_no_actions_allow_nothing(desk):
    for action in ("steer", "kill", "read_messages"):
        await desk.refuses(NotPermittedError, of("carl").child(actions=()), action)


async def test_a_grant_of_another_mesh_proves_nothing(desk):
    await desk.refuses(NotAuthenticatedError, of("carl").child(mesh="another"))


async def test_a_grant_counts_between_its_times_only(desk):
    late = of("carl").child(expires_s=NOW_S - SKEW_S - 1)
    early = of("carl").child(not_before_s=NOW_S + SKEW_S + 1)
    assert "expired" in await desk.refuses(KeyTimeError, late)
    assert "not valid yet" in await desk.refuses(KeyTimeError, early)


async def test_a_key_for_longer_than_a_revocation_of_it_lasts_is_none(desk):
    month_s = GRANT_TTL_S_MAX + DAY_S
    await desk.obeys(of("carl").child(expires_s=NOW_S + month_s))
    for chain in (
        of("carl").child(expires_s=NOW_S + month_s + 1),
        of("carl").child(expires_s=1 << 40),
    ):
        assert "30 days" in await desk.refuses(KeyTimeError, chain)


async def test_to_a_clock_that_is_days_behind_a_key_of_a_month_is_early_and_not_long(desk):
    fresh = of("carl").child(not_before_s=NOW_S - 60, expires_s=NOW_S + GRANT_TTL_S_MAX)
    desk.clock.now_s -= 3 * DAY_S
    assert "not valid yet" in await desk.refuses(KeyTimeError, fresh, "kill")


async def test_a_key_disclosed_to_its_gateway_is_worth_nothing_elsewhere(desk):
    bearer = of("carl").child(via=GATEWAY_ID)
    await desk.obeys(bearer, via=GATEWAY_ID)
    for via in (NODE_ID, "", node_id_of(key("thief"))):
        await desk.refuses(NotPermittedError, bearer, via=via)
    await desk.refuses(NotPermittedError, bearer.child(via=""), via=NODE_ID)


async def test_a_thief_cannot_put_its_own_key_under_a_grant(desk):
    granted = of("carl").child()
    await desk.refuses(NotAuthenticatedError, of("thief").with_links(*granted.links))
    forged = of("thief").child(issuer=key("carl"))
    await desk.refuses(NotAuthenticatedError, forged)


async def test_a_thief_without_a_role_grants_nothing(desk):
    assert "no role" in await desk.refuses(NotAuthenticatedError, of("thief").child(), "kill")


async def test_a_victim_registered_under_what_the_key_may_kill_is_not_its_victim(desk):
    killer = of("carl").child(specializations=("docs",))
    entry = {"agent_id": CODE.agent_id, "specialization": "docs"}
    await desk.desk.submit(desk.order(killer, "register", session=None, **entry), "")
    await desk.refuses(NotPermittedError, killer, "kill", session=CODE)
    await desk.refuses(NotPermittedError, killer, "kill", session=CODE, specializations=["docs"])
    await desk.obeys(killer, "kill", session=DOCS)


async def test_an_observer_kills_nobody_whatever_it_grants_itself(desk):
    for chain in (of("dora").child(), of("dora").child().child()):
        message = await desk.refuses(NotPermittedError, chain, "kill")
        assert message == "the role observer does not allow kill"


async def test_a_renewal_key_does_nothing_but_make_keys(desk):
    renewal = of("carl").child(actions=("steer", "kill", "keys"))
    for action in ("steer", "kill", "read_messages"):
        assert "makes other keys" in await desk.refuses(NotPermittedError, renewal, action)
    await desk.refuses(
        NotPermittedError,
        renewal.child(actions=("register", "kill")),
        "register",
        session=None,
        agent_id="a",
        specialization="docs",
    )
    await desk.obeys(renewal.child(actions=("steer",)))


async def test_a_grant_too_large_or_with_a_field_too_many_proves_nothing(desk):
    large = of("carl").child(agents=("x" * GRANT_BYTES_MAX,))
    await desk.refuses(NotAuthenticatedError, large)


def small_order() -> list[bytes]:
    order_8 = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
    prime = 2**255 - 19
    ys = [0, 1, prime - 1, prime, prime + 1, int.from_bytes(order_8, "little")]
    signed = [y.to_bytes(32, "little") for y in ys]
    return [*signed, *(raw[:31] + bytes([raw[31] | 0x80]) for raw in signed)]


PARSES = {
    "a key": parse_public,
    "a signature": lambda raw: verify(Signed("x", b"x", bytes(64)), "x", raw),
    "a grant's subject": lambda raw: grant_from_signed(of("carl").child(subject=raw).links[0]),
    "a role's subject": lambda raw: role_from_map(
        {
            "subject": raw,
            "role": "operator",
            "name": "",
            "issuer": key("ada"),
            "issued": 1,
            "via": None,
        }
    ),
    "a genesis": lambda raw: genesis_from_bytes(Genesis((raw,), 1, "x", bytes(16)).to_bytes()),
    "a name in TLS": lambda raw: node_id_in(f"{b32(raw)}.node.mesh.internal"),
    "an invite": lambda raw: invite_from_text(
        "smj1_"
        + encode_checked(
            pack([1, raw, bytes(32), key("node"), bytes(16), bytes(16), 1, [], False]), b"smj1"
        )
    ),
}


@pytest.mark.parametrize("raw", small_order(), ids=bytes.hex)
@pytest.mark.parametrize("parse", PARSES)
def test_a_public_key_that_lets_anybody_forge_is_refused_wherever_it_is_read(parse, raw):
    with pytest.raises((PeerError, UsageError)):
        PARSES[parse](raw)


async def test_a_chain_to_or_from_a_key_of_small_order_proves_nothing(desk):
    for raw in small_order():
        await desk.refuses(NotAuthenticatedError, of("carl").child(subject=raw))
        await desk.refuses(NotAuthenticatedError, of("carl").child(issuer=raw))


def test_a_session_key_with_one_character_changed_is_none():
    made = of("carl").child()
    body = pack([1, made.key.seed, [link.to_list() for link in made.links]])
    text = "smk1_" + encode_checked(body, b"smk1")
    assert session_key_from_text(text).key.public == made.key.public
    for place in range(5, len(text), 17):
        changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        with pytest.raises(NotAuthenticatedError) as refused:
            session_key_from_text(changed)
        assert changed not in str(refused.value)


def test_a_session_key_for_another_key_is_none():
    made, other = of("carl").child(), Key.new(chance)
    body = pack([1, other.seed, [link.to_list() for link in made.links]])
    with pytest.raises(NotAuthenticatedError, match="for another key"):
        session_key_from_text("smk1_" + encode_checked(body, b"smk1"))


def test_a_chain_of_certificates_that_is_none_is_the_peers_fault():
    with pytest.raises(MeshError):
        keys_shown(b"-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")
