"""`unregister`: an agent is not good at that any more."""

from typing import Annotated

import typer

from meshnode.client.durations import parse_duration
from meshnode.client.errors import UsageError
from meshnode.client.targets.targets import Delivery
from session_mesh.arguments.options import CommandId, Timeout
from session_mesh.call import Call
from session_mesh.inside import is_inside, unregister_self
from session_mesh.orders.orders import outcome_view
from session_mesh.output.render import View
from session_mesh.verbs import verb


@verb('session-mesh unregister --spec "data-analysis" --agent-id 789')
def app(
    call: Call,
    spec: Annotated[str, typer.Option("--spec", metavar="S", help="The specialization.")] = "",
    agent_id: Annotated[str, typer.Option("--agent-id", metavar="A", help="The agent.")] = "",
    timeout: Timeout = "10s",
    command_id: CommandId = "",
) -> View:
    """Take an agent out of the specialization registry.

    Whichever node registered it. Whoever registers it anew at the same time, unseen, wins. Inside a
    session an agent takes out itself, and nobody else.
    """
    if is_inside():
        return outcome_view(unregister_self(call.inside(), spec, agent_id, command_id))
    if not spec or not agent_id:
        raise UsageError("unregister needs --spec and --agent-id")
    with call.mesh() as mesh:
        delivery = Delivery(parse_duration(timeout), command_id)
        return outcome_view(mesh.unregister(agent_id, spec, delivery))
