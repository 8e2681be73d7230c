"""`close`: ask an agent to end in good order."""

from typing import Annotated

import typer

from meshnode.client.durations import parse_duration
from meshnode.client.targets import Delivery
from session_mesh.call import Call
from session_mesh.options import AgentId, CommandId, Grace, Node, SessionId, Timeout, target_of
from session_mesh.orders import outcome_view
from session_mesh.render import View
from session_mesh.verbs import verb


@verb("session-mesh close builder", "session-mesh close berta/builder --grace 1m -o json")
def app(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="ID", help="A session or agent id.")] = "",
    session: SessionId = "",
    agent_id: AgentId = "",
    node: Node = "",
    grace: Grace = "5s",
    timeout: Timeout = "10s",
    command_id: CommandId = "",
) -> View:
    """Ask an agent to end in good order.

    Its input ends; after the grace it is sent TERM, and given as long again. It is never killed:
    one that goes on is said so (exit 1). The session is then closed. A suspended agent is resumed
    first. Whoever may kill may close.
    """
    delivery = Delivery(parse_duration(timeout), command_id)
    target = target_of(name, session, agent_id, node)
    with call.mesh() as mesh:
        return outcome_view(mesh.close(target, grace_s=parse_duration(grace), delivery=delivery))
