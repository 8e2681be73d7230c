"""Members that a node was told of when it joined, and of which it has nothing yet.

Invariant: whoever lets a node in makes its mesh larger than itself, so until that member's feed is
here, or it is known to be out of the mesh, answers count it as known and not as heard. Only the
user of this home can end that otherwise: what nobody has ever heard cannot be forgotten by a
signed entry, which names how far a feed was held.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from meshnode.core.tables.tables import ID_CHARS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshnode.app.mesh.mesh import Mesh
    from meshnode.core.ids import NodeId

INTRODUCED_MAX = 1024  # members named in the answer to a join; more come with the feeds


class Introduced:
    """Who is awaited. `names` are as the admitter knew them, empty where it did not.

    `addresses` is where some are dialled until they say themselves where they are.
    """

    def __init__(
        self,
        mesh: Mesh,
        names: Mapping[NodeId, str],
        addresses: Mapping[NodeId, tuple[str, ...]] = MappingProxyType({}),
    ) -> None:
        self._mesh = mesh
        self.addresses = addresses
        self._names = {node: names[node] for node in sorted(names) if node != mesh.self_id}

    def awaited(self) -> dict[NodeId, str]:
        """Return what those are called of which nothing is here: the start of an id if no name."""
        if self._names:  # who has come, or is out, is never awaited again
            self._names = {node: name for node, name in self._names.items() if self._waits(node)}
        return {node: name or node[:ID_CHARS] for node, name in self._names.items()}

    def drop(self, node: NodeId) -> str | None:
        """Wait for a member no longer; returns its name for the admitter, None if that is over."""
        return self._names.pop(node, None) if node in self.awaited() else None

    def wait_again(self, node: NodeId, name: str) -> None:
        """Wait for a member that was dropped: nothing came of that."""
        self._names[node] = name

    def kept(self) -> dict[NodeId, str]:
        """Return whom the next start shall wait for, by what the admitter called them."""
        return {node: self._names[node] for node in self.awaited()}

    def _waits(self, node: NodeId) -> bool:
        replica = self._mesh.replication.replicas.get(node)
        is_out = node in self._mesh.control.forgotten or self._mesh.revoked.has(node)
        return not is_out and (replica is None or replica.header is None)
