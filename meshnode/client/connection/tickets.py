"""The ticket of the session that we run in, as `session-mesh run` put it into the environment.

Invariant: it is in no argument, no message and no error.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from meshnode.core.errors import NotAuthenticatedError

if TYPE_CHECKING:
    from collections.abc import Mapping

TICKET_VARIABLE = "SESSION_MESH_TICKET"
_TICKET = re.compile(r"[A-Za-z0-9_-]{1,128}")  # what metadata can carry; a node knows which is one


def ticket_in(environment: Mapping[str, str]) -> str:
    """Return the ticket, empty outside a session; raises NotAuthenticatedError for what is none."""
    ticket = environment.get(TICKET_VARIABLE, "").strip()
    if ticket and not _TICKET.fullmatch(ticket):
        raise NotAuthenticatedError(
            f"{TICKET_VARIABLE} holds no ticket", "a ticket is made by session-mesh run"
        )
    return ticket
