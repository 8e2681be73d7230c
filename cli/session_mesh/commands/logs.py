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


@verb(
    "session-mesh logs builder --tail 50",
    "session-mesh logs builder --raw",
    "session-mesh logs berta/builder > builder.log",
)
def app(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="ID", help="A session or agent id.")] = "",
    session: SessionId = "",
    agent_id: AgentId = "",
    node: Node = "",
    tail: Annotated[int | None, typer.Option("--tail", min=0, help="The last N lines.")] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Escape nothing: colours, and whatever else it wrote.")
    ] = False,
) -> View | int:
    """Print the output of a session.

    From whichever node it runs on; raw bytes when it is piped. On a terminal, what would act on it
    is spelled out, since an agent prints what others made it print: --raw lets it act.
    """
    target = target_of(name, session, agent_id, node)
    with call.mesh() as mesh:
        pieces = mesh.logs(target, tail)
        if call.style.format == "table":
            _copy(pieces, call.streams, raw=raw)
            return 0
        output = b"".join(pieces).decode(errors="replace")
    return View(value={"output": output}, human=output)


def _copy(pieces: Iterator[bytes], streams: Streams, *, raw: bool) -> None:
    below = getattr(streams.out, "buffer", None)
    if below is not None and (raw or not streams.out_is_terminal):
        for piece in pieces:
            below.write(piece)
            below.flush()
        return
    decoder = getincrementaldecoder("utf-8")("replace")
    for piece in pieces:
        streams.out.write(escape(decoder.decode(piece), keep="\n\t"))
        streams.out.flush()
