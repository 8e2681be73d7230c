"""What a key is worth at this node, and what hangs on a node: questions before a revocation.

Invariant: a verdict is what the owner's court would say (core/commands/commands.py), the target
left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from meshnode.core.commands.chains import Chains
from meshnode.core.control.grants import check_time
from meshnode.core.errors import NotAuthenticatedError
from meshnode.core.floor import SKEW_S
from meshnode.core.ids import NodeId, node_key_of
from meshnode.core.membership.certificates import keys_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from meshnode.app.mesh.mesh import Mesh
    from meshnode.core.control.grants import Grant
    from meshnode.core.keys import Signed
    from meshnode.core.membership.members import NodeRecord


class Verdict(msgspec.Struct, frozen=True):
    """`state`: valid, expired, early, revoked, or worthless, which no role stands behind."""

    state: str
    detail: str = ""
    role: str = ""


class Admission(msgspec.Struct, frozen=True):
    """Whether a node admits, whom it has admitted, and which keys it gave a role."""

    admits: bool
    nodes: tuple[NodeId, ...]
    operators: tuple[bytes, ...]


class Keys:
    """Answers about keys from one node's control set and member records."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._chains = Chains()

    def grants_of(self, chain: Sequence[Signed]) -> tuple[Grant, ...]:
        """Return what a key's chain says, verified; raises NotAuthenticatedError."""
        return self._chains.verified(chain, self._mesh.genesis.mesh_id)

    def judge(self, chain: Sequence[Signed], now_s: float, skew_s: float = SKEW_S) -> Verdict:
        """Say what a command signed with this key would meet, where clocks differ by `skew_s`."""
        control = self._mesh.control
        try:
            grants = self.grants_of(chain)
        except NotAuthenticatedError as error:
            return Verdict("worthless", error.message)
        if fault := control.fault_of(grants):
            return Verdict("revoked", fault)
        try:
            check_time(grants, now_s, skew_s)
        except NotAuthenticatedError as error:
            return Verdict(_out_of_time(grants, now_s), error.message)
        try:
            return Verdict("valid", role=control.role_behind(grants))
        except NotAuthenticatedError as error:
            return Verdict("worthless", error.message)

    def admission(self, node: NodeId) -> Admission:
        """Say what hangs on a node; raises PeerError for what is no node id."""
        key = node_key_of(node)
        records = list(self._records())
        through = (peer for peer, one in records if key in keys_of(one.certificates))
        return Admission(
            self._mesh.revoked.admits(key),
            tuple(sorted(peer for peer in through if peer != node)),
            tuple(sorted(self._mesh.control.roles.given_by(key))),
        )

    def _records(self) -> Iterator[tuple[NodeId, NodeRecord]]:
        for origin in self._mesh.tables.origins():
            record = self._mesh.tables.node(origin)
            if record is not None:
                yield origin, record


def _out_of_time(grants: Sequence[Grant], now_s: float) -> str:
    if any(now_s > link.expires_s for link in grants):
        return "expired"
    early = any(now_s < link.not_before_s for link in grants)
    return "early" if early else "worthless"  # for longer than any key is
