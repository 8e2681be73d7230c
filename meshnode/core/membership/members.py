"""What a node publishes about itself: its member record, and the peers it has working links with.

Invariant: each node writes both rows in its own feed only, so they need no further signature.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

import msgspec

from meshnode.core.errors import PeerError, UsageError
from meshnode.core.ids import SHORT_ID_BYTES
from meshnode.core.membership.certificates import CHAIN_MAX, leads_to_root
from meshnode.core.packing import pack, typed, unpack_map
from meshnode.core.sealing import KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from meshnode.core.feeds.rows import Rows
    from meshnode.core.ids import NodeId

NODE = "node"
LINKS = "links"
ONLY_ROW = b""  # the key of a table with one row a feed
NAME_CHARS_MAX = 64
ADDRESSES_MAX = 8
LABELS_MAX = 64
LABELS_BYTES_MAX = 8 << 10  # of all keys and values in UTF-8: half of what a row may have
LABELS_SAID = f"a node has at most {LABELS_MAX} labels, of {LABELS_BYTES_MAX} bytes together"


class NodeRecord(msgspec.Struct, frozen=True):
    """The member record. Times are seconds since 1970, UTC."""

    name: str
    addresses: tuple[str, ...] = ()
    version: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    capabilities: tuple[str, ...] = ()
    journal_generation: int = 0
    standing: str = "up"  # up, down or left
    started_at_s: float = 0.0
    certificates: tuple[bytes, ...] = ()  # DER: the node's CA, then its admitter's
    sealing_key: bytes = b""  # X25519: what is sealed to it, only this node reads


class LinksRecord(msgspec.Struct, frozen=True):
    """Peers with working streams by short id, and why others were lost."""

    peers: frozenset[bytes] = frozenset()
    lost: dict[bytes, str] = msgspec.field(default_factory=dict)


def labels_beyond(labels: Mapping[str, str]) -> list[str]:
    """Return the keys of the labels that a member record has no room for, the first ones fit."""
    beyond, places, room = list[str](), LABELS_MAX, LABELS_BYTES_MAX
    for key, value in labels.items():
        size = len(key.encode()) + len(value.encode())
        if places and size <= room:
            places, room = places - 1, room - size
        else:
            beyond.append(key)
    return beyond


def check_labels(labels: Mapping[str, str]) -> None:
    """Raise UsageError for more labels than a member record has room for."""
    if beyond := labels_beyond(labels):
        raise UsageError(f"{LABELS_SAID}: there is no room for {beyond[0][:60]!r}")


def node_to_row(record: NodeRecord) -> bytes:
    """Encode for the `node` table."""
    return pack(
        {
            "name": record.name,
            "addresses": list(record.addresses),
            "version": record.version,
            "labels": record.labels,
            "capabilities": list(record.capabilities),
            "journal": record.journal_generation,
            "standing": record.standing,
            "started": record.started_at_s,
            "certificates": list(record.certificates),
            "sealing": record.sealing_key,
        }
    )


def node_from_row(row: bytes) -> NodeRecord:
    """Decode a row of the `node` table; raises PeerError. Unknown fields are passed over."""
    value = unpack_map(row)
    try:
        record = NodeRecord(
            name=str(value["name"])[:NAME_CHARS_MAX],
            addresses=tuple(str(address) for address in value["addresses"])[:ADDRESSES_MAX],
            version=str(value["version"]),
            labels={str(key): str(text) for key, text in value["labels"].items()},
            capabilities=tuple(str(name) for name in value["capabilities"]),
            journal_generation=typed(value["journal"], int),
            standing=str(value["standing"]),
            started_at_s=float(value["started"]),
            certificates=tuple(
                typed(der, bytes) for der in value.get("certificates", ())[:CHAIN_MAX]
            ),
            sealing_key=typed(value.get("sealing", b""), bytes)[:KEY_BYTES],
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise PeerError(f"not a node row: {error}") from error
    if not (0 <= record.journal_generation < 1 << 64 and isfinite(record.started_at_s)):
        raise PeerError("a node row with a number out of range")
    if record.standing not in {"up", "down", "left"}:
        raise PeerError(f"not a standing: {record.standing[:40]!r}")
    return record


def is_admitted(origin: NodeId, rows: Rows, root_keys: Collection[bytes]) -> bool:
    """Whether a feed proves by its own member record that its writer was admitted to the mesh.

    Without this any member could make up members: a feed needs no more than a fresh key.
    """
    row = rows.get(NODE, ONLY_ROW)
    try:
        record = None if row is None else node_from_row(row.value)
    except PeerError:
        return False
    return record is not None and leads_to_root(record.certificates, origin, root_keys)


def links_to_row(record: LinksRecord) -> bytes:
    """Encode for the `links` table."""
    return pack({"peers": sorted(record.peers), "lost": dict(sorted(record.lost.items()))})


def links_from_row(row: bytes) -> LinksRecord:
    """Decode a row of the `links` table; raises PeerError.

    Unknown fields are passed over, and peers that no short id can name.
    """
    value = unpack_map(row)
    try:
        named = [typed(peer, bytes) for peer in typed(value["peers"], list)]
        lost = {typed(peer, bytes): str(reason) for peer, reason in value["lost"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise PeerError(f"not a links row: {error}") from error
    return LinksRecord(frozenset(mark for mark in named if len(mark) == SHORT_ID_BYTES), lost)
