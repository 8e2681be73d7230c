"""The mesh's root key in the hands of its owner: opened for one act, copied, exchanged.

Invariant: a root key is read where a person says it lies, signs in this process, and never goes to
the node, which gets signed entries only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshnode.client.rootfile import Sealed, read_root, write_root
from meshnode.core.errors import MeshError, NotFoundError, UsageError
from meshnode.core.keys import Key, key_id_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from meshnode.client.home import Home
    from meshnode.core.ids import Chance

    Ask = Callable[[Path], str]


def open_root(home: Home, path: Path | None, ask: Ask) -> Key:
    """Read the root key from a file, else from the home; raises a MeshError."""
    try:
        return read_root(path or home.root_key, ask)
    except NotFoundError as error:
        hint = "say where it is kept: --root FILE" if path is None else "see docs/keys.md"
        raise NotFoundError(error.message, hint) from None


def export_root(root: Key, place: Sealed, chance: Chance) -> dict[str, Any]:
    """Write a sealed copy of the root key, and read it back: `file, key_id`."""
    write_root(place, root, chance)
    if read_root(place.path, lambda _: place.passphrase).seed != root.seed:
        raise MeshError(f"{place.path} does not hold what was written", "try another disk")
    return {"file": str(place.path.absolute()), "key_id": key_id_of(root.public)}


def remove_plain_root(home: Home, kept: Path) -> None:
    """Delete the unsealed root key of a home, of which there is a copy elsewhere."""
    if home.root_key.absolute() == kept.absolute():
        raise UsageError(f"{kept} is the copy itself", "export it to another place")
    home.root_key.unlink(missing_ok=True)
