"""`resume`: let a suspended agent run on."""

from typing import TYPE_CHECKING, Any

from session_mesh.orders.single import order_to_one

if TYPE_CHECKING:
    from meshnode.client.mesh import MeshClient
    from meshnode.client.targets.targets import Delivery, Target


@order_to_one(
    "session-mesh resume builder", "session-mesh resume --agent-id 456 --node berta -o json"
)
def app(mesh: "MeshClient", target: "Target", delivery: "Delivery") -> dict[str, Any]:
    """Let a suspended agent run on, with all it started.

    What it was steered to meanwhile, it reads now. Whoever may suspend may resume.
    """
    return mesh.resume(target, delivery)
