"""`list`: every session of the mesh."""

from typing import Annotated, Any, Literal

import typer

from meshnode.client.targets.nodes import names_apart
from meshnode.client.targets.targets import Filter, Selection, one_specialization
from session_mesh.arguments.completing import specializations
from session_mesh.arguments.options import AgentId, Labels, Node, pairs
from session_mesh.call import Call, Reader
from session_mesh.inside import is_inside
from session_mesh.output import words
from session_mesh.output.render import View
from session_mesh.verbs import verb
from session_mesh.views.sessions import table_of

Sort = Literal["updated", "cost", "tokens", "created"]


@verb(
    "session-mesh list",
    "session-mesh list --filter alive --output json",
    "session-mesh list --node berta --sort cost --limit 10",
)
def app(
    call: Call,
    filter_: Annotated[
        Filter | None, typer.Option("--filter", help="Which sessions, see above.")
    ] = None,
    node: Node = "",
    spec: Annotated[
        str,
        typer.Option(
            "--spec", help="A specialization that it was run with.", autocompletion=specializations
        ),
    ] = "",
    owner: Annotated[str, typer.Option("--owner", help="For whom it was run.")] = "",
    agent_id: AgentId = "",
    label: Labels = None,
    sort: Annotated[Sort, typer.Option("--sort", help="The order.")] = "updated",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many.")] = None,
) -> View:
    """List the sessions of the whole mesh.

    Those that ended more than 10 min ago are shown with --filter only: ended are closed
    (by themselves, or by close), killed (by kill, or a budget) and failed; others are alive or
    unreachable.
    """
    selection = Selection(
        filter=filter_ or "",
        node=node,
        specialization=one_specialization(spec),
        owner=owner,
        agent_id=agent_id,
        labels=pairs(label),
        sort=sort,
    )
    value = call.read(lambda mesh: _listed(call, mesh, selection, limit))
    now_s = call.now_s()
    nodes, sessions = value.pop("nodes"), value["sessions"]
    notes = words.coverage_notes(value["coverage"])
    if limit is not None and len(sessions) > limit:
        sessions = sessions[:limit]
        value |= {"sessions": sessions, "more": True}
        notes.append(f"there are more than these {limit}: list without --limit shows the others")
    names = names_apart(nodes | {one["node_id"]: one["node_name"] for one in sessions})
    return View(
        value=value,
        human=table_of(sessions, names, now_s, _nothing(call, selection)),
        records="sessions",
        ids=[session["session_id"] for session in sessions],
        notes=notes,
    )


def _listed(call: Call, mesh: Reader, selection: Selection, limit: int | None) -> dict[str, Any]:
    """List one more than was asked for, if there are as many, and with `nodes`, names by id.

    Those are looked up where a table is to tell nodes apart that have no session in it.
    """
    listed = _chosen(call, mesh, selection, limit and limit + 1)
    shown = {one["node_id"] for one in listed["sessions"]}
    is_all = listed["coverage"]["nodes_known"] <= len(shown)
    if call.style.format != "table" or call.quiet or not shown or is_all or is_inside():
        return listed | {"nodes": {}}
    return listed | {"nodes": {one["node_id"]: one["name"] for one in mesh.nodes()["nodes"]}}


def _chosen(call: Call, mesh: Reader, selection: Selection, limit: int | None) -> dict[str, Any]:
    """List what was asked for, or what load-config chose if nothing was."""
    if not _is_chosen(call, selection):
        return mesh.list_sessions(selection, limit)
    from meshnode.client import selections  # noqa: PLC0415 - reads YAML

    chosen = selections.kept(call.home)
    if not chosen:
        return mesh.list_sessions(selection, limit)
    entries = words.several(len(chosen), "entry", "entries")
    call.streams.tell(f"load-config chose {entries}; --filter all shows every session")
    return selections.list_chosen(chosen, mesh.list_sessions, selection.sort, limit)


def _is_chosen(call: Call, selection: Selection) -> bool:
    is_plain = selection == Selection(sort=selection.sort)
    return is_plain and not is_inside() and call.home.selection.exists()


def _nothing(call: Call, selection: Selection) -> str:
    if selection == Selection(sort=selection.sort) and not _is_chosen(call, selection):
        return "no sessions; start one: session-mesh run -- CMD"
    return "no session matches; session-mesh list --filter all shows every one that is known"
