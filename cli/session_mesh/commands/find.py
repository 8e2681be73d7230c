"""`find`: who is alive with a specialization."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from meshnode.client.errors import UsageError
from meshnode.client.targets.targets import one_specialization
from session_mesh.arguments.completing import skills
from session_mesh.call import Call
from session_mesh.output import words
from session_mesh.output.render import View
from session_mesh.output.tables import Table
from session_mesh.verbs import verb

COST = "cost_per_mtok_usd"
TOLD = {"VERSION": "version", "CAPACITY": "capacity", "USD/MTOK": COST}  # columns of their own
FLEXIBLE = ("ATTRIBUTES", "CAPACITY", "VERSION", "USD/MTOK", "AGENT", "NODE")


@verb("session-mesh find image-processing", "session-mesh find data-analysis -q")
def app(
    call: Call,
    specialization: Annotated[
        str,
        typer.Argument(metavar="SPEC", help="What is to be done.", autocompletion=skills),
    ],
) -> View:
    """Find live agents by specialization.

    Those that are ready come first, of these the least loaded, of these the nearest.
    """
    if not specialization:  # which a node takes for any
        raise UsageError("name a specialization")
    spec = one_specialization(specialization)
    value = call.read(lambda mesh: mesh.find(spec))
    return View(
        value=value,
        human=_table(value["agents"]),
        records="agents",
        ids=[agent["agent_id"] for agent in value["agents"]],
        notes=[*words.coverage_notes(value["coverage"]), *_more(value["more"])],
    )


def _more(number: int) -> list[str]:
    return [f"and {words.count(number)} more that are not listed"] if number else []


def _table(agents: list[dict[str, Any]]) -> Table:
    told = {
        column: name
        for column, name in TOLD.items()
        if any(name in agent["attributes"] for agent in agents)
    }
    columns = ("AGENT", "NODE", "SESSION", "LOAD", *told, "ATTRIBUTES")
    flexible = [name for name in FLEXIBLE if name in columns]
    rows = [_row(agent, told) for agent in agents]
    return Table(columns, rows, empty="nobody alive is known for it", flexible=flexible)


def _row(agent: dict[str, Any], told: Mapping[str, str]) -> tuple[str, ...]:
    attributes = agent["attributes"]
    shown = {"load", *told.values()}
    return (
        agent["agent_id"],
        agent["node_name"],
        words.short(agent["session_id"] or "-"),
        "-" if agent["load"] is None else f"{agent['load']:g}",
        *(attributes.get(name, "") for name in told.values()),
        words.labelled({key: text for key, text in attributes.items() if key not in shown}),
    )
