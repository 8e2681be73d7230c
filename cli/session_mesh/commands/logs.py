"""`logs`: what a session's process wrote."""

from codecs import getincrementaldecoder
from collections.abc import Iterator
from typing import Annotated

import typer

from session_mesh.call import Call
from session_mesh.escaping import escape
from session_mesh.options import AgentId, Node, SessionId, target_of
from session_mesh.render import Streams, View
from session_mesh.verbs import verb


@verb("session-mesh logs builder --tail 50", "session-mesh logs berta/builder > builder.log")
def app(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="ID", help="A session or agent id.")] = "",
    session: SessionId = "",
    agent_id: AgentId = "",
    node: Node = "",
    tail: Annotated[int | None, typer.Option("--tail", min=0, help="The last N lines.")] = None,
) -> View | int:
    """Print the output of a session.

    From whichever node it runs on; raw bytes when it is piped.
    """
    target = target_of(name, session, agent_id, node)
    with call.mesh() as mesh:
        pieces = mesh.logs(target, tail)
        if call.style.format == "table":
            _copy(pieces, call.streams)
            return 0
        output = b"".join(pieces).decode(errors="replace")
    return View(value={"output": output}, human=output)


def _copy(pieces: Iterator[bytes], streams: Streams) -> None:
    raw = getattr(streams.out, "buffer", None)
    if raw is not None and not streams.out_is_terminal:
        for piece in pieces:
            raw.write(piece)
            raw.flush()
        return
    decoder = getincrementaldecoder("utf-8")("replace")
    for piece in pieces:
        streams.out.write(escape(decoder.decode(piece), keep="\n\t"))
        streams.out.flush()
