"""`register`: say what an agent is good at."""

from pathlib import Path
from typing import Annotated, Any

import typer

from meshnode.client.durations import parse_duration
from meshnode.client.errors import UsageError
from meshnode.client.targets import Delivery
from session_mesh.call import Call
from session_mesh.options import CommandId, Specializations, Timeout, pairs
from session_mesh.orders import outcome_view
from session_mesh.render import Table, View
from session_mesh.verbs import verb

KEYS = ("spec", "specialization", "agent_id", "attributes")
Entry = tuple[str, str, dict[str, str]]  # agent id, specialization, attributes


@verb(
    'session-mesh register --spec "data-analysis" --agent-id 789',
    "session-mesh register --spec review --agent-id 789 --attr load=0.3",
    "session-mesh register -f agents.yaml",
)
def app(
    call: Call,
    spec: Specializations = None,
    agent_id: Annotated[str, typer.Option("--agent-id", metavar="A", help="The agent.")] = "",
    attr: Annotated[
        list[str] | None, typer.Option("--attr", metavar="K=V", help="version, load, labels …")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("-f", "--file", help="YAML: spec, agent_id, attributes.")
    ] = None,
    timeout: Timeout = "10s",
    command_id: CommandId = "",
) -> View:
    """Say what an agent is good at.

    Enters it into the specialization registry of the mesh; this authorises nothing.
    """
    attributes = pairs(attr, "--attr")
    entries = _from_file(file, agent_id, tuple(spec or ()), attributes) if file else []
    if not file:
        entries = [(agent_id, one, attributes) for one in spec or ()]
    if not entries or not all(agent and one for agent, one, _ in entries):
        raise UsageError("register needs --spec and --agent-id, or -f FILE")
    if command_id and len(entries) > 1:
        raise UsageError("--command-id is for one entry")
    delivery = Delivery(parse_duration(timeout), command_id)
    with call.mesh() as mesh:
        results = [mesh.register(*entry, delivery) for entry in entries]
    return outcome_view(results[0]) if len(results) == 1 else _many(results)


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


def _from_file(
    path: Path, agent_id: str, specs: tuple[str, ...], attributes: dict[str, str]
) -> list[Entry]:
    """Read one entry or a list of them; flags stand in for what the file leaves out."""
    from meshnode.client.documents import read_document  # noqa: PLC0415 - only -f reads YAML

    root = read_document(path)
    entries: list[Entry] = []
    for item in root.value if isinstance(root.value, list) else [root]:
        item.check_keys(KEYS)
        fields = item.map("an entry")
        agent = fields["agent_id"].text("agent_id") if "agent_id" in fields else agent_id
        written = fields.get("spec") or fields.get("specialization")
        named = specs
        if written is not None:
            single = isinstance(written.value, str)
            named = (written.text("spec"),) if single else written.texts("spec")
        own = fields["attributes"].labels("attributes") if "attributes" in fields else {}
        entries += [(agent, one, own | attributes) for one in named]
    return entries
