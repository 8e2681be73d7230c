"""What an admitter tells a joiner of the members that it knows.

Invariant: names are no keys, and nothing breaks where two nodes share one. But people tell nodes
apart by them, and machines of one image have one host name: whoever brings a second one is told.
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from meshnode.app.membership.introduced import INTRODUCED_MAX
from meshnode.core.links.liveness import MemberState
from meshnode.node.homes.replacing import find_replaceable

if TYPE_CHECKING:
    from meshnode.app.membership.admission import AdmissionDesk
    from meshnode.app.mesh.mesh import Mesh
    from meshnode.core.ids import NodeId


GONE = {MemberState.LEFT, MemberState.REVOKED}


def tell_of_members(desk: AdmissionDesk, mesh: Mesh) -> None:
    """Let a desk answer from what a mesh knows."""
    desk.find_replaceable = partial(find_replaceable, mesh)
    desk.is_taken = partial(is_taken, mesh)
    desk.members = partial(members_for, mesh)


def members_for(mesh: Mesh, joiner: NodeId) -> dict[NodeId, str]:
    """Return names of the members that a joiner is to hear of, at most INTRODUCED_MAX."""
    others = (peer for peer in mesh.liveness.members() if peer != joiner)
    present = (peer for peer in others if mesh.liveness.state(peer) not in GONE)
    named = ((peer, mesh.tables.node(peer)) for peer in present)
    found = ((peer, record.name) for peer, record in named if record is not None)
    return dict(islice(found, INTRODUCED_MAX))


def is_taken(mesh: Mesh, name: str, joiner: NodeId) -> bool:
    """Whether another member than the joiner goes by a name, as far as this node knows."""
    return any(
        record.name == name
        for origin in mesh.tables.origins()
        if origin != joiner and mesh.liveness.state(origin) not in GONE
        if (record := mesh.tables.node(origin)) is not None
    )
