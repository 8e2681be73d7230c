"""Sealing: the library against RFC 9180 as written down by hand, and that against its vectors."""

import json
from pathlib import Path
from random import Random

import pytest
from unit.core.hpke import key_schedule, open_by_hand, seal_by_hand, shared_secret

from meshnode.core.errors import PeerError
from meshnode.core.keys import Key
from meshnode.core.sealing import SEALED_BYTES_MORE, SealingKey, seal

# RFC 9180, appendix A.2.1.
INFO = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
EPHEMERAL = bytes.fromhex("f4ec9b33b792c372c1d2c2063507b684ef925b8c75a42dbcbf57d63ccd381600")
RECEIVER = bytes.fromhex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb")
PUBLIC = bytes.fromhex("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a")
ENC = bytes.fromhex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a")
SECRET = bytes.fromhex("0bbe78490412b4bbea4812666f7916932b828bba79942424abb65244930d69a7")
AEAD_KEY = bytes.fromhex("ad2744de8e17f4ebba575b3f5f5a8fa1f69c2a07f6e7500bc60ca6e3e3ec1c91")
NONCE = bytes.fromhex("5c4d98150661b848853b547f")
PLAIN = bytes.fromhex("4265617574792069732074727574682c20747275746820626561757479")
AAD = bytes.fromhex("436f756e742d30")
CIPHER = bytes.fromhex(
    "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28"
)
# Points of small order, and the two that are not canonical (RFC 7748, section 7; Bernstein's list).
HIDING_NOTHING = [
    bytes(32),
    b"\1" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]
chance = Random(9).randbytes


def test_what_is_written_by_hand_gives_the_vectors_of_the_rfc():
    agreed_key, nonce = key_schedule(SECRET, INFO)
    assert (agreed_key, nonce) == (AEAD_KEY, NONCE)
    assert seal_by_hand(PUBLIC, EPHEMERAL, INFO, PLAIN, AAD) == ENC + CIPHER
    assert open_by_hand(RECEIVER, INFO, ENC + CIPHER, AAD) == PLAIN
    assert shared_secret(b"", ENC, PUBLIC) != SECRET


@pytest.mark.parametrize("size", [0, 1, 63, 64, 1000, 70_000])
def test_what_we_seal_opens_by_the_rfc_and_what_the_rfc_seals_opens_here(size: int):
    seed, message, about = chance(32), chance(size), chance(40)
    key = SealingKey(seed)
    sealed = seal(key.public, message, about)
    assert len(sealed) == size + SEALED_BYTES_MORE
    assert open_by_hand(seed, about, sealed) == message
    assert key.open(seal_by_hand(key.public, chance(32), about, message), about) == message


def test_no_bit_may_be_changed_nor_what_it_is_about():
    key = SealingKey(chance(32))
    sealed = seal(key.public, b"steer", b"this")
    for place in range(len(sealed)):
        with pytest.raises(PeerError):
            key.open(sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :], b"this")
    for wrong in (b"", b"that", b"this "):
        with pytest.raises(PeerError):
            key.open(sealed, wrong)
    with pytest.raises(PeerError):
        SealingKey(chance(32)).open(sealed, b"this")
    assert key.open(sealed, b"this") == b"steer"


@pytest.mark.parametrize("size", range(0, 49, 8))
def test_what_is_too_short_does_not_open(size: int):
    with pytest.raises(PeerError):
        SealingKey(chance(32)).open(bytes(size), b"")


@pytest.mark.parametrize("public", [*HIDING_NOTHING, b"", bytes(31), bytes(33)])
def test_nothing_is_sealed_to_a_key_that_hides_nothing(public: bytes):
    with pytest.raises(PeerError):
        seal(public, b"steer", b"")


@pytest.mark.parametrize("ephemeral", HIDING_NOTHING)
def test_nothing_opens_that_was_sealed_with_such_a_key(ephemeral: bytes):
    with pytest.raises(PeerError):
        SealingKey(chance(32)).open(ephemeral + chance(40), b"")


def test_a_key_never_shows_itself():
    key = SealingKey(b"s" * 32)
    assert b"s" * 32 not in repr(key).encode()
    assert (b"s" * 32).hex() not in repr(key)
    assert key.public.hex()[:16] in repr(key)


def test_a_nodes_sealing_key_is_another_in_another_mesh():
    node = Key(b"n" * 32)
    one, other = SealingKey.of_node(node, "m" * 52), SealingKey.of_node(node, "o" * 52)
    assert one.public == SealingKey.of_node(node, "m" * 52).public
    assert len({one.public, other.public, node.public}) == 3


VECTORS = json.loads((Path(__file__).parents[3] / "docs/protocol/vectors/routing.json").read_text())


def test_the_vectors_of_the_documentation_hold():
    sender, owner = (Key(bytes.fromhex(VECTORS["seeds"][name])) for name in ("sender", "owner"))
    sealing = SealingKey.of_node(owner, VECTORS["mesh"])
    assert sealing.public.hex() == VECTORS["sealing_key"]
    assert sender.public.hex() == VECTORS["sender_key"]
    for vector in VECTORS["sealed"]:
        receiver = SealingKey(bytes.fromhex(vector["to_seed"])) if vector["to_seed"] else sealing
        sealed, about = bytes.fromhex(vector["sealed"]), bytes.fromhex(vector["about"])
        assert receiver.open(sealed, about).hex() == vector["inside"]
        by_hand = seal_by_hand(
            receiver.public,
            bytes.fromhex(vector["ephemeral"]),
            about,
            bytes.fromhex(vector["inside"]),
        )
        assert by_hand == sealed
