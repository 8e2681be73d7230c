"""Who was given which role, and which of them still count.

Invariant: `ever` only grows, and is what storing asks; `now` and `given` take from it what was
revoked, and are what acting asks.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from meshnode.core.roles import Role, authorization_from_signed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from meshnode.core.revocations import Revocations


class RoleBook:
    """All roles that are held, by whom they were given to."""

    def __init__(self, root_keys: frozenset[bytes], revocations: Revocations) -> None:
        self._root_keys = root_keys
        self._revocations = revocations
        self._roles: dict[bytes, list[Role]] = {}

    def add(self, role: Role) -> None:
        """Take a role that is stored."""
        self._roles.setdefault(role.subject, []).append(role)

    def of(self, key: bytes) -> Sequence[Role]:
        """Return all roles that a key was given."""
        return self._roles.get(key, ())

    def given_by(self, node: bytes) -> set[bytes]:
        """Return the keys that a node has given a role, on an admin's word."""
        given = (role for roles in self._roles.values() for role in roles)
        return {role.subject for role in given if role.issuer == node and role.via is not None}

    def ever(self, key: bytes) -> str:
        """Return the strongest role that a key was ever given, or the empty string."""
        return self._strongest(key, self.of(key))

    def now(self, key: bytes) -> str:
        """Return the strongest role that a key has now, or the empty string."""
        return "" if self._revocations.has_key(key) else self.given(key)

    def given(self, key: bytes) -> str:
        """Return the same without what was revoked, but for the key itself: for its survivors."""
        return self._strongest(key, (role for role in self.of(key) if self._counts(role)))

    def is_admin(self, key: bytes) -> bool:
        """Whether a key is the root's, or was made an admin by it: one step, so never a ring."""
        return key in self._root_keys or any(
            role.role == "admin" and role.issuer in self._root_keys for role in self.of(key)
        )

    def _strongest(self, key: bytes, roles: Iterable[Role]) -> str:
        if key in self._root_keys:
            return "admin"
        held = {role.role for role in roles}
        return next((name for name in ("admin", "operator", "observer") if name in held), "")

    def _counts(self, role: Role) -> bool:
        """Whether who gave a role was not revoked, key and node, or spares its subject."""
        if role.via is not None and self._revocations.cuts_off(role.issuer, role.subject):
            return False
        return self._revocations.spares(giver_of(role), role.subject)


@lru_cache(maxsize=1 << 12)
def giver_of(role: Role) -> bytes:
    """Return the key on whose word a role stands: an admitting node only passes it on."""
    return role.issuer if role.via is None else authorization_from_signed(role.via).signer
