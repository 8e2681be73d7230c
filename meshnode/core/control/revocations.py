"""What is revoked: the view over the control set's revocations by which commands are judged.

Invariants: the view is a function of the set of revocations held, not of their order. A key's or a
node's first revocation by an issuer only takes away; what else that issuer lists as surviving is
given back if every issuer that revoked it lists it too. A revocation outlives its signer, what it
spares does not: the list of an issuer that was revoked itself counts as empty, and so does the list
of a key that revokes itself, because whoever stole that key could add to it.

Storing never looks here (core/control/control.py): nodes that hear of a revocation at different
times must hold the same entries. Root keys are exchanged, never revoked. And since only roots make
admins, only a root's word takes one out, or its own: with those of other admins a single stolen key
would put out all of them, and whomever they gave a role, for good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.core.keys import key_id_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from meshnode.core.control.entries import Revoke
    from meshnode.core.control.grants import Grant

Lists = dict[bytes, dict[bytes, tuple[bytes, ...]]]  # survivors by issuer and entry


class Revocations:
    """Which keys, nodes and grants count for nothing."""

    def __init__(self, root_keys: AbstractSet[bytes]) -> None:
        self._root_keys = root_keys  # of the versions that were followed; a live view
        self.is_for_roots: Callable[[bytes], bool] = root_keys.__contains__  # and who is admin
        self._keys: dict[bytes, Lists] = {}
        self._nodes: dict[bytes, Lists] = {}
        self._grants: dict[bytes, Lists] = {}
        self._nodes_said: list[tuple[bytes, bytes]] = []  # issuer and node, as they come and go

    def add(self, entry_id: bytes, issuer: bytes, revoke: Revoke) -> bool:
        """Take a revocation that is stored; tell whether it is its issuer's first of that name."""
        lists = self._of(revoke.what).setdefault(revoke.name, {})
        is_first = issuer not in lists
        lists.setdefault(issuer, {})[entry_id] = revoke.survivors
        self._tell(issuer, revoke)
        return is_first

    def drop(self, entry_id: bytes, issuer: bytes, revoke: Revoke) -> None:
        """Leave out one that has expired, or whose issuer was a root that was removed."""
        named = self._of(revoke.what)
        lists = named[revoke.name]
        del lists[issuer][entry_id]
        if not lists[issuer]:
            del lists[issuer]
        if not lists:
            del named[revoke.name]
        self._tell(issuer, revoke)

    # Keys, and what they have given.

    def has_key(self, key: bytes) -> bool:
        """Whether somebody has revoked a key whose word counts for that."""
        if key not in self._keys or key in self._root_keys:
            return False
        return next(self._counting(key), None) is not None

    def spares(self, giver: bytes, subject: bytes) -> bool:
        """Whether what one key gave to another still counts: a role, or a grant."""
        if not self.has_key(giver):
            return True
        return all(
            issuer != giver
            and not self.has_key(issuer)
            and _lists(self._keys[giver][issuer], subject)
            for issuer in self._counting(giver)
        )

    def _counting(self, key: bytes) -> Iterator[bytes]:
        """Yield those who have revoked a key and whose word counts for that."""
        only_roots = self.is_for_roots(key)
        for issuer in self._keys[key]:
            if not only_roots or issuer == key or issuer in self._root_keys:
                yield issuer

    def fault_of(self, grants: Sequence[Grant], is_admin: Callable[[bytes], bool]) -> str:
        """Say which part of a chain of grants is revoked; empty if none is.

        The revocation of a grant's id counts if its issuer gave that grant, or one before it in the
        chain, or is an admin, or was one: ids are chosen by whoever grants, so they prove nothing.
        """
        givers: set[bytes] = set()
        for link in grants:
            givers.add(link.issuer)
            for key in (link.subject, link.issuer):
                spared = key == link.issuer and self.spares(key, link.subject)
                if self.has_key(key) and not spared:
                    return f"key {key_id_of(key)} was revoked"
            if any(by in givers or is_admin(by) for by in self._grants.get(link.grant_id, ())):
                return f"the grant of key {key_id_of(link.subject)} was revoked"
        return ""

    # Nodes, and whom they have admitted.

    @property
    def nodes(self) -> Iterable[bytes]:
        """The keys of all nodes that somebody has revoked; a live view."""
        return self._nodes.keys()

    @property
    def nodes_version(self) -> int:
        """How often a revocation of a node has come or gone."""
        return len(self._nodes_said)

    def nodes_since(self, version: int) -> tuple[set[bytes], bool]:
        """Return the nodes that were named since a version, and whether by a root, ever one.

        Those whom a node has admitted fall with it by a root's word only.
        """
        said = self._nodes_said[version:]
        return {node for _, node in said}, any(issuer in self._root_keys for issuer, _ in said)

    def has_node(self, node: bytes, *, admits: bool) -> bool:
        """Whether a node is revoked itself; only the root revokes one that `admits` others."""
        issuers = self._nodes.get(node, {})
        return bool(issuers) and (not admits or not self._root_keys.isdisjoint(issuers))

    def cuts_off(self, admitter: bytes, subject: bytes) -> bool:
        """Whether what an admitter has admitted, or given a role, falls with it.

        Only the root can revoke an admitter, so only its lists are looked at.
        """
        issuers = self._nodes.get(admitter, {})
        roots = [issuer for issuer in issuers if issuer in self._root_keys]
        return bool(roots) and not all(_lists(issuers[root], subject) for root in roots)

    def _tell(self, issuer: bytes, revoke: Revoke) -> None:
        if revoke.what == "node":
            self._nodes_said.append((issuer, revoke.name))

    def _of(self, what: str) -> dict[bytes, Lists]:
        return {"key": self._keys, "node": self._nodes, "grant": self._grants}[what]


def _lists(by_entry: dict[bytes, tuple[bytes, ...]], subject: bytes) -> bool:
    return any(subject in survivors for survivors in by_entry.values())
