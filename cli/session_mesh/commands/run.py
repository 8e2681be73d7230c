"""`run`: start an agent and let the mesh see it."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from meshnode.client.durations import parse_duration
from meshnode.client.errors import MeshError, NoNodeError, UsageError
from meshnode.client.targets.targets import Selection
from session_mesh.arguments.options import Labels, Specializations, pairs, several
from session_mesh.call import Call
from session_mesh.output import words
from session_mesh.output.escaping import escape
from session_mesh.output.render import View
from session_mesh.verbs import verb

if TYPE_CHECKING:
    from meshnode.client.mesh import MeshClient

NAMED_MAX = 4  # other sessions of an agent, in a sentence


@verb(
    "session-mesh run -- python agent.py",
    "session-mesh run --agent-id builder --spec build --label team=core -- ./agent --fast",
    "session-mesh run --pty -- vim notes.txt",
    "session-mesh run --detach --timeout 8h -- ./crawler",
    "session-mesh run --pty --idle-timeout 30m -- python -i agent.py",
    allow_interspersed_args=False,
)
def app(
    call: Call,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="CMD...", help="Program and arguments.")
    ] = None,
    agent_id: Annotated[
        str, typer.Option("--agent-id", metavar="A", help="Its name; else the session id.")
    ] = "",
    title: Annotated[str, typer.Option("--title", help="What it is at, for people.")] = "",
    spec: Specializations = None,
    label: Labels = None,
    owner: Annotated[str, typer.Option("--owner", help="Whom it works for.")] = "",
    steer_format: Annotated[
        Literal["none", "text", "json"],
        typer.Option(
            "--steer-format",
            help="A steer as a line on its stdin, or none: then it asks steer-inbox.",
        ),
    ] = "text",
    interrupt: Annotated[
        Literal["INT", "USR1", "USR2"] | None,
        typer.Option("--interrupt", help="The signal that it is sent before a steer --mode now."),
    ] = None,
    adapter: Annotated[
        Literal["process", "pty"] | None,
        typer.Option("--adapter", help="How it is spoken to: over pipes, or through a terminal."),
    ] = None,
    pty: Annotated[
        bool, typer.Option("--pty", help="Give it a terminal of its own: --adapter pty.")
    ] = False,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="D", help="Stop it after so long: 90s, 15m, 8h.")
    ] = "",
    idle_timeout: Annotated[
        str,
        typer.Option(
            "--idle-timeout",
            metavar="D",
            help="Stop it after so long without output, input, steer or report: 30m.",
        ),
    ] = "",
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for its end.")] = False,
) -> View | int:
    """Start an agent under supervision.

    Ends with the exit code of the agent: 128 and its number for a signal, 124 if it timed out, 127
    if there is no such command, 126 if it cannot be run, 125 if we failed (with --detach as any
    verb ends that failed). Starts a node if none runs.
    """
    from meshnode.node.sessions.supervision import (  # noqa: PLC0415 - large
        RunOptions,
        check,
        descriptors_given,
        fail_in_front,
        run,
    )

    given = () if detach else descriptors_given()  # before we open any
    if not command:
        raise UsageError("what shall run?", "session-mesh run -- CMD")
    if pty and adapter == "process":
        raise UsageError("--pty is --adapter pty, not process", "leave one of them out")
    started: list[dict[str, Any]] = []
    namesakes: list[dict[str, Any]] = []

    said = partial(_said, call, namesakes, detach=detach)

    def on_session(session: dict[str, Any]) -> None:
        started.append(session)
        for line in said(session):
            call.streams.tell(line)

    options = RunOptions(
        agent_id=agent_id,
        title=title,
        specializations=several(spec),
        labels=pairs(label),
        owner=owner,
        steer_format=steer_format,
        interrupt=interrupt or "",
        adapter="pty" if pty else adapter or "process",
        timeout_s=_lasting("--timeout", timeout),
        idle_timeout_s=_lasting("--idle-timeout", idle_timeout),
        detach=detach,
        command=tuple(command),
        descriptors=given,
        on_session=on_session,
        said=said,
    )
    check(options)
    try:
        _have_a_node(call)
        with call.mesh() as mesh:
            namesakes += _alive(mesh, agent_id)
            code = run(call.home, mesh, options)
    except MeshError as error:
        if not detach:
            fail_in_front(error)
        raise
    if not detach or not started:
        return code
    return View(
        value=started[0],
        human=_began(started[0]),
        ids=[started[0]["session_id"]],
        exit_code=code,
    )


def _alive(mesh: "MeshClient", agent_id: str) -> list[dict[str, Any]]:
    """Return the sessions that bear an agent's name already, and could be meant by it."""
    if not agent_id:
        return []
    found = mesh.list_sessions(Selection(filter="alive", agent_id=agent_id), NAMED_MAX + 1)
    return list(found["sessions"])


def _said(
    call: Call, namesakes: list[dict[str, Any]], session: dict[str, Any], *, detach: bool
) -> list[str]:
    """Say what was started, where no answer does, and how to name it beside its namesakes."""
    if call.quiet:
        return []
    started = _named(session)
    apart = [_apart(session, namesakes)] if namesakes else []
    return list(map(escape, apart if detach else [started, *apart]))


def _named(session: dict[str, Any]) -> str:
    return f"session {session['session_id']}, agent {session['agent_id']}"


def _began(session: dict[str, Any]) -> str | tuple[str, ...]:
    """Say what was started; if it has ended already, how, and where it may have said why."""
    if not session["ended_at"]:
        return _named(session)
    why, code = str(session["end_reason"]), session["exit_code"]
    with_code = "" if code is None or "exit code" in why else f", exit code {code}"
    return (
        f"{_named(session)}, has ended: {why}{with_code}",
        f"what it wrote: session-mesh logs {session['session_id']}",
    )


def _apart(session: dict[str, Any], others: list[dict[str, Any]]) -> str:
    """Say by what each session of an agent is called, now that its name alone fits several."""
    named = [f"{words.short(one['session_id'])} ({one['node_name']})" for one in others]
    more = ", ..." if len(named) > NAMED_MAX else ""
    return (
        f"{session['agent_id']} alone is ambiguous now: say {words.short(session['session_id'])}"
        f" for this session, and for the others {', '.join(named[:NAMED_MAX])}{more}"
    )


def _lasting(option: str, text: str) -> int:
    """Read a time-out, in seconds, 0 if there is none; raises UsageError."""
    if not text:
        return 0
    seconds = parse_duration(text)
    if seconds == 0:
        raise UsageError("a time-out lasts 1 s at least", f"leave {option} out for none")
    return seconds


def _have_a_node(call: Call) -> None:
    try:
        with call.mesh() as mesh:
            mesh.status()
    except NoNodeError:
        from session_mesh.nodes.starting import (  # noqa: PLC0415 - rarely needed, and large
            start_unless_another_does,
        )

        call.streams.tell(start_unless_another_does(call.home))
