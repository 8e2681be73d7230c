"""`down`: stop the node for a while."""

from typing import Annotated

import typer

from session_mesh.call import Call
from session_mesh.nodes.stopping import stop
from session_mesh.output.render import View
from session_mesh.verbs import verb


@verb("session-mesh down", "session-mesh down --keep-sessions")
def app(
    call: Call,
    close_sessions: Annotated[
        bool | None,
        typer.Option("--close-sessions/--keep-sessions", help="End its agents, or let them live."),
    ] = None,
) -> View:
    """Stop the node of this home.

    It stays a member, and `up` brings it back. While agents are alive it wants to be told what
    becomes of them; on_exit of the configuration is for a node that a signal stops.
    """
    with call.mesh() as mesh:
        return stop(call, mesh, leave=False, close=close_sessions)
