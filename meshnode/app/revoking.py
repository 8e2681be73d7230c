"""Which nodes are revoked: themselves, or with the admitter that let them in.

Invariant: a node is judged by what proves its admission: by the chain that it shows while it
speaks, and by its member record where it is only spoken of. So a node that another admitter has
let in anew is heard at once, though everybody still holds its old record. Storing does not look
here: what a revoked node has written is kept and passed on, and what it has spent counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.core.certificates import admitters_in, keys_of, keys_shown, leads_to_root
from meshnode.core.errors import NotPermittedError
from meshnode.core.ids import NodeId, node_id_of, node_key_of

if TYPE_CHECKING:
    from meshnode.core.control import ControlSet
    from meshnode.core.tables import Tables

REVOKED = "revoked"
ITSELF = "this node was revoked: the mesh has nothing more to do with it"
WITH_ADMITTER = "the node that admitted this one was revoked, and this one was not spared"
UNPROVED = "a node that does not show who admitted it, while an admitter is revoked"
AGAIN = "ask for a new invite, and join with it: session-mesh join -"
ANEW = "ask for a new invite, and join with it in a new home: the key of this one stays revoked"


class RevokedNodes:
    """One node's view of who is out."""

    def __init__(self, control: ControlSet, tables: Tables) -> None:
        self._root_keys = control.succession.ever
        self._revoked = control.revocations
        self._tables = tables
        self._judged = 0  # the version that `_out` is for
        self._out: set[NodeId] = set()

    def has(self, node: NodeId) -> bool:
        """Whether a node is out by what is known of it."""
        return node in self._out

    @property
    def version(self) -> int:
        """Another one whenever somebody may have been revoked."""
        return self._revoked.nodes_version

    @property
    def stale(self) -> bool:
        """Whether more may be revoked than `renew` has judged."""
        return self._judged != self.version

    def check_caller(self, node: NodeId, shown: bytes) -> None:
        """Raise NotPermittedError if a node that TLS has proved, by a chain in PEM, is out."""
        if self.version:
            keys = keys_shown(shown) if shown else self._keys_known(node)
            reason = self._refusal(node, keys)
            if reason:
                raise NotPermittedError(reason, ANEW if reason == ITSELF else AGAIN)

    def refusal_of_called(self, node: NodeId, chain: tuple[bytes, ...]) -> str:
        """Say why a node that we have dialled is not spoken to, by the chain (DER) that it sent.

        TLS has proved its id, and does not tell a client how.
        """
        if not self.version:
            return ""
        if not leads_to_root(chain, node, self._root_keys):
            keys = self._keys_known(node)
            return self._refusal(node, keys) if keys else UNPROVED
        return self._refusal(node, keys_of(chain))

    def consider(self, node: NodeId) -> bool:
        """Judge a node by its present record; tell whether it is out."""
        if not self.version:
            return False
        if self._refusal(node, self._keys_known(node)):
            self._out.add(node)
        else:
            self._out.discard(node)
        return node in self._out

    def renew(self) -> set[NodeId]:
        """Judge everybody anew if more is revoked than before; return whom that concerns."""
        if not self.stale:
            return set()
        self._judged = self.version
        before = set(self._out)
        named = {node_id_of(key) for key in self._revoked.nodes}
        for node in named.union(self._tables.origins()):
            self.consider(node)
        return before ^ self._out

    def _refusal(self, node: NodeId, keys: frozenset[bytes]) -> str:
        own = node_key_of(node)
        if self._revoked.has_node(own, admits=False) and self._is_out(own):
            return ITSELF
        if any(self._revoked.cuts_off(key, own) for key in keys - {own}):
            return WITH_ADMITTER
        return ""

    def _is_out(self, key: bytes) -> bool:
        """Whether the revocation of a node counts: that of an admitter does only if the root's."""
        roots = frozenset(self._root_keys)
        return self._revoked.has_node(key, admits=True) or not any(
            key in admitters_in(self._certificates_of(origin), roots)
            for origin in self._tables.origins()
        )

    def _keys_known(self, node: NodeId) -> frozenset[bytes]:
        return keys_of(self._certificates_of(node))

    def _certificates_of(self, node: NodeId) -> tuple[bytes, ...]:
        record = self._tables.node(node, forgotten=True)
        return () if record is None else record.certificates
