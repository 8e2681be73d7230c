"""What the command line does inside a session: by its ticket, never by the identity of a home.

Invariant: with a ticket in the environment no verb but ALLOWED runs, whatever else is set.
"""

import os
from typing import TYPE_CHECKING, Any

from meshnode.client.connection.tickets import TICKET_VARIABLE
from meshnode.client.errors import NotPermittedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshnode.client.commands.registrations import Specialist
    from meshnode.client.inside import Inside

AGENT_VARIABLE = "SESSION_MESH_AGENT_ID"
ALLOWED = ("self", "list", "find", "register", "unregister", "report", "steer-inbox", "statusline")


def is_inside() -> bool:
    """Whether this process runs in a session."""
    return bool(os.environ.get(TICKET_VARIABLE, "").strip())


def check_allowed(verb: str) -> None:
    """Raise NotPermittedError for a verb that is not for agents, inside a session."""
    if is_inside() and verb not in ALLOWED:
        raise NotPermittedError(
            f"{verb} is not allowed inside a session; allowed are {', '.join(ALLOWED)}",
            "commands are for people: run it in a shell outside the session, where"
            f" {TICKET_VARIABLE} is not set",
        )


def own_agent_id() -> str:
    """Return what this session's agent is called, as far as the environment says."""
    return os.environ.get(AGENT_VARIABLE, "")


def register_self(
    client: "Inside", entries: "Sequence[Specialist]", command_id: str
) -> list[dict[str, Any]]:
    """Register the agent of this session; raises NotPermittedError if another one is meant."""
    _without_command_id(command_id)
    with client as session:
        _check_own(session, {entry.agent_id for entry in entries})
        return [
            _outcome(session.register(entry.specialization, entry.attributes)) for entry in entries
        ]


def unregister_self(client: "Inside", spec: str, agent_id: str, command_id: str) -> dict[str, Any]:
    """Take the agent of this session out of the registry; otherwise the same."""
    _without_command_id(command_id)
    if not spec:
        raise UsageError("unregister needs --spec")
    with client as session:
        _check_own(session, {agent_id or own_agent_id()})
        return _outcome(session.unregister(spec))


def _check_own(session: "Inside", agent_ids: set[str]) -> None:
    own = session.who()["agent_id"]
    for agent_id in agent_ids - {own}:
        raise NotPermittedError(
            f"inside a session an agent registers itself, and this one is {own}, not {agent_id}",
            "leave --agent-id out, or let a person register others from outside",
        )


def _without_command_id(command_id: str) -> None:
    if command_id:
        raise UsageError("--command-id is for commands, and an agent's own entry is none")


def _outcome(answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, "command_id": None, "session_id": None, "receipt": None}
