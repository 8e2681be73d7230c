"""What forged, misdirected, malformed and too many commands do at their owner: nothing."""

import pytest
from integration.attacks.desk import refused, resigned
from msgspec.structs import replace
from owner import (
    GENESIS,
    KEY,
    ROOT,
    SESSION,
    STRANGER,
    UNTIL_S,
    Owner,
    chance,
    key_for,
)

from meshnode.core.commands.commands import (
    COMMAND,
    COMMAND_BYTES_MAX,
    KILL_LIFE_S,
    RECEIPT,
    STEER_LIFE_S,
    sign_command,
)
from meshnode.core.control.entries import Cancel, sign_entry
from meshnode.core.control.grants import (
    CHAIN_LINKS_MAX,
    Grant,
    SessionKey,
    grant,
)
from meshnode.core.errors import (
    ExpiredError,
    NotAuthenticatedError,
    NotPermittedError,
    PeerError,
    RefusedError,
    StaleError,
)
from meshnode.core.floor import SKEW_S
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Signed
from meshnode.core.packing import pack, unpack_map

NOW_S = 1_790_000_000


@pytest.fixture
def owner() -> Owner:
    return Owner()


async def test_a_signature_by_somebody_else_is_refused(owner: Owner):
    await refused(owner, resigned(owner.order(), STRANGER), NotAuthenticatedError)


async def test_a_command_that_names_its_forger_as_signer_is_refused(owner: Owner):
    forged = resigned(owner.order(), STRANGER, signer=STRANGER.public)
    await refused(owner, forged, NotAuthenticatedError)


async def test_a_grant_that_its_holder_has_signed_itself_is_refused(owner: Owner):
    link = Grant(
        GENESIS.mesh_id, STRANGER.public, STRANGER.public, ("steer",), 0, UNTIL_S, bytes(16)
    )
    own = SessionKey(STRANGER, (grant(STRANGER, link),))
    said = await refused(owner, owner.order(key=own), NotAuthenticatedError)
    assert "has no role" in said


async def test_somebody_elses_chain_beside_ones_own_key_is_refused(owner: Owner):
    stolen = SessionKey(STRANGER, KEY.chain)
    await refused(owner, owner.order(key=stolen), NotAuthenticatedError)


async def test_one_flipped_bit_of_payload_or_signature_is_refused(owner: Owner):
    signed = owner.order(message="hello")
    at = signed.payload.index(b"hello")
    payload = bytearray(signed.payload)
    payload[at] ^= 1
    mark = bytes([signed.signature[0] ^ 1]) + signed.signature[1:]
    for flipped in (
        replace(signed, payload=bytes(payload)),
        replace(signed, signature=mark),
    ):
        await refused(owner, flipped, NotAuthenticatedError)


async def test_a_public_key_of_small_order_as_signer_is_refused(owner: Owner):
    zero = bytes(32)
    word = Grant(GENESIS.mesh_id, ROOT.public, zero, ("steer",), 0, UNTIL_S, bytes(16))
    chain = [grant(ROOT, word).to_list()]
    forged = resigned(owner.order(), signer=zero, chain=chain)
    await refused(owner, replace(forged, signature=bytes(64)), NotAuthenticatedError)


async def test_a_command_for_another_node_is_refused(owner: Owner):
    other = node_id_of(STRANGER.public)
    signed = sign_command(KEY, replace(owner.command(), node=other))
    await refused(owner, signed, PeerError)


async def test_a_command_of_another_mesh_is_refused(owner: Owner):
    signed = sign_command(KEY, replace(owner.command(), mesh="another"))
    await refused(owner, signed, NotAuthenticatedError)


async def test_a_grant_of_another_mesh_is_refused(owner: Owner):
    await refused(owner, owner.order(key=key_for(mesh="another")), NotAuthenticatedError)


async def test_another_start_of_the_session_is_stale(owner: Owner):
    signed = sign_command(KEY, replace(owner.command(), epoch=SESSION.session_epoch + 1))
    await refused(owner, signed, StaleError)


async def test_a_journal_of_another_generation_is_stale(owner: Owner):
    args = {"agent_id": "a", "specialization": "b"}
    command = owner.command("register", args=args, epoch=owner.generation + 1)
    await refused(owner, sign_command(KEY, command), StaleError)


async def test_a_receipt_passed_as_a_command_is_refused(owner: Owner):
    receipt = await owner.desk.submit(owner.order(), "")
    owner.agents.reached.clear()
    await refused(owner, receipt, PeerError)
    await refused(owner, replace(receipt, type=COMMAND), PeerError)


async def test_a_control_entry_passed_as_a_command_is_refused(owner: Owner):
    entry = sign_entry(ROOT, GENESIS.mesh_id, Cancel(bytes(16)), chance, issued_s=NOW_S)
    await refused(owner, entry, PeerError)
    await refused(owner, replace(entry, type=COMMAND), PeerError)


async def test_a_command_signed_under_another_type_is_refused(owner: Owner):
    said = unpack_map(owner.order().payload)
    await refused(owner, replace(ROOT.sign(RECEIPT, said), type=COMMAND), NotAuthenticatedError)


@pytest.mark.parametrize("changed", [{"v": 2}, {"args": ...}, {"extra": None}, {"signer": ...}])
async def test_a_field_more_or_less_is_another_version_and_refused(owner: Owner, changed: dict):
    await refused(owner, resigned(owner.order(), **changed), PeerError)


async def test_an_action_that_nobody_knows_is_refused(owner: Owner):
    for action in ("dance", "", "STEER", "steer\0"):
        await refused(owner, sign_command(KEY, owner.command(action=action)), RefusedError)


async def test_a_session_command_without_a_session_and_the_reverse_are_refused(owner: Owner):
    no_session = owner.command(session="", epoch=owner.generation)
    with_session = owner.command("register", session=SESSION.session_id)
    for command in (no_session, with_session):
        await refused(owner, sign_command(KEY, command), PeerError)


async def test_a_steer_from_the_past_or_the_future_beyond_the_skew_is_refused(owner: Owner):
    late = owner.command(issued_s=NOW_S - SKEW_S - 61, expires_s=NOW_S - SKEW_S - 1)
    early = owner.command(issued_s=NOW_S + SKEW_S + 1, expires_s=NOW_S + SKEW_S + 2)
    assert "expired 121 s ago" in await refused(owner, sign_command(KEY, late), ExpiredError)
    await refused(owner, sign_command(KEY, early), RefusedError)


async def test_clocks_that_are_off_by_the_skew_still_work_both_ways(owner: Owner):
    for issued_s, expires_s in (
        (NOW_S - SKEW_S - 60, NOW_S - SKEW_S),
        (NOW_S + SKEW_S, NOW_S + SKEW_S + STEER_LIFE_S),
    ):
        command = owner.command(issued_s=issued_s, expires_s=expires_s)
        assert (await owner.submit(sign_command(KEY, command))).outcome == "delivered"
    assert len(owner.agents.steered) == 2


async def test_a_kill_that_is_issued_ahead_counts_by_its_end_only(owner: Owner):
    ahead = owner.command("kill", issued_s=NOW_S + 3600, expires_s=NOW_S + 7200)
    beyond = owner.command(
        "kill", issued_s=NOW_S + 3600, expires_s=NOW_S + KILL_LIFE_S + SKEW_S + 1
    )
    await refused(owner, sign_command(KEY, beyond), RefusedError)
    assert (await owner.submit(sign_command(KEY, ahead))).outcome == "applied"


@pytest.mark.parametrize(
    ("action", "life_s"), [("steer", STEER_LIFE_S + 1), ("kill", KILL_LIFE_S + 1), ("steer", -1)]
)
async def test_a_life_that_is_too_long_or_ends_before_it_begins_is_refused(
    owner: Owner, action: str, life_s: int
):
    command = owner.command(action, issued_s=NOW_S - 10, expires_s=NOW_S - 10 + life_s)
    await refused(owner, sign_command(KEY, command), RefusedError)


async def test_a_command_that_is_too_large_is_refused_before_it_is_read(owner: Owner):
    await refused(owner, owner.order(message="x" * COMMAND_BYTES_MAX), PeerError)
    await refused(owner, Signed(COMMAND, bytes(COMMAND_BYTES_MAX + 1), bytes(64)), PeerError)


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


@pytest.mark.parametrize(
    "bomb",
    [
        nested(60_000),
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x81\xa4args" + nested(1000),
        pack({"chain": [[b""] * 2] * 5000}),
        b"\x82\xa1a\x01\xa1a\x02",
    ],
    ids=["deep", "map", "array", "bytes", "deep args", "many links", "a key twice"],
)
async def test_a_bomb_of_messagepack_is_refused(owner: Owner, bomb: bytes):
    await refused(owner, Signed(COMMAND, bomb, bytes(64)), PeerError)


async def test_a_chain_of_too_many_links_is_refused(owner: Owner):
    long = SessionKey(ROOT, KEY.chain * (CHAIN_LINKS_MAX + 1))
    await refused(owner, owner.order(key=long), NotAuthenticatedError)


async def test_a_chain_that_was_verified_once_is_not_believed_for_longer_than_it_says(
    owner: Owner,
):
    key = key_for(STRANGER, expires_s=NOW_S + 10)
    assert (await owner.submit(owner.order(key=key))).outcome == "delivered"
    owner.clock.now_s += 10 + SKEW_S + 1
    owner.agents.reached.clear()
    await refused(owner, owner.order(key=key), NotAuthenticatedError)


async def test_a_verified_chain_does_not_vouch_for_one_that_differs_in_its_signature(
    owner: Owner,
):
    await owner.submit(owner.order())
    owner.agents.reached.clear()
    link = replace(KEY.chain[0], signature=bytes(64))
    await refused(owner, owner.order(key=SessionKey(ROOT, (link,))), NotAuthenticatedError)


async def test_what_a_command_claims_about_its_target_gives_no_permission(owner: Owner):
    narrow = key_for(STRANGER, specializations=("docs",))
    claim = owner.order(key=narrow, message="x", specialization="docs", agent_id="agent")
    await refused(owner, claim, NotPermittedError)


@pytest.mark.parametrize(
    "grace_s", [float("nan"), float("inf"), -1, -1e300, 61, 1 << 63, "5", None, [5], True]
)
async def test_a_grace_that_is_none_is_refused_and_kills_nobody(owner: Owner, grace_s: object):
    receipt = await owner.submit(owner.order("kill", grace_s=grace_s))
    assert receipt.outcome == "refused"
    assert owner.agents.kills == []
    assert not owner.published.rows


@pytest.mark.parametrize(
    "args",
    [
        {"message": b"bytes"},
        {"message": ["a"]},
        {"message": {"a": 1}},
        {"direction": 5, "message": "hello"},
        {"message": ""},
        {"message": None, "direction": None},
    ],
)
async def test_a_steer_whose_words_are_no_words_is_refused(owner: Owner, args: dict):
    receipt = await owner.submit(owner.order(**args))
    assert receipt.outcome == "refused"
    assert owner.agents.steered == []


async def test_escape_sequences_reach_the_agent_as_they_are_and_no_terminal(owner: Owner):
    """They are data to an agent; what people see is escaped where it is printed."""
    words = "\x1b]0;owned\x07north"
    receipt = await owner.submit(owner.order(direction=words))
    assert owner.agents.steered == [(SESSION.session_id, words, None)]
    assert "\x1b" not in receipt.detail
