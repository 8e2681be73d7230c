"""Which nodes are revoked: themselves, or with the admitter that let them in.

Invariant: a node is judged by what proves its admission: by the chain that it shows while it
speaks, and by its member record where it is only spoken of. So a node that another admitter has
let in anew is heard at once, though everybody still holds its old record. Storing does not look
here: what a revoked node has written is kept and passed on, and what it has spent counts.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from meshnode.core.certificates import admitters_in, keys_of, keys_shown, leads_to_root
from meshnode.core.errors import NotPermittedError
from meshnode.core.ids import NodeId, node_id_of, node_key_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

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
        self._counted = control.succession.counted
        self._revoked = control.revocations
        self._tables = tables
        self._judged = (0, len(self._counted))  # the version, and the roots, that `_out` is for
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
        return self._judged != (self.version, len(self._counted))

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
        if self.version:
            self._judge(node, self._admitters)
        return node in self._out

    def renew(self) -> set[NodeId]:
        """Judge anew whom that concerns what was revoked meanwhile; return who is in or out by it.

        By a root's word those fall whom a node has admitted. Without one only who was named is
        out, and who is out perhaps no more, since it is known by now to admit others.
        """
        if not self.stale:
            return set()
        version, roots = self._judged
        self._judged = (self.version, len(self._counted))
        named, by_root = self._revoked.nodes_since(version)
        before, members = set(self._out), set(self._tables.origins())
        concerned = members if by_root or roots != len(self._counted) else members & before
        admitters = cache(self._admitters)
        for node in concerned.union(map(node_id_of, named)):
            self._judge(node, admitters)
        return before ^ self._out

    def _judge(self, node: NodeId, admitters: Callable[[], AbstractSet[bytes]]) -> None:
        if self._refusal(node, self._keys_known(node), admitters):
            self._out.add(node)
        else:
            self._out.discard(node)

    def _refusal(
        self,
        node: NodeId,
        keys: frozenset[bytes],
        admitters: Callable[[], AbstractSet[bytes]] | None = None,
    ) -> str:
        own = node_key_of(node)
        if self._revoked.has_node(own, admits=False):
            proved = admitters or self._admitters
            # That of an admitter counts only if it is the root's.
            if self._revoked.has_node(own, admits=True) or own not in proved():
                return ITSELF
        if any(self._revoked.cuts_off(key, own) for key in keys - {own}):
            return WITH_ADMITTER
        return ""

    def _admitters(self) -> set[bytes]:
        """Return the keys that a certificate known here proves to be admitters by a root."""
        roots = frozenset(self._root_keys)
        certificates = map(self._certificates_of, self._tables.origins())
        return set().union(*(admitters_in(one, roots) for one in certificates))

    def _keys_known(self, node: NodeId) -> frozenset[bytes]:
        return keys_of(self._certificates_of(node))

    def _certificates_of(self, node: NodeId) -> tuple[bytes, ...]:
        record = self._tables.node(node, forgotten=True)
        return () if record is None else record.certificates
