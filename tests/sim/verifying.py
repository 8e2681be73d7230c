"""Signatures that a whole simulated mesh verifies: each is computed once, by the real library.

Invariant: only what the library has accepted is remembered, under a hash of the key, the signature
and the bytes it covers; anything else, a forgery above all, is computed each time.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from meshnode.core import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ACCEPTED_MAX = 100_000  # then all are forgotten, and computed anew

_parse = keys.parse_public
_accepted: set[bytes] = set()


class Verifier:
    """A public key that remembers what it has accepted."""

    __slots__ = ("_key", "_raw")

    def __init__(self, raw: bytes) -> None:
        self._key, self._raw = _parse(raw), raw

    def verify(self, signature: bytes, covered: bytes) -> None:
        """Raise InvalidSignature unless the signature is this key's."""
        mark = sha256(self._raw + len(signature).to_bytes(8) + signature + covered).digest()
        if mark in _accepted:
            return
        self._key.verify(signature, covered)
        if len(_accepted) >= ACCEPTED_MAX:
            _accepted.clear()
        _accepted.add(mark)


@contextmanager
def remembering() -> Iterator[None]:
    """Let `keys.verify` remember, in this process, meanwhile."""
    with _parsing(cache(Verifier)):
        yield
    _accepted.clear()


@contextmanager
def computing() -> Iterator[None]:
    """Let it compute each signature, as in a node."""
    with _parsing(_parse):
        yield


@contextmanager
def _parsing(parse: Callable[[bytes], Any]) -> Iterator[None]:
    before, keys.parse_public = keys.parse_public, parse
    try:
        yield
    finally:
        keys.parse_public = before
