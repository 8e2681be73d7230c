"""Which nodes are revoked: themselves, or with the admitter that let them in.

Invariant: a node is judged by what proves its admission: by the chain that it shows while it
speaks, and by its member record where it is only spoken of. So a node that another admitter has
let in anew is heard at once, though everybody still holds its old record. Storing does not look
here: what a revoked node has written is kept and passed on, and what it has spent counts.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from meshnode.core.errors import NotPermittedError
from meshnode.core.ids import NodeId, node_id_of, node_key_of
from meshnode.core.membership.certificates import admitters_in, keys_of, keys_shown, leads_to_root

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from meshnode.core.control.control import ControlSet
    from meshnode.core.tables.tables import Tables

REVOKED = "revoked"
ITSELF = "this node was revoked: the mesh has nothing more to do with it"
WITH_ADMITTER = "the node that admitted this one was revoked, and this one was not spared"
UNPROVED = "a node that does not show who admitted it, while an admitter is revoked"
AGAIN = "ask for a new invite, and join with it: session-mesh join -"
ANEW = "ask for a new invite, and join with it in a new home: the key of this one stays revoked"


class RevokedNodes:
    """One node's view of who is out."""

    def __init__(self, control: ControlSet, tables: Tables) -> None:
        self._succession = control.succession
        self._revoked = control.revocations
        self._tables = tables
        self._judged = (0, 0)  # the version, and the words of roots, that `_out` is for
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
        return bool(self.version) and self._judged != (self.version, self._succession.steps)

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
        if not leads_to_root(chain, node, self._succession.ever):
            keys = self._keys_known(node)
            return self._refusal(node, keys) if keys else UNPROVED
        return self._refusal(node, keys_of(chain))

    def consider(self, node: NodeId) -> bool:
        """Judge a node by its present record; tell whether it is out."""
        if self.version:
            self._judge(node, self._admitters_shown)
        return node in self._out

    def renew(self) -> set[NodeId]:
        """Judge anew whom that concerns what was revoked meanwhile; return who is in or out by it.

        By a root's word those fall whom a node has admitted. Without one only who was named is
        out, and who is out perhaps no more, since it is known by now to admit others. What roots
        say of each other, and of who admits, concerns everybody.
        """
        if not self.stale:
            return set()
        version, steps = self._judged
        self._judged = (self.version, self._succession.steps)
        by_words = steps != self._succession.steps
        named, by_root = self._revoked.nodes_since(0 if by_words else version)
        before, members = set(self._out), set(self._tables.origins())
        concerned = members if by_root or by_words else members & before
        shown = cache(self._admitters_shown)
        for node in concerned.union(map(node_id_of, named)):
            self._judge(node, shown)
        return before ^ self._out

    def admits(self, key: bytes, shown: Callable[[], AbstractSet[bytes]] | None = None) -> bool:
        """Whether a present root lets a node admit others, be it that none has come in by it yet.

        By what the root has said, which nobody can keep back for later, or by the certificates of a
        member; these alone, a thief would show when it pleases.
        """
        said = self._succession.certificate_of(node_id_of(key)) is not None
        return said or key in (shown or self._admitters_shown)()

    def _judge(self, node: NodeId, shown: Callable[[], AbstractSet[bytes]]) -> None:
        if self._refusal(node, self._keys_known(node), shown):
            self._out.add(node)
        else:
            self._out.discard(node)

    def _refusal(
        self,
        node: NodeId,
        keys: frozenset[bytes],
        shown: Callable[[], AbstractSet[bytes]] | None = None,
    ) -> str:
        own = node_key_of(node)
        # That of an admitter counts only if it is the root's.
        if self._revoked.has_node(own, admits=False) and (
            self._revoked.has_node(own, admits=True) or not self.admits(own, shown)
        ):
            return ITSELF
        if any(self._revoked.cuts_off(key, own) for key in keys - {own}):
            return WITH_ADMITTER
        return ""

    def _admitters_shown(self) -> set[bytes]:
        """Return the keys that a member's certificate proves to be admitters by a present root."""
        roots = frozenset(self._succession.present)
        certificates = map(self._certificates_of, self._tables.origins())
        return set().union(*(admitters_in(one, roots) for one in certificates))

    def _keys_known(self, node: NodeId) -> frozenset[bytes]:
        return keys_of(self._certificates_of(node))

    def _certificates_of(self, node: NodeId) -> tuple[bytes, ...]:
        record = self._tables.node(node, forgotten=True)
        return () if record is None else record.certificates
