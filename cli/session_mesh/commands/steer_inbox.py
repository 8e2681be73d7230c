"""`steer-inbox`: what an agent was told, as NDJSON."""

import json
from typing import Annotated

import typer

from session_mesh.arguments.options import stream_only
from session_mesh.call import Call
from session_mesh.verbs import verb
from session_mesh.views.happenings import tell_absence


@verb(
    "session-mesh steer-inbox",
    "session-mesh steer-inbox --follow",
    "session-mesh steer-inbox --after 17",
)
def app(
    call: Call,
    follow: Annotated[
        bool, typer.Option("--follow", help="Wait for more until the session ends.")
    ] = False,
    after: Annotated[
        int | None, typer.Option("--after", min=0, metavar="N", help="Position of the last seen.")
    ] = None,
) -> int:
    """Print the steers of this session, one JSON document a line.

    Works inside a session only. Those that it has not printed yet; or, with --after, those behind a
    position. The last 256 are kept.
    """
    stream_only(call.style)
    with call.inside() as session:
        absent = tell_absence(call.streams)
        for steer in session.steers(after=after, follow=follow, absent=absent):
            text = steer["command_id"] if call.quiet else json.dumps(steer, ensure_ascii=True)
            call.streams.out.write(text + "\n")
            call.streams.out.flush()
    return 0
