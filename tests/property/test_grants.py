"""A chain of grants only narrows, and a session key that was touched is none."""

from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from meshnode.core.control.grants import (
    CHAIN_LINKS_MAX,
    Grant,
    Request,
    SessionKey,
    check_permission,
    check_time,
    grant,
    session_key_from_text,
    verify_chain,
)
from meshnode.core.errors import NotAuthenticatedError, NotPermittedError
from meshnode.core.keys import Key

chance = Random(9).randbytes
KEYS = [Key.new(chance) for _ in range(CHAIN_LINKS_MAX + 2)]
ROOT = Grant("mesh", KEYS[0].public, KEYS[1].public, ("read", "steer"), 0, 100, bytes(16))
words = st.sampled_from(["a", "b", "c"])
limits = st.none() | st.lists(words, max_size=3).map(tuple)
links = st.builds(
    lambda actions, nodes, agents, sessions, specs, via, times: replace(
        ROOT,
        actions=tuple(actions),
        nodes=nodes,
        agents=agents,
        sessions=sessions,
        specializations=specs,
        via=via,
        not_before_s=min(times),
        expires_s=max(times),
    ),
    st.lists(st.sampled_from(["read", "steer", "kill"]), max_size=3),
    limits,
    limits,
    limits,
    limits,
    st.sampled_from(["", "", "a", "b"]),
    st.tuples(st.integers(0, 100), st.integers(0, 100)),
)
requests = st.builds(
    Request,
    st.sampled_from(["read", "steer", "kill"]),
    words,
    words,
    words,
    st.lists(words, max_size=2).map(tuple),
    words,
)


def chain_of(grants: list[Grant]) -> SessionKey:
    signed: list = []
    for depth, link in enumerate(grants):
        parent = signed[-1].hash if signed else b""
        issuer, subject = KEYS[depth], KEYS[depth + 1].public
        made = replace(link, issuer=issuer.public, subject=subject, depth=depth, parent=parent)
        signed.append(grant(issuer, made))
    return SessionKey(KEYS[len(grants)], tuple(signed))


def permitted(grants: list[Grant], request: Request, now_s: float) -> bool:
    try:
        check_time(grants, now_s, 0)
        check_permission(grants, request)
    except (NotPermittedError, NotAuthenticatedError):
        return False
    return True


@given(st.lists(links, min_size=1, max_size=CHAIN_LINKS_MAX), requests, st.integers(0, 100))
def test_what_a_chain_permits_every_part_of_it_permits(
    grants: list[Grant], request: Request, now_s: int
):
    verified = verify_chain(chain_of(grants).chain, "mesh")
    if permitted(verified, request, now_s):
        for size in range(1, len(verified) + 1):
            assert permitted(verified[:size], request, now_s)
    assert permitted(verified, request, now_s) == all(
        link.permits(request) and link.not_before_s <= now_s <= link.expires_s for link in grants
    )


@given(st.lists(links, min_size=1, max_size=CHAIN_LINKS_MAX))
def test_a_key_comes_back_from_its_text(grants: list[Grant]):
    key = chain_of(grants)
    found = session_key_from_text(key.to_text())
    assert found.chain == key.chain
    assert found.key.public == key.key.public


@given(st.data())
def test_links_out_of_order_or_missing_prove_nothing(data: st.DataObject):
    size = data.draw(st.integers(2, CHAIN_LINKS_MAX))
    chain = list(chain_of([ROOT] * size).chain)
    other = data.draw(st.lists(st.sampled_from(chain), max_size=6))
    assume(other != chain[: len(other)] or not other)
    with pytest.raises(NotAuthenticatedError):
        verify_chain(other, "mesh")


@given(links, st.integers(2, 5))
def test_a_link_signed_by_anybody_else_proves_nothing(link: Grant, signer: int):
    first = chain_of([ROOT]).chain[0]
    claimed = replace(link, issuer=KEYS[1].public, depth=1, parent=first.hash)
    for forged in (grant(KEYS[signer], claimed), grant(KEYS[signer], replace(claimed, depth=0))):
        with pytest.raises(NotAuthenticatedError):
            verify_chain([first, forged], "mesh")


def test_a_longer_chain_proves_nothing():
    whole = chain_of([ROOT] * (CHAIN_LINKS_MAX + 1))
    verify_chain(whole.chain[:CHAIN_LINKS_MAX], "mesh")
    with pytest.raises(NotAuthenticatedError):
        verify_chain(whole.chain, "mesh")


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("extra", range(4))
def test_every_flipped_bit_of_a_key_is_refused(size: int, extra: int):
    text = chain_of([replace(ROOT, mesh="m" * (5 + extra))] * size).to_text()
    assert session_key_from_text(text)
    raw = text.encode()
    for place in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(NotAuthenticatedError) as caught:
            session_key_from_text(flipped.decode("latin-1"))
        assert text[20:40] not in caught.value.message + caught.value.hint


@settings(max_examples=300)
@given(st.text(max_size=40) | st.binary(max_size=40).map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_a_key_or_proves_nothing(text: str):
    for candidate in (text, "smk1_" + text):
        with pytest.raises(NotAuthenticatedError):
            session_key_from_text(candidate)


def test_a_key_whose_grant_is_for_another_key_is_refused():
    key = chain_of([ROOT])
    with pytest.raises(NotAuthenticatedError):
        session_key_from_text(SessionKey(KEYS[3], key.chain).to_text())
    with pytest.raises(NotAuthenticatedError):
        session_key_from_text(SessionKey(KEYS[3], ()).to_text())
