"""What an admitter tells a joiner of the members that it knows.

Invariant: names are no keys, and nothing breaks where two nodes share one. But people tell nodes
apart by them, and machines of one image have one host name: whoever brings a second one is told.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from meshnode.core.liveness import MemberState
from meshnode.node.replacing import find_replaceable

if TYPE_CHECKING:
    from meshnode.app.admission import AdmissionDesk
    from meshnode.app.mesh import Mesh
    from meshnode.core.ids import NodeId


GONE = {MemberState.LEFT, MemberState.REVOKED}


def tell_of_members(desk: AdmissionDesk, mesh: Mesh) -> None:
    """Let a desk answer from what a mesh knows."""
    desk.find_replaceable = partial(find_replaceable, mesh)
    desk.is_taken = partial(is_taken, mesh)


def is_taken(mesh: Mesh, name: str, joiner: NodeId) -> bool:
    """Whether another member than the joiner goes by a name, as far as this node knows."""
    return any(
        record.name == name
        for origin in mesh.tables.origins()
        if origin != joiner and mesh.liveness.state(origin) not in GONE
        if (record := mesh.tables.node(origin)) is not None
    )
