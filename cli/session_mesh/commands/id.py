"""`id`: who this device is."""

from session_mesh.call import Call
from session_mesh.render import View
from session_mesh.verbs import verb
from session_mesh.words import described


@verb("session-mesh id", "session-mesh invite --for-key $(session-mesh id -q)")
def app(call: Call) -> View:
    """Show this device's public key, also before it joins.

    A new home gets its key by this.
    """
    from meshnode.node import founding  # noqa: PLC0415 - the composition root is large

    value = founding.identity(call.home)
    return View(
        value=value,
        human=described(list(value.items())),
        ids=[str(value.get("node_id", ""))],
    )
