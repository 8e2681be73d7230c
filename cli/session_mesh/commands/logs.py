"""`logs`: what a session's process wrote."""

import json
from codecs import getincrementaldecoder
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from meshnode.client import clock
from meshnode.client.durations import parse_instant, seconds_of
from meshnode.client.errors import MeshError
from meshnode.client.targets.targets import Target, has_ended
from session_mesh.arguments.completing import sessions
from session_mesh.arguments.options import AgentId, Node, SessionId, stream_only, target_of
from session_mesh.call import Call
from session_mesh.output.escaping import escape
from session_mesh.output.render import Streams, View
from session_mesh.verbs import verb
from session_mesh.views.happenings import tell_absence, while_read

if TYPE_CHECKING:
    from meshnode.client.mesh import MeshClient
    from meshnode.client.records.output import Span

PIECES_AHEAD_MAX = 16  # of 64 KiB; then the reading waits for whoever reads what is printed
ROW_WAIT_S, PAUSE_S = 3.0, 0.1  # for an end to arrive; then it is told without its reason
LINE_BYTES_MAX = 64 << 10  # of a document's output; a longer line comes in several
CHARACTER_BYTES_MAX, CONTINUATION = 4, range(0x80, 0xC0)  # of UTF-8; its bytes but the first


@verb(
    "session-mesh logs builder --tail 50",
    "session-mesh logs builder --follow --since 15m",
    "session-mesh logs builder --raw",
    "session-mesh logs berta/builder > builder.log",
)
def app(
    call: Call,
    name: Annotated[
        str, typer.Argument(metavar="ID", help="A session or agent id.", autocompletion=sessions)
    ] = "",
    session: SessionId = "",
    agent_id: AgentId = "",
    node: Node = "",
    tail: Annotated[
        int | None, typer.Option("-n", "--tail", min=0, help="The last N lines.")
    ] = None,
    since: Annotated[
        str, typer.Option("--since", metavar="D", help="Written since: a moment, a date, or 15m.")
    ] = "",
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on until the session has ended.")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Escape nothing: colours, and whatever else it wrote.")
    ] = False,
) -> View | int:
    """Print the output of a session.

    From whichever node it runs on; raw bytes when it is piped. On a terminal, what would act on it
    is spelled out, since an agent prints what others made it print: --raw lets it act. With
    --follow and -o json each line is a document: position, output.
    """
    from meshnode.client.records.output import Span  # noqa: PLC0415 - speaks protobuf

    target = target_of(name, session, agent_id, node)
    span = Span(tail, seconds_of(parse_instant(since, call.now_s())) if since else None)
    is_json = call.style.format == "json"
    writer: _Writer = _Documents(call.streams) if is_json else _Text(call.streams, raw=raw)
    if follow:
        return _follow(call, target, span, writer)
    with call.mesh() as mesh:
        pieces = mesh.logs(target, span)
        if call.style.format == "table":
            for piece in pieces:
                writer.write(piece)
            writer.end()
            return 0
        output = b"".join(pieces).decode(errors="replace")
    return View(value={"output": output}, human=output)


def _follow(call: Call, target: Target, span: "Span", writer: "_Writer") -> int:
    stream_only(call.style)
    with call.mesh() as mesh:
        session = mesh.resolve(target)
        pieces = mesh.follow_logs(session, span, tell_absence(call.streams))
        for piece in while_read(pieces, call.streams.out, PIECES_AHEAD_MAX):
            if piece.lost:
                call.streams.tell(f"warning: {piece.lost} bytes were gone before they were read")
            writer.write(piece.output, piece.position)
        writer.end()
        if not call.style.quiet:
            call.streams.tell(_how_it_ended(mesh, Target(session_id=session["session_id"])))
    return 0


def _how_it_ended(mesh: "MeshClient", target: Target) -> str:
    """Say how, if our node hears of that soon: its owner tells of an end before its row does."""
    with suppress(MeshError):  # the output is told whole all the same
        for pause_s in (*[PAUSE_S] * int(ROW_WAIT_S / PAUSE_S), 0.0):
            session = mesh.resolve(target)
            if has_ended(session):
                return f"it has ended: {session['end_reason'] or session['state']}"
            clock.pause(pause_s)
    return "it has ended"


class _Writer(Protocol):
    """Where output goes, piece by piece."""

    def write(self, output: bytes, position: int = 0) -> None:
        """Take what the process wrote, and at which byte of all its output that begins."""

    def end(self) -> None:
        """There is no more."""


class _Text:
    """For people, and as it is where it is piped."""

    def __init__(self, streams: Streams, *, raw: bool) -> None:
        below = getattr(streams.out, "buffer", None)
        self._as_it_is = below if raw or not streams.out_is_terminal else None
        self._out = streams.out
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._return = ""  # held back: the next character may make it the end of a line

    def write(self, output: bytes, position: int = 0) -> None:
        del position
        if self._as_it_is is not None:
            self._as_it_is.write(output)
            self._as_it_is.flush()
            return
        shown = self._return + self._decoder.decode(output)
        self._return = "\r" if shown.endswith("\r") else ""
        self._show(shown.removesuffix("\r"))

    def end(self) -> None:
        """Show what was held back."""
        self._show(self._return + self._decoder.decode(b"", final=True))
        self._return = ""

    def _show(self, text: str) -> None:
        # Before the end of a line it does nothing, and a terminal puts one there.
        self._out.write(escape(text.replace("\r\n", "\n"), keep="\n\t"))
        self._out.flush()


class _Documents:
    """For programs: a JSON document a line of output, its end included."""

    def __init__(self, streams: Streams) -> None:
        self._out = streams.out
        self._waiting = b""
        self._position = 0  # of what waits

    def write(self, output: bytes, position: int = 0) -> None:
        if position != self._position + len(self._waiting):
            self.end()
            self._position = position
        *lines, self._waiting = (self._waiting + output).split(b"\n")
        for line in lines:
            self._say(self._without_full_ones(line + b"\n"))
        self._waiting = self._without_full_ones(self._waiting)
        self._out.flush()

    def end(self) -> None:
        if self._waiting:
            self._say(self._waiting)
            self._waiting = b""
        self._out.flush()

    def _without_full_ones(self, line: bytes) -> bytes:
        """Say what fills a document, and return the rest."""
        while len(line) > LINE_BYTES_MAX:
            at = _cut_in(line)
            self._say(line[:at])
            line = line[at:]
        return line

    def _say(self, line: bytes) -> None:
        said = {"position": self._position, "output": line.decode(errors="replace")}
        self._out.write(json.dumps(said) + "\n")
        self._position += len(line)


def _cut_in(line: bytes) -> int:
    """Return where to cut a line that is too long: not inside a character of UTF-8."""
    for at in range(LINE_BYTES_MAX, LINE_BYTES_MAX - CHARACTER_BYTES_MAX, -1):
        if line[at] not in CONTINUATION:  # a character begins here
            return at
    return LINE_BYTES_MAX  # no UTF-8 anyway
