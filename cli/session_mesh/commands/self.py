"""`self`: the session that an agent runs in."""

from meshnode.client.public import public
from session_mesh.call import Call
from session_mesh.commands.show import described
from session_mesh.output.render import View
from session_mesh.verbs import verb


@verb("session-mesh self", "session-mesh self -o json", "session-mesh self -q")
def app(call: Call) -> View:
    """Show an agent its own session.

    Works inside a session only, by the ticket that run gave it.
    """
    with call.inside() as session:
        found = session.who()
    return View(value=public(found), human=described(found), ids=[found["session_id"]])
