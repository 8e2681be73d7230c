"""`resume`: let a suspended agent run on."""

from typing import Annotated

import typer

from meshnode.client.durations import parse_duration
from meshnode.client.targets import Delivery
from session_mesh.call import Call
from session_mesh.options import AgentId, CommandId, Node, SessionId, Timeout, target_of
from session_mesh.orders import outcome_view
from session_mesh.render import View
from session_mesh.verbs import verb


@verb("session-mesh resume builder", "session-mesh resume --agent-id 456 --node berta -o json")
def app(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="ID", help="A session or agent id.")] = "",
    session: SessionId = "",
    agent_id: AgentId = "",
    node: Node = "",
    timeout: Timeout = "10s",
    command_id: CommandId = "",
) -> View:
    """Let a suspended agent run on, with all it started.

    What it was steered to meanwhile, it reads now. Whoever may suspend may resume.
    """
    delivery = Delivery(parse_duration(timeout), command_id)
    target = target_of(name, session, agent_id, node)
    with call.mesh() as mesh:
        return outcome_view(mesh.resume(target, delivery))
