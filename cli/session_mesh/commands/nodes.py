"""`nodes`: the members of the mesh; beneath it what is done about those who do not belong."""

from typing import Annotated, Any

import typer

from meshnode.client.targets.nodes import is_awaited, names_apart, pasted
from session_mesh.arguments.completing import nodes as nodes_known
from session_mesh.arguments.options import Labels, RootFile, pairs, several
from session_mesh.arguments.passphrases import passphrase_asker
from session_mesh.call import Call
from session_mesh.output import words
from session_mesh.output.render import View
from session_mesh.output.tables import Table
from session_mesh.verbs import leading_verb, verb

# An address that is cut leads nowhere: it stays whole, or is left out.
FLEXIBLE = ("LABELS", "VERSION", "HEARD", "SESSIONS", "NODE")
SPARE = ("LABELS", "VERSION", "HEARD", "ID", "SESSIONS", "ADDRESS")
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
    names = names_apart({node["node_id"]: node["name"] for node in nodes})
    table = (
        Table(
            ("NODE", "STATE", "LINKS"),
            [_links(node, names) for node in nodes],
            flexible=("LINKS", "NODE"),
        )
        if links
        else Table(COLUMNS, [_row(node, names, now_s) for node in nodes], "", FLEXIBLE, SPARE)
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
    node: Annotated[
        str,
        typer.Argument(
            metavar="NODE", help="Name, id, or start of an id.", autocompletion=nodes_known
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> View:
    """Let the mesh forget a node that will not come back.

    Hides on all nodes what it has written so far: itself, its sessions, its registrations. What it
    has spent stays counted. If it comes back, it is shown again, by what it writes from then on.
    One of which nothing has come since this home joined is forgotten by this home alone.
    """
    with call.mesh() as mesh:
        known = mesh.forgettable(node)
        name = known["name"]
        hidden = _hidden(known)
        call.ask_first(f"{hidden}. Forget it?", hidden, yes=yes)
        value = mesh.forget(known)
    return View(value=value, human=f"forgotten: {name}", ids=[value["node_id"]])


@verb(
    "session-mesh nodes revoke berta",
    "session-mesh nodes revoke anna --survivor berta --root /media/usb/root.pem --yes",
    app=app,
)
def revoke(
    call: Call,
    node: Annotated[
        str,
        typer.Argument(
            metavar="NODE", help="Name, id, or start of an id.", autocompletion=nodes_known
        ),
    ],
    survivor: Annotated[
        list[str] | None,
        typer.Option(
            "--survivor", metavar="NODE|KEY_ID", help="Who stays, if NODE let it in; several: a,b."
        ),
    ] = None,
    root_file: RootFile = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> View:
    """Put a node out of the mesh for good, as after a theft.

    An admin can; one that admits others only the root can, and whom it let in goes with it unless
    named. What it has spent stays counted. A key of its user is revoked apart: operator remove.
    """
    from meshnode.client.keys import revoking  # noqa: PLC0415 - cryptography is slow to import
    from meshnode.client.keys.roots import open_root  # noqa: PLC0415 - as above

    with call.mesh() as mesh:
        plan = revoking.planned(mesh, node, several(survivor))
        name = plan.node["name"]
        adds = survivor or (root_file and not plan.by_root)
        if plan.node["state"] == "revoked" and not adds:
            value = {"node_id": plan.node["node_id"], "name": name, "was": "revoked"}
            said = f"{name} was revoked before; nothing was changed"
            return View(value, human=said, ids=[plan.node["node_id"]])
        also = f", and with it {', '.join(plan.falls)}" if plan.falls else ""
        asked = f"revoke {name} ({words.short(plan.node['node_id'])}){also}?"
        call.ask_first(asked, f"revoking is for good: {name}{also}", yes=yes)
        root = None
        if plan.admits or root_file:
            root = open_root(call.home, root_file, passphrase_asker(call))
        value = revoking.carry_out(mesh, plan, root)
    notes = [f"with it fell: {', '.join(plan.falls)}"] if plan.falls else []
    return View(value, human=f"revoked: {name}", ids=[value["node_id"]], notes=notes)


@verb(
    "session-mesh nodes promote berta --root /media/usb/root.pem",
    app=app,
)
def promote(
    call: Call,
    node: Annotated[
        str,
        typer.Argument(
            metavar="NODE", help="Name, id, or start of an id.", autocompletion=nodes_known
        ),
    ],
    root_file: RootFile = None,
) -> View:
    """Let a node admit others: make invites, and renew what keeps members in. The root says so.

    For a second machine beside the first, or in its place. Again, for ten more years. Who makes
    invites there needs the role admin besides: session-mesh operator add NAME KEY --role admin
    """
    from meshnode.client.keys import roots  # noqa: PLC0415 - cryptography is slow to import

    key = roots.open_root(call.home, root_file, passphrase_asker(call))
    with call.mesh() as mesh:
        value = roots.promote(mesh, node, key)
    human, notes = f"{value['name']} may admit others", _who_invites(value)
    return View(value, human=human, ids=[value["node_id"]], notes=notes)


def _who_invites(value: dict[str, Any]) -> list[str]:
    """Say what is missing before an invite can be made at a node that admits: a person's role."""
    name, user = value["name"], value["operator"]
    if user and user["role"] == "admin":
        return [f"who makes invites there is admin already: {user['name']}"]
    key, called = user["public_key"] if user else "KEY", pasted(f"{name}-admin")
    where = f"session-mesh id shows it on {name}, as operator_key"
    return [
        f"who makes invites there must be admin: session-mesh operator add {called} {key}"
        " --role admin",
        f"that key joined with {name}; make sure: {where}" if user else f"KEY: {where}",
    ]


def _hidden(node: dict[str, Any]) -> str:
    """Say what will be hidden, and what will not."""
    if is_awaited(node):
        return (
            f"nothing of {node['name']} ({words.short(node['node_id'])}) has come here since this"
            " home joined: it is no longer waited for, by this home alone. What it has spent is in"
            " no sum here"
        )
    live = node["sessions"]
    sessions = f"{live} sessions that have not ended" if live else "its sessions"
    return (
        f"all nodes will hide {node['name']} ({words.short(node['node_id'])}) and what it has"
        f" written so far: {sessions}, its registrations. What it has spent stays counted. This"
        " cannot be undone; but if the node runs again, it shows again with what it writes from"
        " then on"
    )


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
