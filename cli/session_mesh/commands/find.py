"""`find`: who is alive with a specialization."""

from typing import Annotated

import typer

from session_mesh import words
from session_mesh.call import Call
from session_mesh.render import Table, View
from session_mesh.verbs import verb

FLEXIBLE = ("ATTRIBUTES", "AGENT", "NODE")
COLUMNS = ("AGENT", "NODE", "SESSION", "LOAD", "ATTRIBUTES")


@verb("session-mesh find image-processing", "session-mesh find data-analysis -q")
def app(
    call: Call,
    specialization: Annotated[str, typer.Argument(metavar="SPEC", help="What is to be done.")],
) -> View:
    """Find live agents by specialization.

    The least loaded and the nearest come first.
    """
    value = call.read(lambda mesh: mesh.find(specialization))
    rows = [
        (
            agent["agent_id"],
            agent["node_name"],
            words.short(agent["session_id"] or "-"),
            "-" if agent["load"] is None else f"{agent['load']:g}",
            words.labelled(agent["attributes"]),
        )
        for agent in value["agents"]
    ]
    return View(
        value=value,
        human=Table(COLUMNS, rows, empty="nobody alive has registered it", flexible=FLEXIBLE),
        records="agents",
        ids=[agent["agent_id"] for agent in value["agents"]],
        notes=words.coverage_notes(value["coverage"]),
    )
