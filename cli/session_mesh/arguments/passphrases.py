"""The passphrase of a root key: from the terminal or the environment, never from argv."""

import os
from collections.abc import Callable
from getpass import getpass
from pathlib import Path

from meshnode.client.errors import UsageError
from session_mesh.call import Call
from session_mesh.output.escaping import escape

PASSPHRASE_VARIABLE = "SESSION_MESH_ROOT_PASSPHRASE"  # noqa: S105 - where it is found
NEW_PASSPHRASE_VARIABLE = "SESSION_MESH_ROOT_PASSPHRASE_NEW"  # noqa: S105 - of a file to be made


def new_passphrase(call: Call, path: Path) -> str:
    """Ask twice for what shall seal a new file; raises UsageError, ConflictError if it exists."""
    from meshnode.client.keys.rootfile import check_passphrase, check_place  # noqa: PLC0415 - slow

    check_place(path)
    given = os.environ.get(NEW_PASSPHRASE_VARIABLE) or _given(call)
    if given is None:
        given = getpass(f"passphrase for {escape(str(path))}: ")
        check_passphrase(given)
        if getpass("the same again: ") != given:
            raise UsageError("the two passphrases differ", "nothing was changed: try again")
    check_passphrase(given)
    return given


def passphrase_asker(call: Call) -> Callable[[Path], str]:
    """Return what asks once for the passphrase of a file that is sealed."""

    def ask(path: Path) -> str:
        given = _given(call)
        return getpass(f"passphrase of {escape(str(path))}: ") if given is None else given

    return ask


def _given(call: Call) -> str | None:
    """Return the passphrase of the environment; None where a person can be asked for it."""
    given = os.environ.get(PASSPHRASE_VARIABLE)
    if given is None and not call.can_ask:
        raise UsageError(
            "the root key needs a passphrase, and nobody can be asked here",
            f"set {PASSPHRASE_VARIABLE}",
        )
    return given
