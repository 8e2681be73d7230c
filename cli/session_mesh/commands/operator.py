"""`operator`: who may command the mesh."""

from typing import Annotated, Any, Literal

import typer

from meshnode.client.errors import MeshError, UsageError
from meshnode.client.words import WITHOUT_ROLE
from session_mesh.arguments.options import RootFile
from session_mesh.arguments.passphrases import passphrase_asker
from session_mesh.call import Call
from session_mesh.output import words
from session_mesh.output.render import View
from session_mesh.output.tables import Table
from session_mesh.verbs import leading_verb, verb

COLUMNS = ("NAME", "ROLE", "STATE", "GIVEN BY", "SINCE", "KEY ID")
FLEXIBLE = ("GIVEN BY", "NAME")
SPARE = ("SINCE", "GIVEN BY", "KEY ID")
WHERE = "on their machine session-mesh id --operator -q prints theirs"


@leading_verb("session-mesh operator", "session-mesh operator list -o json")
def app(call: Call) -> View:
    """Say who may command: list them, give a role, take it back.

    Alone it lists who was given a role.
    """
    return _listed(call)


@verb(
    "session-mesh operator add carol 3b6a27bc... --role observer",
    "session-mesh operator add dave 1f0c5e3a... --role admin --root /media/usb/root.pem",
    app=app,
)
def add(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call them.")],
    public_key: Annotated[
        str, typer.Argument(metavar="PUBLICKEY", help="Their operator_key, hexadecimal.")
    ],
    role: Annotated[
        Literal["observer", "operator", "admin"], typer.Option("--role", help="What they may.")
    ] = "operator",
    root_file: RootFile = None,
) -> View:
    """Give a person's key a role in the mesh.

    An admin gives observer and operator; only the root gives admin.
    """
    from meshnode.client.keys import authorities  # noqa: PLC0415 - cryptography is slow to import
    from meshnode.client.keys.publickeys import operator_key_from  # noqa: PLC0415 - as above
    from meshnode.client.keys.roots import open_root  # noqa: PLC0415 - as above

    subject = operator_key_from(public_key, WHERE)
    root = None
    if root_file or (role == "admin" and call.home.root_key.exists()):
        root = open_root(call.home, root_file, passphrase_asker(call))
    with call.mesh() as mesh:
        value = authorities.add(mesh, name, subject, role, root)
    return View(value=value, human=f"{name} is {role} now", ids=[value["key_id"]])


@verb("session-mesh operator list", "session-mesh operator list -o json", app=app)
def list_(call: Call) -> View:
    """List who was given a role, by whom, and whether it still counts."""
    return _listed(call)


@verb(
    "session-mesh operator remove carol",
    "session-mesh operator remove dave --keep carol --yes --root /media/usb/root.pem",
    app=app,
)
def remove(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="NAME|KEY_ID", help="Whose key.")],
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="NAME|KEY_ID", help="Who stays; repeat for more."),
    ] = None,
    root_file: RootFile = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> View:
    """Take a person's key out of the mesh for good: its roles, its session keys, its orders.

    Whom it alone gave a role falls with it, unless kept: each is asked for, or named by --keep.
    An admin removes whom it made, the root anybody.
    """
    from meshnode.client.keys import authorities  # noqa: PLC0415 - cryptography is slow to import
    from meshnode.client.keys.roots import open_root  # noqa: PLC0415 - as above

    root = open_root(call.home, root_file, passphrase_asker(call)) if root_file else None
    with call.mesh() as mesh:
        plan = authorities.planned(mesh, name)
        survivors = authorities.chosen(plan.given, keep or ())
        is_own = authorities.removes_itself(mesh, plan, root)
        own = "; it is your own key: this home commands nothing then" if is_own else ""
        if not yes and not call.can_ask:
            said = _said(plan.row, [one for one in plan.falls if one not in survivors])
            said += f"; kept: {authorities.called(survivors)}" if survivors else ""
            hint = "say --yes" if is_own else "say --yes, or keep some: --keep"
            raise UsageError(f"removing is for good: {said}{own}", hint)
        if not yes and not is_own:  # which spares nobody
            survivors += [
                one
                for one in plan.falls
                if one not in survivors and call.confirm(f"keep {authorities.called([one])}?")
            ]
        falls = [one for one in plan.falls if one not in survivors]
        if not yes and not call.confirm(f"revoke {_said(plan.row, falls)}{own}?"):
            raise MeshError("nothing was changed")
        value = authorities.remove(mesh, plan, survivors, root)
    notes = [f"with it fell: {authorities.called(falls)}"] if falls else []
    notes += [f"kept: {authorities.called(survivors)}"] if survivors else []
    if is_own:
        notes.append(f"that was your own key: this home {WITHOUT_ROLE}")
    return View(value=value, human=f"removed: {name}", ids=[str(value["key_id"])], notes=notes)


def _said(row: dict[str, Any], falls: list[dict[str, Any]]) -> str:
    from meshnode.client.keys import authorities  # noqa: PLC0415 - cryptography is slow to import

    also = f", and with it {authorities.called(falls)}" if falls else ""
    return authorities.called([row]) + also


def _row(row: dict[str, Any], now_s: float) -> tuple[str, ...]:
    return (
        _called(row),
        row["role"],
        row["state"],
        row["given_by_name"] or row["given_by"],
        words.age(row["since"], now_s),
        row["key_id"],
    )


def _listed(call: Call) -> View:
    from meshnode.client.keys import authorities  # noqa: PLC0415 - cryptography is slow to import

    with call.mesh() as mesh:
        rows = authorities.operators(authorities.known(mesh))
        names = {one["node_id"]: one["name"] for one in mesh.nodes()["nodes"]}
    for row in rows:
        row["by_node_name"] = names.get(row["by_node"])
    now_s = call.now_s()
    table = Table(COLUMNS, [_row(row, now_s) for row in rows], "", FLEXIBLE, SPARE)
    return View(
        value={"operators": rows},
        human=table,
        records="operators",
        ids=[row["key_id"] for row in rows],
        notes=[_in_vain(row) for row in rows if row["revoked_in_vain_by"]],
    )


def _in_vain(row: dict[str, Any]) -> str:
    """Say that an admin was revoked by whom it does not concern."""
    by = ", ".join(row["revoked_in_vain_by"])
    said = f"key {row['key_id']} was revoked by {by}, which does not count: only the root takes out"
    return f"{said} an admin: session-mesh operator remove {row['key_id']} --root FILE"


def _called(row: dict[str, Any]) -> str:
    """Return a name; of whom no person has named, the device that they came in with.

    A node of an older version has not said with which it let somebody in.
    """
    if row["name"]:
        return f"{row['name']} (invited)" if row["by_node"] else str(row["name"])
    node = row["by_node_name"] or words.short(row["by_node"] or "")
    return f"(invited, joined at {node})" if node else "-"
