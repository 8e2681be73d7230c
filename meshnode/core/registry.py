"""The specialization registry: who is good at what. Adds only; removals have their own issue.

Invariant: an entry is identified by (agent, specialization); any node may write one, in its own
feed. Entries say what agents claim about themselves and never authorise anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from meshnode.core.errors import PeerError, UsageError
from meshnode.core.packing import pack, unpack, unpack_map

REGISTRY = "registry"
TEXT_CHARS_MAX = 128
ATTRIBUTES_MAX = 32


@dataclass(frozen=True, slots=True)
class Specialist:
    """One entry: an agent and what it is good at."""

    agent_id: str
    specialization: str
    attributes: dict[str, str] = field(default_factory=dict)


def specialist(agent_id: str, specialization: str, attributes: dict[str, str]) -> Specialist:
    """Check what a user wants to register; raises UsageError."""
    for name, text in (("agent id", agent_id), ("specialization", specialization)):
        if not 0 < len(text) <= TEXT_CHARS_MAX:
            raise UsageError(f"a {name} has 1 to {TEXT_CHARS_MAX} characters")
    if len(attributes) > ATTRIBUTES_MAX:
        raise UsageError(f"at most {ATTRIBUTES_MAX} attributes")
    for key, text in attributes.items():
        if max(len(key), len(text)) > TEXT_CHARS_MAX:
            raise UsageError(f"attribute {key[:40]!r} is longer than {TEXT_CHARS_MAX} characters")
    return Specialist(agent_id, specialization, attributes)


def registry_key(entry: Specialist) -> bytes:
    """Return the key of an entry in the `registry` table."""
    return pack([entry.agent_id, entry.specialization])


def registry_row(entry: Specialist) -> bytes:
    """Encode the attributes of an entry."""
    return pack(entry.attributes)


def specialist_from_row(key: bytes, row: bytes) -> Specialist:
    """Decode an entry; raises PeerError."""
    names = unpack(key)
    if not isinstance(names, list) or [type(name) for name in names] != [str, str]:
        raise PeerError("a registry key is no pair of texts")
    attributes = {name: str(text) for name, text in unpack_map(row).items()}
    return Specialist(names[0], names[1], attributes)
