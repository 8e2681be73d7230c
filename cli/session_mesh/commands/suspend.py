"""`suspend`: stop an agent where it stands."""

from typing import Annotated

import typer

from meshnode.client.durations import parse_duration
from meshnode.client.targets import Delivery
from session_mesh.call import Call
from session_mesh.options import AgentId, CommandId, Node, SessionId, Timeout, target_of
from session_mesh.orders import outcome_view
from session_mesh.render import View
from session_mesh.verbs import verb


@verb("session-mesh suspend builder", "session-mesh suspend --agent-id 456 --node berta -o json")
def app(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="ID", help="A session or agent id.")] = "",
    session: SessionId = "",
    agent_id: AgentId = "",
    node: Node = "",
    timeout: Timeout = "10s",
    command_id: CommandId = "",
) -> View:
    """Stop an agent where it stands, with all it started.

    Nothing of it runs until it is resumed, not even after its node was restarted; what it has
    opened stays open. A steer to it is queued, and it can be killed. All of it stops, or none.
    """
    delivery = Delivery(parse_duration(timeout), command_id)
    target = target_of(name, session, agent_id, node)
    with call.mesh() as mesh:
        return outcome_view(mesh.suspend(target, delivery))
