"""Public keys as people hand them on: 64 hexadecimal digits, or 52 characters of base32.

Invariant: base32 is how nodes are called, so no person's key is read from it: a node that has not
joined yet is known to nobody, and its key would be given a role without anybody noticing.
"""

from __future__ import annotations

from meshnode.core.errors import PeerError, UsageError
from meshnode.core.ids import unb32
from meshnode.core.keys import parse_public

BASE32_CHARS = 52


def public_key_from(text: str, what: str, hint: str) -> bytes:
    """Read a public key; raises UsageError, also for one that lets anybody forge."""
    try:
        raw = unb32(text) if len(text) == BASE32_CHARS else bytes.fromhex(text)
        parse_public(raw)
    except (PeerError, ValueError) as error:
        raise UsageError(f"not {what}'s public key: {text[:80]!r}", hint) from error
    return raw


def operator_key_from(text: str, hint: str) -> bytes:
    """Read a person's public key, in hexadecimal digits; raises UsageError, and for a node's id."""
    raw = public_key_from(text, "an operator", hint)
    if len(text) == BASE32_CHARS:
        raise UsageError(f"that is a node's id, not a person's key: {text}", hint)
    return raw
