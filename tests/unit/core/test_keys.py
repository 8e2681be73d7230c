"""Keys, signed values, and keys derived from others."""

from random import Random

import pytest

from meshnode.core.errors import PeerError
from meshnode.core.keys import (
    Key,
    Signed,
    decode_checked,
    derive_session_key,
    encode_checked,
    key_id_of,
    parse_public,
    verify,
)

P = 2**255 - 19
ORDER_8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"
OTHER_ORDER_8 = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"


def encoded(y: int, sign: int = 0) -> bytes:
    return (y | sign << 255).to_bytes(32, "little")


def with_sign(text: str) -> bytes:
    raw = bytearray.fromhex(text)
    raw[31] |= 0x80
    return bytes(raw)


SMALL_ORDER = {
    "order 1": encoded(1),
    "order 1, x negative": encoded(1, 1),
    "order 2": encoded(P - 1),
    "order 2, x negative": encoded(P - 1, 1),
    "order 4": encoded(0),
    "order 4, other x": encoded(0, 1),
    "order 8": bytes.fromhex(ORDER_8),
    "order 8, other x": with_sign(ORDER_8),
    "order 8, other y": bytes.fromhex(OTHER_ORDER_8),
    "order 8, other y and x": with_sign(OTHER_ORDER_8),
}
NOT_CANONICAL = {
    f"y = p + {over}, sign {sign}": encoded(P + over, sign) for over in range(19) for sign in (0, 1)
}


@pytest.fixture
def key() -> Key:
    return Key(bytes(range(32)))


@pytest.mark.parametrize("name", SMALL_ORDER)
def test_a_public_key_of_small_order_is_refused(name: str):
    with pytest.raises(PeerError):
        parse_public(SMALL_ORDER[name])


@pytest.mark.parametrize("name", NOT_CANONICAL)
def test_a_public_key_that_is_not_canonical_is_refused(name: str):
    with pytest.raises(PeerError):
        parse_public(NOT_CANONICAL[name])


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_public_key_has_32_bytes(size: int):
    with pytest.raises(PeerError):
        parse_public(b"\x05" * size)


def test_a_small_order_key_would_have_let_anybody_sign(key: Key):
    forged = Signed("kind", b"anything", encoded(1) + bytes(32))
    with pytest.raises(PeerError, match="small order"):
        verify(forged, "kind", encoded(1))
    with pytest.raises(PeerError, match="wrong"):
        verify(forged, "kind", key.public)


def test_a_signature_covers_its_type(key: Key):
    signed = key.sign("grant", {"a": 1})
    verify(signed, "grant", key.public)
    with pytest.raises(PeerError, match="expected a signed command"):
        verify(signed, "command", key.public)
    renamed = Signed("command", signed.payload, signed.signature)
    with pytest.raises(PeerError, match="wrong"):
        verify(renamed, "command", key.public)


def test_every_changed_bit_of_a_payload_or_signature_is_noticed(key: Key):
    signed = key.sign("kind", {"a": 1})
    for part in (signed.payload, signed.signature):
        for place in range(len(part) * 8):
            changed = bytearray(part)
            changed[place // 8] ^= 1 << place % 8
            payload = bytes(changed) if part is signed.payload else signed.payload
            signature = bytes(changed) if part is signed.signature else signed.signature
            with pytest.raises(PeerError):
                verify(Signed("kind", payload, signature), "kind", key.public)


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(65)])
def test_a_signature_of_another_length_is_wrong(key: Key, signature: bytes):
    with pytest.raises(PeerError):
        verify(Signed("kind", b"payload", signature), "kind", key.public)


def test_the_signature_of_another_key_is_wrong(key: Key):
    other = Key(bytes(32))
    with pytest.raises(PeerError):
        verify(key.sign("kind", {}), "kind", other.public)


def test_equal_values_are_signed_alike_whatever_their_order(key: Key):
    assert key.sign("kind", {"a": 1, "b": 2}) == key.sign("kind", {"b": 2, "a": 1})


def test_a_derived_session_key_is_the_one_other_implementations_derive():
    derived = derive_session_key(bytes(range(32)), "mesh", bytes(range(16)), 7)
    assert derived.seed.hex() == (
        "fe528fbdb1adfa1bf8ab5f35656cb3133b23171c538c6bbeb21f1a615617bf64"
    )
    assert derived.public.hex() == (
        "28afae04ba7423a6e5b6867268b159b62855fe1da2b90c2e9e0311d4839b14aa"
    )


def test_every_part_of_a_derivation_changes_the_key():
    root, kid = bytes(range(32)), bytes(16)
    seeds = {
        derive_session_key(root, "mesh", kid, 1).seed,
        derive_session_key(bytes(32), "mesh", kid, 1).seed,
        derive_session_key(root, "other", kid, 1).seed,
        derive_session_key(root, "mesh", bytes(15) + b"\1", 1).seed,
        derive_session_key(root, "mesh", kid, 2).seed,
    }
    assert len(seeds) == 5


def test_a_key_never_shows_its_seed(key: Key):
    assert key.seed.hex()[:8] not in repr(key)
    assert key.public.hex()[:16] in repr(key)
    assert len(key_id_of(key.public)) == 16


@pytest.mark.parametrize("size", range(40))
def test_a_checked_text_comes_back_and_every_changed_character_is_refused(size: int):
    body = Random(size).randbytes(size)
    text = encode_checked(body, b"label")
    assert decode_checked(text, b"label") == body
    alphabet = "ABCDabcd0123-_+/=\n .é\udc80"
    for place, present in enumerate(text):
        for letter in alphabet.replace(present, ""):
            with pytest.raises(PeerError):
                decode_checked(text[:place] + letter + text[place + 1 :], b"label")
    for changed in (text[:-1], text + "A", text + "=", text + "====", "A" + text):
        with pytest.raises(PeerError):
            decode_checked(changed, b"label")
    with pytest.raises(PeerError):
        decode_checked(text, b"other")
