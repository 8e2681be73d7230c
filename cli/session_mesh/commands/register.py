"""`register`: say what an agent is good at."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshnode.client.commands.registrations import registrations, registrations_in
from meshnode.client.durations import parse_duration
from meshnode.client.errors import UsageError
from meshnode.client.targets.targets import Delivery
from session_mesh.arguments.options import CommandId, Specializations, Timeout, pairs, several
from session_mesh.arguments.stdin import read_text
from session_mesh.call import Call
from session_mesh.inside import is_inside, own_agent_id, register_self
from session_mesh.orders.orders import outcome_view
from session_mesh.output.render import View
from session_mesh.output.tables import Table
from session_mesh.verbs import verb
from session_mesh.views.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshnode.client.commands.registrations import Specialist
    from meshnode.client.documents import Entry


@verb(
    'session-mesh register --spec "data-analysis" --agent-id 789',
    "session-mesh register --spec review --agent-id 789 --attr load=0.3 --attr version=1.4",
    "session-mesh register -f agents.yaml",
)
def app(
    call: Call,
    spec: Specializations = None,
    agent_id: Annotated[str, typer.Option("--agent-id", metavar="A", help="The agent.")] = "",
    attr: Annotated[
        list[str] | None,
        typer.Option(
            "--attr",
            metavar="K=V",
            help="version, capacity (tasks at once), load (0 to 1, or 30%), cost_per_mtok_usd, "
            "or any label; repeat for more.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "-f",
            "--file",
            help="YAML: spec, agent_id, attributes; or a list of these; - reads stdin.",
        ),
    ] = None,
    timeout: Timeout = "10s",
    command_id: CommandId = "",
) -> View:
    """Say what an agent is good at.

    Enters it into the specialization registry of the mesh, in place of what is known of it there;
    this authorises nothing. Inside a session an agent registers itself, and nobody else.
    """
    attributes, specs = pairs(attr, "--attr"), several(spec)
    if is_inside():
        agent_id = agent_id or own_agent_id()
    if file:
        entries = registrations_in(_document(file), agent_id, specs, attributes)
    else:
        entries = registrations(agent_id, specs, attributes)
    if command_id and len(entries) > 1:
        raise UsageError("--command-id is for one entry")
    if is_inside():
        results = register_self(call.inside(), entries, command_id)
    else:
        results = _register(call, entries, Delivery(parse_duration(timeout), command_id))
    return outcome_view(results[0]) if len(results) == 1 else _many(results)


def _register(
    call: Call, entries: "Sequence[Specialist]", delivery: Delivery
) -> list[dict[str, Any]]:
    from meshnode.client.commands.registering import register_all  # noqa: PLC0415 - --help needs no gRPC

    progress = Progress(call, len(entries))
    try:
        with call.mesh() as mesh:
            return register_all(mesh, entries, delivery, progress.note)
    except BaseException:
        progress.stop()
        raise


def _document(file: Path) -> "Entry":
    from meshnode.client import documents  # noqa: PLC0415 - only files need YAML

    if str(file) != "-":
        return documents.read_document(file)
    text = read_text(documents.DOCUMENT_BYTES_MAX + 1, "the registrations, as YAML")
    return documents.parse_document(text.encode(), "stdin")


def _many(results: list[dict[str, Any]]) -> View:
    rows = [(one["agent_id"], one["specialization"], one["outcome"]) for one in results]
    views = [outcome_view(one) for one in results]
    return View(
        value={"results": results},
        human=Table(("AGENT", "SPECIALIZATION", "OUTCOME"), rows),
        records="results",
        ids=[one["agent_id"] for one in results],
        exit_code=max(view.exit_code for view in views),
    )
