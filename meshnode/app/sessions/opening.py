"""What a user says about a session that is about to start, and how much of it may be said.

Invariant: whatever passes here fits into a row, and is shown as it was said.
"""

from __future__ import annotations

import msgspec

from meshnode.core.errors import UsageError
from meshnode.core.sessions.specializations import check_specialization

PTY = "pty"
ADAPTERS = ("process", PTY)  # how an agent is spoken to: over pipes, or through a terminal
TEXT_CHARS_MAX = 256
LIST_MAX = 32


class Opening(msgspec.Struct, frozen=True):
    """What a user says about a session that is about to start."""

    agent_id: str = ""
    title: str = ""
    specializations: tuple[str, ...] = ()
    labels: dict[str, str] | None = None
    owner: str = ""
    cwd: str = ""
    adapter: str = ADAPTERS[0]
    can_steer: str = "queue"  # or preempt: it is interrupted by a steer that says so


def check_opening(opening: Opening) -> None:
    """Raise UsageError for what no session may say of itself."""
    texts = {
        "agent id": opening.agent_id,
        "title": opening.title,
        "owner": opening.owner,
        **{f"specialization {spec[:20]!r}": spec for spec in opening.specializations},
        **{f"label {key[:20]!r}": text for key, text in (opening.labels or {}).items()},
    }
    for name, text in texts.items():
        if len(text) > TEXT_CHARS_MAX:
            raise UsageError(f"the {name} is longer than {TEXT_CHARS_MAX} characters")
    if opening.adapter not in ADAPTERS:
        hint = f"one of: {', '.join(ADAPTERS)}"
        raise UsageError(f"there is no adapter {opening.adapter[:60]!r}", hint)
    for spec in opening.specializations:
        check_specialization(spec)
    if not all(opening.specializations):
        raise UsageError("a specialization is never empty")
    if "/" in opening.agent_id:
        hint = "node/agent is one at a node; use a dash, a dot or an underscore"
        raise UsageError(f"an agent id has no slash: {opening.agent_id[:60]!r}", hint)
    if max(len(opening.specializations), len(opening.labels or {})) > LIST_MAX:
        raise UsageError(f"at most {LIST_MAX} specializations and {LIST_MAX} labels")
