"""Who may say what to the whole mesh, as far as storing goes.

Invariant: it asks what was ever given and never what was taken back, so more is never known to
allow less: nodes that hear of a revocation at different times store the same entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from meshnode.core.control.entries import Cancel, Forget, Revoke, StandingKill
from meshnode.core.control.rolebook import word_of
from meshnode.core.control.roles import Role
from meshnode.core.control.settings import Budget, Policy
from meshnode.core.control.succession import Admits, RootKeys
from meshnode.core.errors import PeerError
from meshnode.core.ids import node_id_of

if TYPE_CHECKING:
    from meshnode.core.control.entries import Entry
    from meshnode.core.control.rolebook import RoleBook
    from meshnode.core.control.succession import Succession
    from meshnode.core.keys import Signed


class Entitled:
    """Judges the issuers of entries by the roles and roots that are known."""

    def __init__(self, mesh_id: str, succession: Succession, roles: RoleBook) -> None:
        self._mesh_id = mesh_id
        self._succession = succession
        self._roles = roles

    def may_say(self, entry: Entry) -> bool:
        """Whether what is known here allows an entry. More is never known to allow less."""
        role = self._roles.ever(entry.issuer)
        match entry.body:
            case Role():
                return self._role_stands(entry.body)
            case Revoke():
                return self._revoke_stands(entry.body, entry.issuer)
            case StandingKill() | Cancel() | Policy() | Budget() | Forget():
                return role in {"operator", "admin"}
            case RootKeys() | Admits():
                return entry.issuer in self._succession.ever
            case None:
                return bool(role)  # kinds of newer versions are kept and passed on
            case _:
                assert_never(entry.body)

    def _revoke_stands(self, revoke: Revoke, issuer: bytes) -> bool:
        if issuer in self._succession.ever:
            return True
        if revoke.what == "grant":  # counts only against grants that the issuer gave
            return bool(self._roles.ever(issuer))
        if revoke.what == "node":  # of a node that admits others it counts for nothing
            return self._roles.is_admin(issuer)
        if issuer == revoke.name:
            return bool(self._roles.of(issuer))
        return self._roles.is_admin(issuer) and self._roles.has_given(issuer, revoke.name)

    def _role_stands(self, role: Role) -> bool:
        if role.issuer in self._succession.ever:
            return True
        if role.role == "admin":
            return False  # only the root makes admins, so there is no ring of admins to follow
        if role.via is None:
            return self._roles.is_admin(role.issuer)
        return self._stands_by_invite(role, role.via)

    def _stands_by_invite(self, role: Role, via: Signed) -> bool:
        try:
            word = word_of(via)
        except PeerError:
            return False
        return (
            word.mesh == self._mesh_id
            and word.role == role.role
            and word.admitter == node_id_of(role.issuer)
            and role.issued_s <= word.expires_s
            and self._roles.is_admin(word.signer)
        )
