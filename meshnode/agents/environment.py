"""The environment an agent starts with: its caller's, without our secrets, with its own names.

Invariant: no key, invite, passphrase, home or foreign ticket of this mesh is inherited by an agent.
What is stripped goes by rule, so that a name that comes later is stripped too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# Every name of ours goes: what an agent may know is set anew, and a ticket or an id that is there
# belongs to the session that our caller may itself run in.
WITHHELD = ("SESSION_MESH_", "SESSION_API_KEY")  # how names begin; SESSION_API_KEY_FILE goes too
TOLD = ("session_id", "agent_id", "node_id", "ticket")
SECRET_MARKS = ("smk1_", "smj1_", "smt1_")  # anywhere in a value: `Bearer smk1_…` is as good


def agent_environment(
    base: Mapping[str, str], opened: Mapping[str, str], socket: str
) -> dict[str, str]:
    """Return a copy of `base` that is fit for the agent of a session that was opened.

    `opened` holds `session_id, agent_id, node_id, ticket`; `socket` is the node's.
    """
    kept = {
        name: value
        for name, value in base.items()
        if not name.startswith(WITHHELD) and not any(mark in value for mark in SECRET_MARKS)
    }
    return kept | {
        **{f"SESSION_MESH_{name.upper()}": opened[name] for name in TOLD},
        "SESSION_MESH_SOCKET": socket,
    }
