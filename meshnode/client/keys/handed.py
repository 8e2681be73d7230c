"""What a home remembers of the session keys it has made: enough to list and to revoke them.

Invariant: no secret is here; one file a key, for the user alone, and at most KEYS_MAX of them.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import asdict, replace

from meshnode.client.home import make_private
from meshnode.client.keys.keyfiles import PRIVATE_MODE, write_whole
from meshnode.client.words import too_short
from meshnode.core.control.grants import KEY_PREFIX, common_of, is_renewal, verify_chain
from meshnode.core.errors import (
    ConflictError,
    DamagedError,
    NotFoundError,
    UsageError,
)
from meshnode.core.ids import PREFIX_CHARS_MIN
from meshnode.core.keys import Signed, key_id_of

if TYPE_CHECKING:
    from pathlib import Path

    from meshnode.client.home import Home
    from meshnode.core.control.grants import Grant, SessionKey

KEYS_MAX = 1000  # that live; more: ConflictError: one not remembered is only revoked by itself
REMEMBERED_S = 7 * 86400  # after a key has expired, while there is room
RECORD_BYTES_MAX = 64 << 10


class HandedKey(msgspec.Struct, frozen=True):
    """A key that was made here. Times are seconds since 1970; `chain` is public, in base64."""

    key_id: str
    label: str | None
    made_s: int
    expires_s: int
    chain: tuple[tuple[str, str], ...]
    revoked_s: int | None = None

    @property
    def end_s(self) -> int:
        """From when on it is worth nothing, expired or revoked."""
        return self.expires_s if self.revoked_s is None else min(self.revoked_s, self.expires_s)

    @property
    def grants(self) -> tuple[Signed, ...]:
        """The signed grants that give the key its power."""
        return tuple(
            Signed("grant", b64decode(payload), b64decode(mark)) for payload, mark in self.chain
        )

    def shown(self, mesh_id: str) -> tuple[Grant, ...]:
        """Return what those grants say."""
        return tuple(verify_chain(self.grants, mesh_id))


def handed(key: SessionKey, label: str | None, now_s: float, expires_s: int) -> HandedKey:
    """Describe a key that was just made."""
    chain = tuple(
        (b64encode(link.payload).decode(), b64encode(link.signature).decode()) for link in key.chain
    )
    return HandedKey(key_id_of(key.key.public), label, int(now_s), expires_s, chain)


def remember(home: Home, key: HandedKey, now_s: float) -> None:
    """Write a key down; forget who expired a week ago, and who ended first where no room is left.

    Raises ConflictError if so many keys live, DamagedError.
    """
    make_private(home.handed_keys)
    known = all_handed(home)
    ended = sorted((one for one in known if one.end_s <= now_s), key=lambda one: one.end_s)
    if len(known) - len(ended) >= KEYS_MAX:
        raise ConflictError(
            f"{KEYS_MAX} keys of this home are in use",
            "make fewer that live longer, or revoke some: session-mesh keys list shows them",
        )
    for place, one in enumerate(ended):
        if len(known) - place >= KEYS_MAX or one.expires_s + REMEMBERED_S < now_s:
            _file(home, one.key_id).unlink(missing_ok=True)
    _write(_file(home, key.key_id), key)


def note_revoked(home: Home, key: HandedKey, now_s: float) -> None:
    """Write down that a key was revoked."""
    _write(_file(home, key.key_id), replace(key, revoked_s=int(now_s)))


def all_handed(home: Home) -> list[HandedKey]:
    """Return all keys that are remembered, the newest first; raises DamagedError."""
    if not home.handed_keys.exists():
        return []
    files = sorted(home.handed_keys.glob("*.json"))[:KEYS_MAX]
    return sorted(map(_read, files), key=lambda key: (-key.made_s, key.key_id))


def find_handed(home: Home, key_id: str) -> HandedKey:
    """Return the key of this id, or of the one that begins so; raises NotFoundError."""
    known = all_handed(home)
    found = [key for key in known if key.key_id.startswith(key_id)]
    if len(key_id) < PREFIX_CHARS_MIN or not found:
        raise NotFoundError(
            f"this home has made no key {key_id[:60]!r}",
            too_short(key_id, (key.key_id for key in known))
            or "session-mesh keys list shows them; a key made elsewhere: keys revoke - reads it",
        )
    if len(found) > 1:
        raise ConflictError(f"{key_id!r} fits {len(found)} keys", "give the whole id")
    return found[0]


def limits_of(grants: tuple[Grant, ...]) -> dict[str, Any]:
    """Say what a key is for: `renewable`, `actions`, and where it may be used by all its links.

    A session may have several specializations: where links have none in common, the last that has
    any is shown.
    """
    specs = [link.specializations for link in grants if link.specializations is not None]
    return {
        "renewable": is_renewal(grants),
        "actions": sorted(common_of(link.actions for link in grants) or ()),
        "nodes": _listed(common_of(link.nodes for link in grants)),
        "agents": _listed(common_of(link.agents for link in grants)),
        "sessions": _listed(common_of(link.sessions for link in grants)),
        "specializations": _listed(common_of(specs) or (specs[-1] if specs else None)),
        "via": next((link.via for link in reversed(grants) if link.via), None),
    }


def _listed(values: tuple[str, ...] | None) -> list[str] | None:
    return None if values is None else list(values)


def _file(home: Home, key_id: str) -> Path:
    return home.handed_keys / f"{key_id}.json"


def _read(path: Path) -> HandedKey:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            value = json.loads(file.read(RECORD_BYTES_MAX))
        chain = tuple(_pair(link) for link in value["chain"])
        revoked_s = value["revoked_s"]
        return HandedKey(
            str(value["key_id"]),
            None if value["label"] is None else str(value["label"]),
            int(value["made_s"]),
            int(value["expires_s"]),
            chain,
            None if revoked_s is None else int(revoked_s),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"cannot read {path}: {error}", "move it away") from error


def _pair(link: list[str]) -> tuple[str, str]:
    payload, mark = link
    b64decode(payload, validate=True)
    b64decode(mark, validate=True)
    return payload, mark


def _write(path: Path, key: HandedKey) -> None:
    write_whole(path, json.dumps(asdict(key)).encode(), PRIVATE_MODE)


def checked_label(label: str) -> str | None:
    """Return a label, None for an empty one; raises UsageError."""
    if len(label) > 128 or not label.isprintable():  # noqa: PLR2004 - said in the sentence
        raise UsageError("a label has at most 128 printable characters")
    if KEY_PREFIX in label:
        raise UsageError(
            "a session key is no label: whoever lists keys could use it",
            "give a word of your own, and revoke that key",
        )
    return label or None
