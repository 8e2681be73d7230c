"""`steer`: redirect agents."""

from typing import Annotated, Literal

import typer

from meshnode.client.durations import parse_duration
from meshnode.client.errors import UsageError
from meshnode.client.targets.targets import Delivery
from session_mesh.arguments.completing import recipients, specializations
from session_mesh.arguments.options import (
    AgentId,
    CommandId,
    Labels,
    Node,
    SessionId,
    Timeout,
    Wait,
    narrowed,
    target_of,
)
from session_mesh.arguments.stdin import read_text
from session_mesh.call import Call
from session_mesh.orders.orders import asked, carry_out, chosen, one
from session_mesh.output.render import View
from session_mesh.verbs import verb

MESSAGE_CHARS_MAX = 32 * 1024  # of stdin: more is no message, whatever its encoding


@verb(
    'session-mesh steer builder "look at the failing test first"',
    "session-mesh steer --agent-id 123 --direction west",
    "git diff | session-mesh steer builder -",
    'session-mesh steer --all --spec review "pause after this file"',
)
def app(
    call: Call,
    given: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ID] [TEXT|-]",
            help="A session or agent id; the message.",
            autocompletion=recipients,
        ),
    ] = None,
    session: SessionId = "",
    agent_id: AgentId = "",
    direction: Annotated[str, typer.Option("--direction", help="A direction by name.")] = "",
    message: Annotated[str, typer.Option("--message", help="The message.")] = "",
    mode: Annotated[
        Literal["soft", "now", "after"] | None,
        typer.Option("--mode", help="Beside what it does, at once, or when it is done with it."),
    ] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Every session not ended.")] = False,
    spec: Annotated[
        str, typer.Option("--spec", help="With --all: of this one.", autocompletion=specializations)
    ] = "",
    node: Node = "",
    label: Labels = None,
    timeout: Timeout = "10s",
    command_id: CommandId = "",
    wait: Wait = "delivered",
    yes: Annotated[bool, typer.Option("--yes", help="With --all: do not ask.")] = False,
) -> View:
    """Redirect an agent.

    Sends a message or a direction, and says what the owner node answered and signed. A suspended
    agent is sent it too (queued): it reads it once it is resumed. Many are told 16 at a time, after
    one question on a terminal.
    """
    named = bool(session or agent_id or everyone)
    name, text = _words(given or [], named=named)
    said = _message(text, message)
    if not said and not direction:
        raise UsageError("nothing to say", "give TEXT, --message or --direction")
    delivery = Delivery(parse_duration(timeout), command_id, wait)
    with call.mesh() as mesh:
        if everyone:
            aim = chosen(mesh, narrowed(spec, node, label), delivery, "steer")
            if call.can_ask and not yes:
                aim = asked(call, mesh, aim, "steer")
        else:
            aim = one(target_of(name, session, agent_id, node), spec, label)
        return carry_out(
            call,
            mesh,
            aim,
            lambda target: mesh.steer(
                target, message=said, direction=direction, mode=mode or "", delivery=delivery
            ),
            wait,
        )


def _words(given: list[str], *, named: bool) -> tuple[str, str]:
    """Tell the id from the text: a session that is named by a flag leaves only the text."""
    expected = ("", *given) if named else tuple(given)
    if len(expected) > len(("id", "text")):
        raise UsageError(f"what is {expected[2][:60]!r}?", "put the message in quotes")
    name, text = (*expected, "", "")[:2]
    return name, text


def _message(text: str, message: str) -> str:
    if text and message:
        raise UsageError("two messages", "give TEXT or --message")
    said = text or message
    if said == "-":
        said = read_text(MESSAGE_CHARS_MAX + 1, "the message").rstrip("\n")
    if len(said) > MESSAGE_CHARS_MAX:
        raise UsageError(f"a message has at most {MESSAGE_CHARS_MAX} characters")
    return said
