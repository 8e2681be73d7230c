"""`keys`: session keys for scripts, services and other people."""

from typing import Annotated

import typer

from meshnode.client.durations import parse_duration
from session_mesh.call import Call
from session_mesh.options import Specializations
from session_mesh.render import View
from session_mesh.verbs import new_app, verb

app = new_app(help="Make session keys: what SESSION_API_KEY holds.")


@app.callback()
def keys() -> None:
    """Make session keys: what SESSION_API_KEY holds."""


@verb(
    "export SESSION_API_KEY=$(session-mesh keys new --ttl 8h)",
    "session-mesh keys new --action read --action steer --spec review -o json",
    app=app,
)
def new(
    call: Call,
    ttl: Annotated[str, typer.Option("--ttl", metavar="D", help="1 s to 30 days.")] = "1h",
    action: Annotated[
        list[str] | None,
        typer.Option("--action", help="What it may do; else read, steer, kill, register."),
    ] = None,
    spec: Specializations = None,
    agent_id: Annotated[
        list[str] | None, typer.Option("--agent-id", metavar="A", help="Only these agents.")
    ] = None,
    node: Annotated[
        list[str] | None, typer.Option("--node", metavar="N", help="Only on these nodes.")
    ] = None,
) -> View:
    """Make a session key from the operator identity of this home. No node needs to run.

    The key alone goes to stdout, also with -q. It can be used until it expires by whoever has it.
    """
    from meshnode.client import authority, clock  # noqa: PLC0415 - cryptography is slow to import

    scope = authority.Scope(
        actions=tuple(action or ()),
        nodes=_node_ids(call, node) if node else None,
        agents=tuple(agent_id) if agent_id else None,
        specializations=tuple(spec) if spec else None,
    )
    now_s = call.now_s()
    made = authority.new_key(call.home, scope, parse_duration(ttl), now_s, clock.chance)
    notes = [f"key {made['key_id']} may {', '.join(made['actions'])} until {made['expires_at']}"]
    return View(value=made, human=made["key"], ids=[made["key"]], notes=notes)


def _node_ids(call: Call, names: list[str]) -> tuple[str, ...]:
    """Grants name nodes by id; only the mesh knows which names they have."""
    from meshnode.client.nodes import node_id_in  # noqa: PLC0415 - few keys are for a node

    nodes = call.read(lambda mesh: mesh.nodes())["nodes"]
    return tuple(node_id_in(nodes, name) for name in names)
