"""`invite`: let another machine in."""

from typing import Annotated, Literal

import typer

from meshnode.client.durations import parse_duration
from meshnode.client.errors import UsageError
from session_mesh.arguments.options import Labels, pairs
from session_mesh.call import Call
from session_mesh.output.render import View
from session_mesh.verbs import verb


@verb(
    "session-mesh invite",
    "session-mesh invite --uses 20 --ttl 1h --node-only",
    "session-mesh invite -q | ssh berta session-mesh join - --up",
)
def app(
    call: Call,
    ttl: Annotated[str, typer.Option("--ttl", metavar="D", help="How long it is good.")] = "15m",
    uses: Annotated[
        int,
        typer.Option(
            "--uses", min=1, help="How many devices it admits; several get no role unless told."
        ),
    ] = 1,
    role: Annotated[
        Literal["operator", "observer"] | None,
        typer.Option("--role", help="What the joiner may; operator when it admits one device."),
    ] = None,
    node_only: Annotated[
        bool, typer.Option("--node-only", help="The joiner obeys and never commands.")
    ] = False,
    label: Labels = None,
    for_key: Annotated[
        str | None, typer.Option("--for-key", metavar="PUB", help="Admit that device only.")
    ] = None,
) -> View:
    """Make an invite for another machine.

    It is a secret until it has been used or has expired.
    """
    from meshnode.node.homes import joining  # noqa: PLC0415 - the composition root is large

    if role and node_only:
        raise UsageError("--role and --node-only", "give one of them")
    given = "" if node_only else role or ("operator" if uses == 1 else "")
    wish = joining.Inviting(parse_duration(ttl), uses, given, pairs(label), for_key)
    with call.mesh() as mesh:
        value = joining.invite(call.home, mesh, wish)
    who = f"as {given}" if given else "as a node that obeys and never commands"
    more = "" if given or node_only else "; --role operator or observer lets its user do more"
    times = "once" if uses == 1 else f"{uses} times"
    return View(
        value=value,
        human=str(value["invite"]),
        ids=[str(value["invite"])],
        notes=[
            f"good {times} until {value['expires_at']}, {who}{more}",
            f"there: {value['command']}",
        ],
    )
