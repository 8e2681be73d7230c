"""`watch`: the sessions of the mesh as they change."""

from typing import Annotated

import typer

from meshnode.client.targets.targets import Wanted, check_lengths
from session_mesh.arguments.options import EventKinds, several, stream_only
from session_mesh.call import Call
from session_mesh.verbs import verb
from session_mesh.views.happenings import tell_absence, tell_all


@verb(
    "session-mesh watch",
    "session-mesh watch -o json",
    "session-mesh watch --kind session --kind node -o json | jq -c .object",
)
def app(
    call: Call,
    kind: EventKinds = None,
    position: Annotated[
        str, typer.Option("--position", metavar="P", help="Go on behind an event seen before.")
    ] = "",
) -> int:
    """Show how things are, and every change.

    On a terminal: a table of sessions; arrows, space and b show those without room, q ends it.
    Else: one event a line.
    """
    stream_only(call.style)
    check_lengths({"position": position})
    wanted = Wanted(several(kind)).checked()
    is_table = call.streams.can_draw and call.output is None and not call.quiet
    with call.mesh() as mesh:
        if is_table and not kind and not position:
            from session_mesh.views.live import Board, show  # noqa: PLC0415 - a stream needs no terminal

            board = Board()
            return show(mesh.watch(Wanted(("session", "node")), absent=board.miss), board, call)
        absent = tell_absence(call.streams)
        tell_all(mesh.watch(wanted, position, absent), call.streams, call.style)
    return 0
