"""`id`: who this device is."""

from typing import Annotated

import typer

from session_mesh.call import Call
from session_mesh.output.render import View
from session_mesh.output.words import described
from session_mesh.verbs import verb


@verb(
    "session-mesh id",
    "session-mesh invite --for-key $(session-mesh id -q)",
    "session-mesh id --operator -q    # then, at an admin's: session-mesh operator add NAME KEY",
)
def app(
    call: Call,
    operator: Annotated[
        bool, typer.Option("--operator", help="Make a key that may be given a role, too.")
    ] = False,
) -> View:
    """Show this device's public key, also before it joins, and its user's if there is one.

    A new home gets its key by this. -q prints the node's id, or with --operator the user's key.
    """
    from meshnode.node.homes import founding  # noqa: PLC0415 - the composition root is large

    value = founding.identity(call.home, operator=operator)
    return View(
        value=value,
        human=described(list(value.items())),
        ids=[str(value["operator_key" if operator else "node_id"])],
        notes=[_which(is_user="operator_key" in value)],
    )


def _which(*, is_user: bool) -> str:
    """Say which of the keys shown is a person's: they look alike."""
    if is_user:
        return (
            "for session-mesh operator add: operator_key; node_id and public_key are the device's"
        )
    return "for session-mesh operator add there is no key yet: session-mesh id --operator makes one"
