"""One entry of the specialization registry: who is good at what, and what is told about it.

Invariant: an entry is identified by (agent, specialization); any node may write one, in its own
feed, and each registration has a birth that no other one ever has. What stands in an entry is what
agents claim about themselves; it never authorises anything.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import msgspec

from meshnode.core.errors import PeerError, UsageError
from meshnode.core.packing import pack, typed, unpack, unpack_map
from meshnode.core.sessions.specializations import check_specialization

REGISTRY = "registry"
TEXT_CHARS_MAX = 128
ATTRIBUTES_MAX = 32
NUMBER_MAX = 10**12  # of a capacity or a cost: more is a slip of the keyboard
COST_HINT = "cost_per_mtok_usd"  # the one that tables show; any cost_..._usd is a cost hint
PERCENT = 100


class Specialist(msgspec.Struct, frozen=True):
    """An agent and what it is good at."""

    agent_id: str
    specialization: str
    attributes: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def place(self) -> Place:
        """What identifies the entry."""
        return Place(self.agent_id, self.specialization)


class Place(msgspec.Struct, frozen=True, order=True):
    """What identifies an entry: an agent and a specialization."""

    agent_id: str
    specialization: str


class Birth(msgspec.Struct, frozen=True, order=True):
    """Which registration it was: of which start of its node, and its number there.

    It travels in the value, so that it stays when a restored feed is written anew in another epoch.
    """

    boot: int
    number: int


class Registration(msgspec.Struct, frozen=True):
    """An entry as a feed holds it."""

    entry: Specialist
    birth: Birth


def specialist(agent_id: str, specialization: str, attributes: dict[str, str]) -> Specialist:
    """Check what a user wants to register; raises UsageError."""
    place_of(agent_id, specialization)
    check_specialization(specialization)
    if len(attributes) > ATTRIBUTES_MAX:
        raise UsageError(f"at most {ATTRIBUTES_MAX} attributes")
    for key, text in attributes.items():
        if max(len(key), len(text)) > TEXT_CHARS_MAX:
            raise UsageError(f"attribute {key[:40]!r} is longer than {TEXT_CHARS_MAX} characters")
        _check_meaning(key, text)
    return Specialist(agent_id, specialization, attributes)


def place_of(agent_id: str, specialization: str) -> Place:
    """Check what a user names an entry by; raises UsageError."""
    for name, text in (("agent id", agent_id), ("specialization", specialization)):
        if not 0 < len(text) <= TEXT_CHARS_MAX:
            raise UsageError(f"the {name} has 1 to {TEXT_CHARS_MAX} characters")
    return Place(agent_id, specialization)


def _check_meaning(key: str, text: str) -> None:
    """Raise UsageError for an attribute whose name has a meaning that its text has not."""
    shown = text[:40]
    if key == "load" and load_of(text) is None:
        raise UsageError(f"load is {shown!r}", "a share from 0 to 1, such as 0.3, or 30%")
    if key == "capacity" and not _is_number(text, whole=True):
        raise UsageError(f"capacity is {shown!r}", "how many tasks at once, a whole number")
    if key == "version" and not text.strip():
        raise UsageError("version is empty", "such as 1.4.2; or leave it out")
    if key.startswith("cost_") and not (key.endswith("_usd") and _is_number(text)):
        hint = f"US dollars, such as {COST_HINT}=2.50: the name says per what"
        raise UsageError(f"cost hint {key[:40]} is {shown!r}", hint)


def load_of(text: str) -> float | None:
    """Return a load as a share from 0 to 1, read from `0.3` or `30%`; None if it is neither."""
    number = _number_of(text.removesuffix("%"))
    if number is None:
        return None
    share = number / PERCENT if text.endswith("%") else number
    return float(share) if 0 <= share <= 1 else None


def _is_number(text: str, *, whole: bool = False) -> bool:
    number = _number_of(text)
    if number is None or not 0 <= number <= NUMBER_MAX:
        return False
    return not whole or number == int(number)


def _number_of(text: str) -> Decimal | None:
    if not text.isascii() or "_" in text:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def registry_key(place: Place) -> bytes:
    """Return the key of an entry in the `registry` table."""
    return pack([place.agent_id, place.specialization])


def registry_row(entry: Specialist, birth: Birth) -> bytes:
    """Encode what the entry says, and which registration it was."""
    return pack({"attributes": entry.attributes, "birth": birth_to_list(birth)})


def registration_from_row(key: bytes, row: bytes) -> Registration:
    """Decode an entry; raises PeerError. Fields and attributes of later versions are passed by."""
    place = place_from(unpack(key))
    if key != registry_key(place):
        raise PeerError("a registry key in another spelling")
    value = unpack_map(row)
    attributes = value.get("attributes")
    if not isinstance(attributes, dict):
        raise PeerError("a registry entry without attributes")
    kept = {str(name): str(text) for name, text in attributes.items()}
    entry = Specialist(place.agent_id, place.specialization, kept)
    return Registration(entry, birth_from(value.get("birth")))


def place_from(names: object) -> Place:
    """Read what identifies an entry from a list; raises PeerError."""
    if not isinstance(names, list) or [type(name) for name in names] != [str, str]:
        raise PeerError("a registry key is no pair of texts")
    return Place(names[0], names[1])


def birth_to_list(birth: Birth) -> list[int]:
    """Return a birth as it is packed."""
    return [birth.boot, birth.number]


def birth_from(parts: object) -> Birth:
    """Read a birth from a list; raises PeerError."""
    try:
        boot, number = typed(parts, list)
        birth = Birth(typed(boot, int), typed(number, int))
    except (TypeError, ValueError) as error:
        raise PeerError("a birth is no pair of numbers") from error
    if not (0 <= birth.boot < 1 << 64 and 0 <= birth.number < 1 << 63):
        raise PeerError("a birth is out of range")
    return birth
