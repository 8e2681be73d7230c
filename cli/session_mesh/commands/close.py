"""`close`: ask an agent to end in good order."""

from typing import TYPE_CHECKING, Any

from meshnode.client.durations import parse_duration
from session_mesh.arguments.options import Grace
from session_mesh.orders.single import order_to_one

if TYPE_CHECKING:
    from meshnode.client.mesh import MeshClient
    from meshnode.client.targets.targets import Delivery, Target


@order_to_one("session-mesh close builder", "session-mesh close berta/builder --grace 1m -o json")
def app(
    mesh: "MeshClient", target: "Target", delivery: "Delivery", *, grace: Grace = "5s"
) -> dict[str, Any]:
    """Ask an agent to end in good order.

    Its input ends; after the grace it is sent TERM, and given as long again. It is never killed:
    one that goes on is said so (exit 1). The session is then closed. A suspended agent is resumed
    first. Whoever may kill may close.
    """
    return mesh.close(target, grace_s=parse_duration(grace), delivery=delivery)
