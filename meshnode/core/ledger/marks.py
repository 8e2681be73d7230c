"""What tells counters of one session, model and tier apart, where several share them.

A mark stands in the tier, for who knows no marks prices it as if there were none: `standard>#MARK`,
`standard#MARK>200000`. Invariant: it depends on the texts of a record alone, so that whoever counts
the same records, in whatever order, has the same counters. Names that no key of a feed has room for
are shortened, with such a mark of their own.

Where a gateway serves several it is a hash of whose the counter is. Where an agent inside a session
of the mesh wrote into a log under a name of its own, it is the id of that session: the key keeps
the log's name, so that a log that is read anew is counted in the same counters.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

from meshnode.core.ids import SESSION_ID_CHARS, is_session_id
from meshnode.core.packing import pack_lists

GATEWAYS = frozenset({"higress"})  # sources where one session may be of several consumers
MARK = "#"  # begins a mark; no service tier has it
MARK_DIGITS = 8  # of a hash: of two among a thousand in a session one in ten thousand meets another
NAMES_BYTES_MAX = 1000  # of session, model and tier in UTF-8: a feed takes keys of 1024 bytes
NAME_BYTES_MAX = 256  # of a session, and of a model, where they have more
FOLDED = "(older sessions)"  # told in their place; no counter of a log has that name
SESSION_MARKS = (
    "2" * SESSION_ID_CHARS,
    "z" * SESSION_ID_CHARS,
)  # the first and the last one
_KEPT = 4096  # read again and again


@lru_cache(_KEPT)
def mark_of(agent: str, owner: str, project: str, provider: str) -> str:
    """Return the mark of what is counted for these: hexadecimal digits of a SHA-256."""
    return sha256(pack_lists((agent, owner, project, provider))).hexdigest()[:MARK_DIGITS]


def marked(tier: str, mark: str) -> str:
    """Put a mark into a tier that has none."""
    service, _, step = tier.partition(">")
    return f"{service}{MARK}{mark}>{step}" if step else f"{service}>{MARK}{mark}"


def session_in(session: str, tier: str) -> str:
    """Return the session that a counter is told under: the mesh's, where its mark is one."""
    if MARK not in tier:
        return session
    mark = tier.partition(MARK)[2].partition(">")[0]
    return mark if is_session_id(mark) else session


def names_in(session: str, tier: str) -> tuple[str, str]:
    """Return the names by which a counter's session is found: its log's own, and the mesh's."""
    return session, session_in(session, tier)


def unmarked(tier: str) -> str:
    """Return a tier without its mark."""
    if MARK not in tier:
        return tier
    service, _, step = tier.partition(">")
    service, step = service.partition(MARK)[0], step.partition(MARK)[0]
    return f"{service}>{step}" if step else service


def fitting(session: str, model: str, tier: str) -> tuple[str, str, str]:
    """Return the names in a key: as they are, nearly always; else shortened, but told apart."""
    if len(session) + len(model) + len(tier) <= NAMES_BYTES_MAX // 4:  # of a character up to 4
        return session, model, tier
    if len(f"{session}{model}{tier}".encode()) <= NAMES_BYTES_MAX:
        return session, model, tier
    return _shortened(session), _shortened(model), tier


def _shortened(name: str) -> str:
    packed = name.encode()
    if len(packed) <= NAME_BYTES_MAX:
        return name
    end = f"~{sha256(packed).hexdigest()[:MARK_DIGITS]}"
    return packed[: NAME_BYTES_MAX - len(end)].decode(errors="ignore") + end
