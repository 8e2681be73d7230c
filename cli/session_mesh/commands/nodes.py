"""`nodes`: the members of the mesh; `nodes forget`: those that will not come back."""

from typing import Annotated, Any

import typer

from meshnode.client.errors import MeshError, UsageError
from meshnode.client.nodes import names_apart
from session_mesh import words
from session_mesh.call import Call
from session_mesh.options import Labels, pairs
from session_mesh.render import Table, View
from session_mesh.verbs import leading_verb, verb

# An address that is cut leads nowhere: it stays whole.
FLEXIBLE = ("LABELS", "VERSION", "HEARD", "SESSIONS", "NODE")
COLUMNS = ("NODE", "STATE", "SESSIONS", "ADDRESS", "VERSION", "HEARD", "LABELS", "ID")


@leading_verb(
    "session-mesh nodes", "session-mesh nodes --label room=lab --links", "session-mesh nodes -q"
)
def app(
    call: Call,
    links: Annotated[bool, typer.Option("--links", help="Show who has working links.")] = False,
    label: Labels = None,
) -> View:
    """List the members of the mesh.

    States are what this node hears; a note says who is missing.
    """
    labels = pairs(label)
    value = call.read(lambda mesh: mesh.nodes(labels))
    now_s = call.now_s()
    nodes = value["nodes"]
    names = names_apart((node["node_id"], node["name"]) for node in nodes)
    table = (
        Table(
            ("NODE", "STATE", "LINKS"),
            [_links(node, names) for node in nodes],
            flexible=("LINKS", "NODE"),
        )
        if links
        else Table(COLUMNS, [_row(node, names, now_s) for node in nodes], flexible=FLEXIBLE)
    )
    return View(
        value=value,
        human=table,
        records="nodes",
        ids=[node["node_id"] for node in nodes],
        notes=words.coverage_notes(value["coverage"]),
    )


@verb("session-mesh nodes forget berta", "session-mesh nodes forget berta --yes -o json", app=app)
def forget(
    call: Call,
    node: Annotated[str, typer.Argument(metavar="NODE", help="Name, id, or start of an id.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> View:
    """Let the mesh forget a node that will not come back, for good.

    What it has spent stays counted. If it comes back, it is shown by what it writes from then on.
    """
    with call.mesh() as mesh:
        known = mesh.forgettable(node)
        name = known["name"]
        if not yes and not call.can_ask:
            raise UsageError("forgetting is for good", "say --yes, since nobody can be asked here")
        if not yes and not call.confirm(f"forget {name} ({words.short(known['node_id'])})?"):
            raise MeshError("nothing was changed")
        value = mesh.forget(known)
    return View(value=value, human=f"forgotten: {name}", ids=[value["node_id"]])


def _row(node: dict[str, Any], names: dict[str, str], now_s: float) -> tuple[str, ...]:
    return (
        names[node["node_id"]] + (" (this)" if node["self"] else ""),
        node["state"],
        str(node["sessions"]),
        ",".join(node["addresses"][:1]),
        node["version"],
        words.age(node["last_heard"], now_s),
        words.labelled(node["labels"]),
        words.short(node["node_id"]),
    )


def _links(node: dict[str, Any], names: dict[str, str]) -> tuple[str, ...]:
    peers = [names.get(peer, words.short(peer)) for peer in node["links"]]
    return (names[node["node_id"]], node["state"], ", ".join(sorted(peers)) or "-")
