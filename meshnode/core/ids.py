"""Identifiers: strings that people copy, and bytes that protocols carry.

Invariant: a node id is its public key, so an id proves itself; nothing here reads chance by itself.
"""

from __future__ import annotations

from base64 import b32decode, b32encode
from collections import Counter
from functools import lru_cache
from hashlib import sha256
from shlex import quote
from typing import TYPE_CHECKING, NewType

from meshnode.core.errors import ConflictError, PeerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

NodeId = NewType("NodeId", str)  # 52 characters of lower-case base32: an Ed25519 public key
MeshId = NewType("MeshId", str)  # 52 characters of lower-case base32: SHA-256 of the genesis
SessionId = NewType("SessionId", str)  # 26 characters of lower-case base32: see session_id_of
SESSION_ID_BYTES, SESSION_ID_CHARS = 16, 26
BASE32 = frozenset("abcdefghijklmnopqrstuvwxyz234567")  # as `b32` writes it
SHORT_ID_BYTES = 8  # how `links` rows name peers
MEANT_SHOWN_MAX = 10  # of nodes that one word fits; of more that there are more
PREFIX_CHARS_MIN = 8  # shorter prefixes of an id are not accepted from users
PASTED_CHARS = 10  # of a node id in a command that we tell somebody to run

if TYPE_CHECKING:
    Chance = Callable[[int], bytes]
    """Yields that many random bytes: `os.urandom` in a node, `Random(seed).randbytes` in a test."""


def is_session_id(text: str) -> bool:
    """Tell whether a text has the form of a session's id."""
    return len(text) == SESSION_ID_CHARS and BASE32.issuperset(text)


def b32(raw: bytes) -> str:
    """Encode bytes as lower-case base32 without padding (RFC 4648)."""
    return b32encode(raw).decode().rstrip("=").lower()


def unb32(text: str) -> bytes:
    """Decode lower-case base32 without padding; raises PeerError on anything else."""
    try:
        raw = b32decode(text.upper() + "=" * (-len(text) % 8))
    except ValueError as error:
        raise PeerError(f"not base32: {text[:60]!r}") from error
    if b32(raw) != text:
        raise PeerError(f"not canonical base32: {text[:60]!r}")
    return raw


def node_id_of(public_key: bytes) -> NodeId:
    """Name the node that holds this Ed25519 key."""
    return NodeId(b32(public_key))


@lru_cache(maxsize=1 << 14)
def node_key_of(node_id: str) -> bytes:
    """Return the 32-byte public key that a node id is; raises PeerError if it is no node id."""
    raw = unb32(node_id)
    if len(raw) != 32:  # noqa: PLR2004 - the size of an Ed25519 public key (RFC 8032)
        raise PeerError(f"not a node id: {node_id[:60]!r}")
    return raw


def short_id_of(node_id: str) -> bytes:
    """Return the 8 bytes by which rows name a node."""
    return sha256(node_id.encode()).digest()[:SHORT_ID_BYTES]


def session_id_of(node_id: str, start: int) -> SessionId:
    """Name the session that a node has started with this random number.

    So a row proves whose session it is: who copies another's id has no number that goes with it.
    """
    named = b"smesh/v1/session\0" + node_id.encode() + start.to_bytes(8, "big")
    return SessionId(b32(sha256(named).digest()[:SESSION_ID_BYTES]))


def names_apart(names: Mapping[str, str]) -> dict[str, str]:
    """Return what to call each node, by its id: namesakes by their name and the start of their id.

    No node's own name has a slash in it.
    """
    counts = Counter(names.values())
    return {
        node_id: name if counts[name] == 1 else f"{name}/{node_id[:PREFIX_CHARS_MIN]}"
        for node_id, name in names.items()
    }


def nodes_meant(word: str, names: Mapping[str, str]) -> list[str]:
    """Return the ids of the nodes that a word can mean, from their names by id.

    It is a whole id before all else. A name, what `names_apart` calls one, and the start of an id
    count alike: a node whose name is how another's id begins is not taken for that one.
    """
    if word in names:
        return [word]
    name, _, start = word.rpartition("/")
    may_begin = len(start) >= PREFIX_CHARS_MIN
    return [
        node_id
        for node_id, called in names.items()
        if called == word or (may_begin and node_id.startswith(start) and name in {"", called})
    ]


def fits_several(word: str, meant: Sequence[str], names: Mapping[str, str]) -> ConflictError:
    """Word that a word can mean several nodes, and how to say each."""
    called = ", ".join(f"{node_id} ({names[node_id]})" for node_id in meant[:MEANT_SHOWN_MAX])
    more = ", ..." if len(meant) > MEANT_SHOWN_MAX else ""
    hint = f"say which, by its whole id: {called}{more}"
    return ConflictError(f"{word[:60]!r} fits {len(meant)} nodes", hint)


def pasted(word: str, node_id: str = "") -> str:
    """Write whom a command is about so that it can be pasted into a shell.

    Names are what their bearers like, `$(reboot)` too: a node is named by the start of its id.
    """
    return quote(node_id[:PASTED_CHARS] or word)


def new_u64(chance: Chance) -> int:
    """Make a random number that is never zero: boots, session epochs, journal generations."""
    return int.from_bytes(chance(8), "big") or 1
