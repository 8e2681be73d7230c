"""`orders`: standing kills, which wait for what they mean."""

from typing import Annotated, Any

import typer

from session_mesh.call import Call
from session_mesh.output import words
from session_mesh.output.render import View
from session_mesh.output.tables import Table
from session_mesh.verbs import leading_verb, verb

COLUMNS = ("ORDER", "STATE", "ENDS", "AGENT", "NODE", "EXPIRES", "BY", "WHAT BECAME OF IT")
FLEXIBLE = ("ENDS", "WHAT BECAME OF IT", "BY", "AGENT", "NODE")
SPARE = ("BY", "EXPIRES", "NODE", "AGENT")
READABLE = 20  # of what became of it


@leading_verb("session-mesh orders", "session-mesh orders list -o json")
def app(call: Call) -> View:
    """List standing kills: orders for what cannot be reached now.

    kill --standing leaves them, on all nodes. The owner of what is meant carries them out when it
    is back and has heard what was taken back meanwhile. What became of each is the owners' word.
    """
    return _listed(call)


@verb("session-mesh orders list", "session-mesh orders list -o json", app=app)
def list(call: Call) -> View:  # noqa: A001 - the verb is called so
    """List standing kills, the newest first."""
    return _listed(call)


@verb("session-mesh orders cancel 4xk2m7qa", "session-mesh orders cancel 4xk2m7qa --yes", app=app)
def cancel(
    call: Call,
    order: Annotated[str, typer.Argument(metavar="ORDER", help="Its id, or 8 characters of it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> View:
    """Take a standing kill back: only who has left it, or an admin, can.

    A node that returns hears of it before it carries out anything.
    """
    alone = "cancel asks first, and there is no terminal"
    call.ask_first(f"take back order {order[:60]}?", alone, "say --yes", yes=yes)
    from meshnode.client.commands import standing  # noqa: PLC0415 - --help needs no gRPC

    with call.mesh() as mesh:
        value = standing.cancel(mesh, order)
    return View(value=value, human=f"cancelled: {_meant(value)}", ids=[value["order_id"]])


def _listed(call: Call) -> View:
    from meshnode.client.commands import standing  # noqa: PLC0415 - as above

    with call.mesh() as mesh:
        value = standing.orders(mesh)
    rows = [_row(one) for one in value["orders"]]
    return View(
        value=value,
        human=Table(COLUMNS, rows, "no order stands", FLEXIBLE, SPARE, (), READABLE),
        records="orders",
        ids=[one["order_id"] for one in value["orders"]],
    )


def _row(order: dict[str, Any]) -> tuple[str, ...]:
    results = [
        f"{one['node_name']}/{one['agent_id']}: {one['outcome']} ({one['detail']})"
        for one in order["results"]
    ]
    more = [f"and {order['results_more']} more"] if order["results_more"] else []
    return (
        words.short(order["order_id"]),
        order["state"],
        _meant(order),
        order["session_agent_id"] or order["agent_id"] or "any",
        order["node_name"] or words.short(order["node_id"] or "any"),
        order["expires_at"][:16].replace("T", " ") + "Z",
        order["issuer"],
        "; ".join([*results, *more]) or "-",
    )


def _meant(order: dict[str, Any]) -> str:
    if order["session_id"]:
        return f"session {words.short(order['session_id'])}"
    parts = [
        f"agent {order['agent_id']}" if order["agent_id"] else "",
        f"spec {order['specialization']}" if order["specialization"] else "",
        f"on {order['node_name']}" if order["node_id"] else "",
    ]
    return " ".join(filter(None, parts)) + f", started by {order['issued_at'][:16]}Z"
