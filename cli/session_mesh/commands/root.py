"""`root`: the key that the whole mesh hangs on."""

from pathlib import Path
from typing import Annotated, Any

import typer

from session_mesh.arguments.options import RootFile
from session_mesh.arguments.passphrases import new_passphrase, passphrase_asker
from session_mesh.call import Call
from session_mesh.output import words
from session_mesh.output.render import View
from session_mesh.output.tables import Table
from session_mesh.output.words import described
from session_mesh.verbs import leading_verb, verb


@leading_verb("session-mesh root", "session-mesh root list -o json")
def app(call: Call) -> View:
    """Keep the mesh's root key: put it offline, exchange it, retire it.

    Alone it lists the roots.
    """
    return _listed(call)


@verb("session-mesh root list", "session-mesh root list -o json", app=app)
def list_(call: Call) -> View:
    """List the roots by key id, and which nodes each lets admit others."""
    return _listed(call)


@verb(
    "session-mesh root export /media/usb/root.pem --remove",
    "session-mesh root export new.pem --root old.pem     # the same key, another passphrase",
    app=app,
)
def export(
    call: Call,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file.")],
    root_file: RootFile = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Then delete root.key from this home.")
    ] = False,
) -> View:
    """Copy the root key into a file that a passphrase seals.

    openssl can open it too. Off a terminal the passphrases come from SESSION_MESH_ROOT_PASSPHRASE
    and, for the new file if it shall be another, SESSION_MESH_ROOT_PASSPHRASE_NEW.
    """
    from meshnode.client import clock  # noqa: PLC0415 - cryptography is slow to import
    from meshnode.client.keys import roots  # noqa: PLC0415 - cryptography is slow to import
    from meshnode.client.keys.rootfile import Sealed  # noqa: PLC0415 - as above

    ask = passphrase_asker(call)
    key = roots.open_root(call.home, root_file, ask)
    removes = remove and roots.holds_root(call.home, key, ask)
    value = roots.export_root(key, Sealed(file, new_passphrase(call, file)), clock.chance)
    if removes:
        roots.remove_plain_root(call.home)
    value["removed"] = removes
    return View(value=value, human=described(list(value.items())), ids=[str(value["key_id"])])


@verb(
    "session-mesh root rotate --root /media/usb/root.pem --root-out /media/usb/root2.pem", app=app
)
def rotate(
    call: Call,
    root_out: Annotated[
        Path, typer.Option("--root-out", metavar="FILE", help="Where the new key is put, sealed.")
    ],
    root_file: RootFile = None,
) -> View:
    """Make a new root key beside the present one.

    Nodes trust both from now on. Let each node of the mesh be heard once, then retire the old one.
    """
    from meshnode.client.keys import roots  # noqa: PLC0415 - cryptography is slow to import
    from meshnode.client.keys.rootfile import Sealed  # noqa: PLC0415 - as above

    key = roots.open_root(call.home, root_file, passphrase_asker(call))
    sealed = Sealed(root_out, new_passphrase(call, root_out))
    with call.mesh() as mesh:
        value = roots.rotate(mesh, key, sealed)
    old = " ".join(value["roots"][:-1])
    return View(
        value=value,
        human=described(list(value.items())),
        ids=[str(value["key_id"])],
        notes=[f"once every node was heard: session-mesh root retire {old} --root {root_out}"],
    )


@verb(
    "session-mesh root retire 4f2c09a1b3d45e67 --root /media/usb/root2.pem",
    "session-mesh root retire 4f2c09a1b3d45e67 --root root2.pem --drop mallory --yes",
    app=app,
)
def retire(
    call: Call,
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="From session-mesh root list.")],
    root_file: RootFile = None,
    drop: Annotated[
        list[str] | None,
        typer.Option("--drop", metavar="NAME|KEY_ID", help="Who falls with it; repeat for more."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> View:
    """Remove a root for good; one that stays signs.

    Who has a role by the old root gets it by the new one, unless dropped; nodes that admit get
    new certificates. Whatever else the old root says, then or later, counts for nothing. A node
    that has heard of the new root by now goes on; any other must join again.
    """
    from meshnode.client.keys import authorities, roots  # noqa: PLC0415 - cryptography is slow to import

    key = roots.open_root(call.home, root_file, passphrase_asker(call))
    with call.mesh() as mesh:
        plan = roots.retirement(mesh, key_id, key)
        dropped = authorities.chosen(plan.given, drop or ())
        kept = [one for one in plan.given if one not in dropped]
        unheard = _unheard(mesh.nodes())
        said = f"retiring {key_id} is for good; who keeps a role: {authorities.called(kept) or '-'}"
        if falls := roots.falling(plan, dropped):
            said += f"; who falls: {authorities.called(falls)}"
        if unheard:
            said += f"; not heard now, and perhaps cut off: {', '.join(unheard)}"
        call.ask_first(f"{said}. Retire it?", said, yes=yes)
        value = roots.retire(mesh, plan, key, dropped)
    notes = [f"not heard now, and perhaps to join again: {', '.join(unheard)}"] if unheard else []
    return View(
        value=value,
        human=described(list(value.items())),
        ids=[str(value["key_id"])],
        notes=notes,
    )


def _admits(root: str, admitters: list[dict[str, Any]]) -> tuple[str, str]:
    mine = [one for one in admitters if one["root"] == root]
    until = min((one["expires_at"] for one in mine), default="-")
    return ", ".join(words.short(one["node_id"]) for one in mine) or "-", until


def _unheard(listed: dict[str, Any]) -> list[str]:
    return [
        one["name"] for one in listed["nodes"] if one["state"] not in {"alive", "left", "revoked"}
    ]


def _listed(call: Call) -> View:
    from meshnode.client.keys import roots  # noqa: PLC0415 - cryptography is slow to import

    with call.mesh() as mesh:
        value = roots.listed(mesh)
    rows = [(one["key_id"], *_admits(one["key_id"], value["admitters"])) for one in value["roots"]]
    table = Table(("KEY ID", "ADMITTERS", "UNTIL"), rows, flexible=("ADMITTERS",))
    return View(
        value=value, human=table, records="roots", ids=[one["key_id"] for one in value["roots"]]
    )
