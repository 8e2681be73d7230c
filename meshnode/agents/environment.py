"""The environment an agent starts with: its caller's, without our secrets, with its own names.

Invariant: no key, invite, ticket or home of this mesh is inherited by an agent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# The ticket is stripped too: it belongs to the session that our caller may itself run in.
WITHHELD = frozenset(
    {
        "SESSION_API_KEY",
        "SESSION_MESH_INVITE",
        "SESSION_MESH_HOME",
        "SESSION_MESH_TICKET",
        "SESSION_MESH_ROOT_PASSPHRASE",
        "SESSION_MESH_ROOT_PASSPHRASE_NEW",
    }
)
SECRET_MARKS = ("smk1_", "smj1_")  # anywhere in a value: `Bearer smk1_…` is as good as the key


def agent_environment(
    base: Mapping[str, str], session_id: str, agent_id: str, node_id: str, socket: str
) -> dict[str, str]:
    """Return a copy of `base` that is fit for the agent of this session."""
    kept = {
        name: value
        for name, value in base.items()
        if name not in WITHHELD and not any(mark in value for mark in SECRET_MARKS)
    }
    return kept | {
        "SESSION_MESH_SESSION_ID": session_id,
        "SESSION_MESH_AGENT_ID": agent_id,
        "SESSION_MESH_NODE_ID": node_id,
        "SESSION_MESH_SOCKET": socket,
    }
