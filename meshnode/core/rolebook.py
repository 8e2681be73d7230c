"""Who was given which role, and which of them still count.

Invariant: `ever` only grows, and is what storing asks; `now` and `given` take from it what was
revoked, and are what acting asks.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from meshnode.core.roles import Role, authorization_from_signed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from meshnode.core.revocations import Revocations
    from meshnode.core.succession import Succession


class RoleBook:
    """All roles that are held, by whom they were given to."""

    def __init__(self, succession: Succession, revocations: Revocations) -> None:
        self._succession = succession
        self._revocations = revocations
        self._roles: dict[bytes, list[Role]] = {}

    def add(self, role: Role) -> None:
        """Take a role that is stored."""
        self._roles.setdefault(role.subject, []).append(role)

    def all(self) -> list[Role]:
        """Return all roles, whether they count or not."""
        return [role for roles in self._roles.values() for role in roles]

    def of(self, key: bytes) -> Sequence[Role]:
        """Return all roles that a key was given."""
        return self._roles.get(key, ())

    def given_by(self, node: bytes) -> set[bytes]:
        """Return the keys that a node has given a role, on an admin's word."""
        return {role.subject for role in self.all() if role.issuer == node and role.via is not None}

    def ever(self, key: bytes) -> str:
        """Return the strongest role that a key was ever given, or the empty string."""
        return _strongest(self.of(key), is_root=key in self._succession.ever)

    def now(self, key: bytes) -> str:
        """Return the strongest role that a key has now, or the empty string."""
        return "" if self._revocations.has_key(key) else self.given(key)

    def given(self, key: bytes) -> str:
        """Return the same without what was revoked, but for the key itself: for its survivors."""
        counting = (role for role in self.of(key) if self.counts(role))
        return _strongest(counting, is_root=key in self._succession.present)

    def was_root(self, key: bytes) -> bool:
        """Whether a key is, or was, a root's of a version that was followed."""
        return key in self._succession.counted

    def is_admin(self, key: bytes) -> bool:
        """Whether a key is a root's, or was made an admin by one: one step, so never a ring."""
        return self._is_admin(key, self._succession.ever)

    def made_by_root(self, key: bytes) -> bool:
        """Whether a key is an admin by a root of now, revoked or not."""
        return self._is_admin(key, self._succession.present)

    def was_made_by_root(self, key: bytes) -> bool:
        """Whether a key is an admin by a root of a version that was followed."""
        return self._is_admin(key, self._succession.counted)

    def _is_admin(self, key: bytes, roots: Collection[bytes]) -> bool:
        return key in roots or any(
            role.role == "admin" and role.issuer in roots for role in self.of(key)
        )

    def counts(self, role: Role) -> bool:
        """Whether who gave a role was not revoked, key and node, or spares its subject.

        What hangs on a root that was removed counts for nothing.
        """
        if not self._is_admin(giver_of(role), self._succession.present):
            return False
        if role.via is not None and self._revocations.cuts_off(role.issuer, role.subject):
            return False
        return self._revocations.spares(giver_of(role), role.subject)


def _strongest(roles: Iterable[Role], *, is_root: bool) -> str:
    held = {"admin"} if is_root else {role.role for role in roles}
    return next((name for name in ("admin", "operator", "observer") if name in held), "")


@lru_cache(maxsize=1 << 12)
def giver_of(role: Role) -> bytes:
    """Return the key on whose word a role stands: an admitting node only passes it on."""
    return role.issuer if role.via is None else authorization_from_signed(role.via).signer
