"""Who may command and who may admit, as one node's control set says: questions before a change.

Invariant: nothing here decides; `state` is what those who judge commands would say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from meshnode.core.control.entries import Revoke
from meshnode.core.control.rolebook import giver_of
from meshnode.core.ids import NodeId, node_id_of
from meshnode.core.membership.certificates import expires_at_s

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshnode.core.control.control import ControlSet
    from meshnode.core.control.roles import Role


class GivenRole(msgspec.Struct, frozen=True):
    """A role, on whose word it stands, and whether it counts: active, revoked or fallen."""

    role: Role
    giver: bytes
    node: str  # that passed it on; empty if it was given directly
    state: str


class AdmittingNode(msgspec.Struct, frozen=True):
    """A node that a present root lets admit."""

    node: NodeId
    root: bytes
    expires_at_s: float


class Authorities:
    """Answers about one control set."""

    def __init__(self, control: ControlSet) -> None:
        self._control = control
        self.succession = control.succession

    def roles(self) -> Iterator[GivenRole]:
        """Return every role given up to now, the oldest first, as each counts when it is read."""
        return map(self._given, sorted(self._control.roles.all(), key=lambda one: one.issued_s))

    def admitters(self) -> Iterator[AdmittingNode]:
        """Yield the nodes that may admit, with the certificate of each present root."""
        for node in sorted(self.succession.admitters()):
            for root in self.succession.present:
                certificate = self.succession.certificate_of(node, root)
                if certificate is not None:
                    yield AdmittingNode(node, root, expires_at_s(certificate))

    def revocations(self) -> list[tuple[bytes, Revoke]]:
        """Return what was revoked for good, and by whom; what removed roots said is left out."""
        removed = self.succession.removed
        return [
            (one.issuer, one.body)
            for one in self._control.held(Revoke).values()
            if isinstance(one.body, Revoke)
            and one.body.what != "grant"
            and one.issuer not in removed
        ]

    def _given(self, role: Role) -> GivenRole:
        node = "" if role.via is None else node_id_of(role.issuer)
        return GivenRole(role, giver_of(role), node, self._state(role))

    def _state(self, role: Role) -> str:
        if self._control.revocations.has_key(role.subject):
            return "revoked"
        return "active" if self._control.roles.counts(role) else "fallen"
