"""`root`: the key that the whole mesh hangs on."""

from pathlib import Path
from typing import Annotated

import typer

from session_mesh.call import Call
from session_mesh.options import RootFile
from session_mesh.passphrases import new_passphrase, passphrase_asker
from session_mesh.render import View
from session_mesh.verbs import new_app, verb
from session_mesh.words import described

app = new_app(help="Keep the mesh's root key: copy it to an offline file.")


@app.callback()
def root() -> None:
    """Keep the mesh's root key: copy it to an offline file."""


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
    from meshnode.client import clock, roots  # noqa: PLC0415 - cryptography is slow to import
    from meshnode.client.rootfile import Sealed  # noqa: PLC0415 - as above

    key = roots.open_root(call.home, root_file, passphrase_asker(call))
    value = roots.export_root(key, Sealed(file, new_passphrase(call, file)), clock.chance)
    if remove:
        roots.remove_plain_root(call.home, file)
    value["removed"] = remove
    return View(value=value, human=described(list(value.items())), ids=[str(value["key_id"])])
