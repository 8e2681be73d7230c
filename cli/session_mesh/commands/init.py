"""`init`: make a mesh."""

from pathlib import Path
from typing import Annotated

import typer

from session_mesh.arguments.passphrases import new_passphrase
from session_mesh.call import Call
from session_mesh.output.render import View
from session_mesh.output.words import described
from session_mesh.verbs import verb


@verb("session-mesh init --mesh home --name laptop", "session-mesh init --root-out /media/usb/root")
def app(
    call: Call,
    mesh: Annotated[str | None, typer.Option("--mesh", help="Name of the mesh.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of this node.")] = None,
    root_out: Annotated[
        Path | None, typer.Option("--root-out", help="Put the root key there, to keep it offline.")
    ] = None,
) -> View:
    """Make a mesh.

    This device becomes its first node, and you become its first operator. The root key stays in
    the home unless --root-out puts it elsewhere, sealed by a passphrase: asked for twice, or taken
    from SESSION_MESH_ROOT_PASSPHRASE.
    """
    from meshnode.client.keys.rootfile import Sealed  # noqa: PLC0415 - cryptography is slow to import
    from meshnode.node.homes import founding  # noqa: PLC0415 - the composition root is large

    sealed = Sealed(root_out, new_passphrase(call, root_out)) if root_out else None
    value = founding.init(call.home, mesh, name, sealed)
    return View(
        value=value,
        human=described(list(value.items())),
        ids=[str(value.get("node_id", ""))],
        notes=["next: session-mesh up --detach, then session-mesh invite for another machine"],
    )
