"""What a user wants to register, from words or from a file, checked as a whole before any is sent.

Invariant: if one entry is wrong, none is returned, and the error names it and its line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.core.errors import UsageError
from meshnode.core.sessions.registry import Specialist, specialist

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshnode.client.documents import Entry

__all__ = ["Specialist", "registrations", "registrations_in"]

ENTRIES_MAX = 1000  # as many as one node registers
KEYS = ("spec", "specialization", "agent_id", "attributes")


def registrations(
    agent_id: str, specs: Sequence[str], attributes: dict[str, str]
) -> list[Specialist]:
    """Check one agent with one or more specializations; raises UsageError."""
    if not agent_id or not specs:
        raise UsageError("register needs --spec and --agent-id, or -f FILE")
    return [specialist(agent_id, spec, attributes) for spec in specs]


def registrations_in(
    root: Entry, agent_id: str, specs: Sequence[str], attributes: dict[str, str]
) -> list[Specialist]:
    """Read one entry or a list of them; the other arguments stand in for what it leaves out.

    Raises UsageError naming document and line.
    """
    entries: list[Specialist] = []
    for number, item in enumerate(root.value if isinstance(root.value, list) else [root], 1):
        try:
            entries += _in_item(item, agent_id, specs, attributes)
        except UsageError as error:
            if error.message.startswith(f"{item.document}:"):
                raise
            item.fail(f"entry {number}: {error.message}", error.hint)
        if len(entries) > ENTRIES_MAX:
            item.fail(f"more than {ENTRIES_MAX} entries", "register them in parts")
    if not entries:
        root.fail("no entry in it", "spec: …, agent_id: …, attributes: {…}; or a list of such")
    return entries


def _in_item(
    item: Entry, agent_id: str, specs: Sequence[str], attributes: dict[str, str]
) -> list[Specialist]:
    item.check_keys(KEYS)
    fields = item.map("an entry")
    if "agent_id" in fields:
        agent_id = fields["agent_id"].text("agent_id")
    if "spec" in fields and "specialization" in fields:
        fields["specialization"].fail(
            "both spec and specialization, which are one key", "spec: [a, b]"
        )
    written = fields.get("spec") or fields.get("specialization")
    if written is not None:
        single = isinstance(written.value, str)
        specs = (written.text("spec"),) if single else written.texts("spec")
    own = fields["attributes"].labels("attributes") if "attributes" in fields else {}
    if not agent_id or not specs:
        missing = "an agent_id" if specs else "a spec"
        raise UsageError(f"without {missing}", "write it there, or give --agent-id and --spec")
    return [specialist(agent_id, spec, own | attributes) for spec in specs]
