"""Orders to one session: the options that all of them take, and what each does with them."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from meshnode.client.durations import parse_duration
from meshnode.client.targets.targets import Delivery
from session_mesh.arguments.completing import agents
from session_mesh.arguments.options import AgentId, CommandId, Node, SessionId, Timeout, target_of
from session_mesh.call import Call
from session_mesh.orders.orders import outcome_view
from session_mesh.output.render import View
from session_mesh.verbs import verb

Act = Callable[..., dict[str, Any]]  # of the mesh, the target, the delivery, and options by name


def order_to_one(*examples: str) -> Callable[[Act], typer.Typer]:
    """Make a function that acts on one session, and takes options of its own by name, a verb."""

    def decorate(act: Act) -> typer.Typer:
        own = [
            parameter
            for parameter in inspect.signature(act).parameters.values()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        ]

        def app(
            call: Call,
            name: Annotated[
                str,
                typer.Argument(metavar="ID", help="A session or agent id.", autocompletion=agents),
            ] = "",
            session: SessionId = "",
            agent_id: AgentId = "",
            node: Node = "",
            timeout: Timeout = "10s",
            command_id: CommandId = "",
            **options: Any,  # noqa: ANN401 - each verb's
        ) -> View:
            delivery = Delivery(parse_duration(timeout), command_id)
            target = target_of(name, session, agent_id, node)
            with call.mesh() as mesh:
                return outcome_view(act(mesh, target, delivery, **options))

        shared = list(inspect.signature(app).parameters.values())[:-1]
        app.__signature__ = inspect.Signature([*shared, *own])  # type: ignore[attr-defined] # read by `verb`
        app.__doc__ = act.__doc__
        return verb(*examples)(app)

    return decorate
