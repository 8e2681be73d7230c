"""`join`: enter a mesh."""

from typing import Annotated

import typer

from session_mesh.arguments.options import several
from session_mesh.call import Call
from session_mesh.nodes.joins import invite_from, patience
from session_mesh.output.render import View
from session_mesh.output.words import described
from session_mesh.verbs import verb


@verb(
    "session-mesh join -            # then paste the invite, and Enter",
    "SESSION_MESH_INVITE=smj1_... session-mesh join --up",
    "session-mesh join - --replaces berta < invite.txt",
    "session-mesh join - --seed 192.0.2.7:7708 --name berta < invite.txt",
)
def app(
    call: Call,
    invite: Annotated[
        str, typer.Argument(metavar="INVITE|-", help="From session-mesh invite; - reads stdin.")
    ] = "",
    seed: Annotated[
        list[str] | None,
        typer.Option("--seed", metavar="H:P", help="Try here first; several: a,b."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of this node.")] = None,
    replaces: Annotated[
        str, typer.Option("--replaces", metavar="NODE", help="Take the place of a lost node.")
    ] = "",
    up: Annotated[bool, typer.Option("--up", help="Start the node, in the background.")] = False,
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="H:P", help="With --up; else port 7707.")
    ] = None,
) -> View:
    """Enter the mesh of an invite.

    A mesh of its own that never had a second member gives way. With --replaces a machine that was
    installed anew ends its old node, takes over its name and labels, and keeps its ledger counted.
    """
    from meshnode.node.homes import joining  # noqa: PLC0415 - the composition root is large

    text = invite_from(invite)
    value = joining.join(
        call.home,
        text,
        node_name=name,
        seeds=several(seed),
        replaces=replaces,
        pause=patience(call),
    )
    notes = [*value["warnings"], "next: session-mesh up --detach"]
    if up:
        from meshnode.node.configuration.options import UpOptions  # noqa: PLC0415 - as above
        from session_mesh.nodes.starting import await_news, notes_on, start  # noqa: PLC0415 - as above

        call.streams.tell(f"joined the mesh {value['mesh_name']} as {value['name']}")
        value = {**value, "up": start(call.home, listen)}
        notes[-1] = "the node is running: session-mesh nodes"
        notes += await_news(call) + notes_on(call.home, UpOptions(listen=listen))
    return View(
        value=value,
        human=described(
            [(key, item) for key, item in value.items() if key not in {"up", "warnings"}]
        ),
        ids=[str(value.get("node_id", ""))],
        notes=notes,
    )
