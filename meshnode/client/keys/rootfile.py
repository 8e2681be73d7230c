"""The root key in a file that a passphrase seals, in a form that other tools can open.

The form is PKCS #8 in PEM, encrypted by PBES2 with PBKDF2-HMAC-SHA-256 and AES-256-CBC (RFC 5958,
RFC 8018): `openssl pkey -in FILE -text` shows the key. The line before it names the key, because
CBC would let a damaged file open as another one. Invariant: such a file is never overwritten, never
followed through a link, and never opened while other users may read it.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from textwrap import wrap
from typing import TYPE_CHECKING

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from meshnode.client.keys.keyfiles import read_private, read_secret, write_private
from meshnode.core.errors import ConflictError, DamagedError, NotAuthenticatedError, UsageError
from meshnode.core.keys import Key, key_id_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from meshnode.core.ids import Chance

# A guess costs 80 ms of a core. The library's own encryption of this form takes 2,048 rounds, and
# offers no other number: 0.4 ms a guess. So the sealing, not the opening, is done here.
ROUNDS = 600_000
PASSPHRASE_CHARS_MIN, PASSPHRASE_CHARS_MAX = 8, 1024
SALT_BYTES = BLOCK_BYTES = 16
LINE_CHARS = 64
TITLE = b"session-mesh root key "
BEGIN, END = b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"-----END ENCRYPTED PRIVATE KEY-----"

_SEQUENCE, _INTEGER, _OCTETS = b"\x30", b"\x02", b"\x04"
_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_PBKDF2 = bytes.fromhex("06092a864886f70d01050c")
_HMAC_SHA256 = bytes.fromhex("300c06082a864886f70d02090500")
_AES256_CBC = bytes.fromhex("060960864801650304012a")


class Sealed(msgspec.Struct, frozen=True):
    """Where a root key shall lie, and what opens it there."""

    path: Path
    passphrase: str

    def __repr__(self) -> str:
        """Only the place."""
        return f"Sealed({self.path})"


def check_passphrase(passphrase: str) -> None:
    """Raise UsageError for a passphrase that protects nothing, or that nobody types."""
    if not PASSPHRASE_CHARS_MIN <= len(passphrase) <= PASSPHRASE_CHARS_MAX:
        raise UsageError(
            f"a passphrase has {PASSPHRASE_CHARS_MIN} to {PASSPHRASE_CHARS_MAX} characters",
            "five or more words drawn by chance are a good one",
        )


def check_place(path: Path) -> None:
    """Raise ConflictError or UsageError where no new file can be made: before anybody is asked."""
    if os.path.lexists(path):
        raise ConflictError(f"{path} exists already", "move it away first")
    if not path.parent.is_dir():
        raise UsageError(f"there is no directory {path.parent}", "make it, or name another one")


def write_root(place: Sealed, root: Key, chance: Chance) -> None:
    """Write a sealed root key; raises ConflictError if there is such a file, UsageError."""
    check_passphrase(place.passphrase)
    private = Ed25519PrivateKey.from_private_bytes(root.seed)
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    body = b64encode(_seal(der, place.passphrase, chance(SALT_BYTES), chance(BLOCK_BYTES)))
    lines = [line.encode() for line in wrap(body.decode(), LINE_CHARS)]
    title = TITLE + key_id_of(root.public).encode()
    write_private(place.path, b"\n".join([title, BEGIN, *lines, END, b""]))


def read_root(path: Path, ask: Callable[[Path], str]) -> Key:
    """Read a root key, sealed or as a home keeps it; `ask` gives the passphrase if one is needed.

    Raises NotFoundError, NotPermittedError for a file that is a link or open to others,
    DamagedError, NotAuthenticatedError for a passphrase that does not open it.
    """
    text = read_private(path)
    if BEGIN not in text:
        return Key(read_secret(path))
    der = _der_in(text)
    if der is None:
        raise DamagedError(f"{path} is damaged: it is not complete", "use another copy of it")
    try:
        private = load_der_private_key(der, _bytes_of(ask(path)))
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it is empty
        raise NotAuthenticatedError(
            f"the passphrase does not open {path}",
            "try again; if it is right, the file is damaged: use another copy of it",
        ) from None
    if not isinstance(private, Ed25519PrivateKey):
        raise DamagedError(f"{path} holds no root key", "it holds a key of another kind")
    root = Key(private.private_bytes_raw())
    named = text.partition(BEGIN)[0].partition(TITLE)[2].split()[:1]
    if named not in ([], [key_id_of(root.public).encode()]):
        said = f"{path} is damaged: it does not hold the key that it names"
        raise DamagedError(said, "use another copy of it")
    return root


def _der_in(text: bytes) -> bytes | None:
    """Return what a PEM text encloses, if all of it is there."""
    body, end, _ = text.partition(BEGIN)[2].partition(END)
    try:
        der = b64decode(b"".join(body.split()), validate=True)
    except ValueError:
        return None
    return der if end and der == _der(_SEQUENCE, der[_header_bytes(der) :]) else None


def _header_bytes(der: bytes) -> int:
    return 3 if der[1:2] == b"\x81" else 2


def _bytes_of(passphrase: str) -> bytes:
    return passphrase.encode(errors="surrogateescape")  # as it was typed, UTF-8 or not


def _seal(der: bytes, passphrase: str, salt: bytes, first: bytes) -> bytes:
    """Encrypt PKCS #8; `first` is the initialisation vector."""
    key = PBKDF2HMAC(SHA256(), 32, salt, ROUNDS).derive(_bytes_of(passphrase))
    padding = BLOCK_BYTES - len(der) % BLOCK_BYTES
    encryptor = Cipher(AES256(key), CBC(first)).encryptor()
    sealed = encryptor.update(der + bytes([padding]) * padding) + encryptor.finalize()
    rounds = _der(_INTEGER, ROUNDS.to_bytes(3))
    derivation = _der(_SEQUENCE, _der(_OCTETS, salt) + rounds + _HMAC_SHA256)
    scheme = _der(_SEQUENCE, _AES256_CBC + _der(_OCTETS, first))
    chosen = _der(_SEQUENCE, _der(_SEQUENCE, _PBKDF2 + derivation) + scheme)
    return _der(_SEQUENCE, _der(_SEQUENCE, _PBES2 + chosen) + _der(_OCTETS, sealed))


def _der(tag: bytes, content: bytes) -> bytes:
    """Encode one value by the distinguished rules, of fewer than 256 bytes (X.690)."""
    size = len(content) & 0xFF
    return tag + (b"" if size < 0x80 else b"\x81") + bytes([size]) + content  # noqa: PLR2004 - X.690, 8.1.3
