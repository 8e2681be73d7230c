"""Who the mesh's roots are, and which nodes they let admit: two kinds of the control set.

The genesis names the roots of version 1. An entry of kind `roots`, signed by a root of version n,
names all roots of version n + 1; whoever it leaves out is removed for good (as in TUF, with one
signature instead of a threshold). Invariant: `ever`, by which entries are stored, only grows;
`present`, by which they count, follows the versions one by one, so it does not depend on the order
in which they come. Only where two roots exchange the same version differently, each node follows
what it heard first: so whoever steals a root that was removed is believed by nobody who knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.core.errors import PeerError
from meshnode.core.ids import NodeId, node_id_of
from meshnode.core.keys import parse_public
from meshnode.core.membership.certificates import expires_at_s, lets_admit
from meshnode.core.packing import typed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOTS_MAX = 8  # at a time
VERSION_MAX = 1 << 31
CERTIFICATE_BYTES_MAX = 2048


class RootKeys(msgspec.Struct, frozen=True):
    """That these are all the roots from a version on."""

    version: int
    keys: tuple[bytes, ...]

    def to_map(self) -> dict[str, Any]:
        """Return what an entry says beside its envelope."""
        return {"version": self.version, "keys": list(self.keys)}


class Admits(msgspec.Struct, frozen=True):
    """A root's word that a node may admit others: its certificate, DER."""

    node: bytes
    certificate: bytes

    def to_map(self) -> dict[str, Any]:
        """Return what an entry says beside its envelope."""
        return {"node": self.node, "certificate": self.certificate}


Step = RootKeys | Admits


def root_keys_from_map(value: dict[str, Any]) -> RootKeys:
    """Decode the roots of a version; raises PeerError."""
    version = typed(value["version"], int)
    keys = tuple(typed(key, bytes) for key in typed(value["keys"], list))
    for key in keys:
        parse_public(key)
    if not 1 < version <= VERSION_MAX or not 1 <= len(set(keys)) == len(keys) <= ROOTS_MAX:
        raise PeerError(f"a version of the roots has a number above 1, and 1 to {ROOTS_MAX} keys")
    return RootKeys(version, keys)


def admits_from_map(value: dict[str, Any]) -> Admits:
    """Decode a root's word that a node may admit; what its certificate says is for the reader."""
    said = Admits(typed(value["node"], bytes), typed(value["certificate"], bytes))
    parse_public(said.node)
    if not 0 < len(said.certificate) <= CERTIFICATE_BYTES_MAX:
        raise PeerError("an admitter without a certificate, or with one that is too large")
    return said


class Succession:
    """The roots from the genesis until now, and their admitters."""

    def __init__(self, genesis_keys: Iterable[bytes]) -> None:
        self.version = 1
        self.present: tuple[bytes, ...] = tuple(genesis_keys)  # the oldest first
        self.removed: set[bytes] = set()
        self.ever = set(self.present)  # whoever any stored entry calls a root
        self.counted = set(self.present)  # roots of the versions that were followed; only grows
        self.steps = 0  # entries learnt: whoever follows the roots looks when it has risen
        self.followed: list[bytes] = []  # entries, in order: what this node stays with
        self._steps: dict[int, dict[bytes, tuple[bytes, RootKeys]]] = {}
        self._admitters: dict[NodeId, list[tuple[bytes, bytes]]] = {}
        self._before: tuple[bytes, ...] = ()

    def follow(self, entry_ids: Iterable[bytes]) -> None:
        """Take what this node `followed` before it was started anew; entries come after that."""
        self._before = tuple(entry_ids)

    def learn(self, issuer: bytes, entry_id: bytes, step: Step) -> set[bytes]:
        """Take an entry that is stored; returns the roots that are removed by it."""
        self.steps += 1
        if isinstance(step, Admits):
            words = self._admitters.setdefault(node_id_of(step.node), [])
            words.append((issuer, step.certificate))
            return set()
        self.ever.update(step.keys)
        self._steps.setdefault(step.version, {})[entry_id] = (issuer, step)
        removed = set(self.removed)
        while (chosen := self._next()) is not None:
            entry_id, after = chosen
            self.removed.update(set(self.present).difference(after.keys))
            kept = [key for key in self.present if key in after.keys]
            self.present = (*kept, *(key for key in after.keys if key not in kept))
            self.counted.update(self.present)
            self.version = after.version
            self.followed.append(entry_id)
        return self.removed - removed

    def admitters(self) -> Iterator[NodeId]:
        """Yield the nodes that a present root lets admit."""
        return (node for node in self._admitters if self.certificate_of(node) is not None)

    def certificate_of(self, node: NodeId, root: bytes | None = None) -> bytes | None:
        """Return the certificate (DER) by which a node admits; None if it may not.

        Of several roots' the oldest's, which also those nodes know that missed an exchange; of one
        root's the one that lasts longest. `root`: that one's only.
        """
        words = self._admitters.get(node, ())
        for key in self.present if root is None else (root,):
            good = [one for by, one in words if by == key and lets_admit(one, node, key)]
            if good:
                return max(good, key=expires_at_s)
        return None

    def _next(self) -> tuple[bytes, RootKeys] | None:
        steps = self._steps.get(self.version + 1, {})
        good = [
            (entry_id, step)
            for entry_id, (issuer, step) in steps.items()
            if issuer in self.present and self.removed.isdisjoint(step.keys)
        ]
        if self.version <= len(self._before):
            good = [one for one in good if one[0] == self._before[self.version - 1]]
        return next(iter(good), None)
