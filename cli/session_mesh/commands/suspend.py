"""`suspend`: stop an agent where it stands."""

from typing import TYPE_CHECKING, Any

from session_mesh.orders.single import order_to_one

if TYPE_CHECKING:
    from meshnode.client.mesh import MeshClient
    from meshnode.client.targets.targets import Delivery, Target


@order_to_one(
    "session-mesh suspend builder", "session-mesh suspend --agent-id 456 --node berta -o json"
)
def app(mesh: "MeshClient", target: "Target", delivery: "Delivery") -> dict[str, Any]:
    """Stop an agent where it stands, with all it started.

    Nothing of it runs until it is resumed, not even after its node was restarted; what it has
    opened stays open. A steer to it is queued, and it can be killed. All of it stops, or none.
    """
    return mesh.suspend(target, delivery)
