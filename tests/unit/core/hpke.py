"""HPKE written down from RFC 9180 by hand: base mode, suite 0x0020, 0x0001, 0x0003, one message."""

import hmac
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

KEM_SUITE = b"KEM" + (0x0020).to_bytes(2, "big")
SUITE = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (0x0020, 0x0001, 0x0003))


def extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt, b"HPKE-v1" + suite + label + ikm, "sha256")


def expand(suite: bytes, prk: bytes, label: bytes, info: bytes, size: int) -> bytes:
    full, block, output = size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info, b"", b""
    for number in range(1, -(-size // sha256().digest_size) + 1):
        block = hmac.digest(prk, block + full + bytes([number]), "sha256")
        output += block
    return output[:size]


def shared_secret(agreed: bytes, ephemeral: bytes, receiver: bytes) -> bytes:
    prk = extract(KEM_SUITE, b"", b"eae_prk", agreed)
    return expand(KEM_SUITE, prk, b"shared_secret", ephemeral + receiver, 32)


def key_schedule(secret: bytes, info: bytes) -> tuple[bytes, bytes]:
    context = b"\0" + extract(SUITE, b"", b"psk_id_hash", b"")
    context += extract(SUITE, b"", b"info_hash", info)
    prk = extract(SUITE, secret, b"secret", b"")
    return expand(SUITE, prk, b"key", context, 32), expand(SUITE, prk, b"base_nonce", context, 12)


def seal_by_hand(
    receiver: bytes, ephemeral_seed: bytes, info: bytes, message: bytes, aad: bytes = b""
) -> bytes:
    private = X25519PrivateKey.from_private_bytes(ephemeral_seed)
    ephemeral = private.public_key().public_bytes_raw()
    agreed = private.exchange(X25519PublicKey.from_public_bytes(receiver))
    key, nonce = key_schedule(shared_secret(agreed, ephemeral, receiver), info)
    return ephemeral + ChaCha20Poly1305(key).encrypt(nonce, message, aad)


def open_by_hand(receiver_seed: bytes, info: bytes, sealed: bytes, aad: bytes = b"") -> bytes:
    private = X25519PrivateKey.from_private_bytes(receiver_seed)
    ephemeral = sealed[:32]
    agreed = private.exchange(X25519PublicKey.from_public_bytes(ephemeral))
    receiver = private.public_key().public_bytes_raw()
    key, nonce = key_schedule(shared_secret(agreed, ephemeral, receiver), info)
    return ChaCha20Poly1305(key).decrypt(nonce, sealed[32:], aad)
