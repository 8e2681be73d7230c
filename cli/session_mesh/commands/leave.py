"""`leave`: withdraw from the mesh for good."""

from typing import Annotated

import typer

from session_mesh.call import Call
from session_mesh.nodes.stopping import stop
from session_mesh.output.render import View
from session_mesh.verbs import verb


@verb("session-mesh leave", "session-mesh leave --yes --close-sessions")
def app(
    call: Call,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    close_sessions: Annotated[
        bool | None,
        typer.Option("--close-sessions/--keep-sessions", help="End its agents, or let them live."),
    ] = None,
) -> View:
    """Withdraw this node for good.

    What it has spent stays counted.
    """
    with call.mesh() as mesh:
        call.ask_first("leave the mesh for good?", "leaving is for good", yes=yes)
        return stop(call, mesh, leave=True, close=close_sessions)
