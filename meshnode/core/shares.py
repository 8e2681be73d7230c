"""How much of the control set is for whom, so that nobody can fill it against those who revoke.

Of all entries ENTRIES_MAX are kept. A tenth is for what stands for ever by a present root, a tenth
for what admins revoke. What is beyond these tenths counts among the others, which have the rest.

Invariant: what fits is a property of a set of entries, and whatever fits does so in any order and
any part of it. So a node that hears what another holds has room for all of it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from meshnode.core.entries import Revoke
from meshnode.core.errors import PeerError
from meshnode.core.roles import Role
from meshnode.core.succession import Admits, RootKeys

if TYPE_CHECKING:
    from meshnode.core.entries import Entry
    from meshnode.core.rolebook import RoleBook

ENTRIES_MAX = 50_000  # more: PeerError to the sender, the link is kept. All ids fit into one frame
OF_ROOTS = ENTRIES_MAX // 10  # places that only what roots say for ever can take
OF_REVOCATIONS = ENTRIES_MAX // 10  # and those that only what admins revoke can
OF_ONE_ADMIN = OF_REVOCATIONS // 5  # of the latter, whatever else one revokes
ROLES_MAX = 10_000  # given by one issuer; more: PeerError. None makes room: others hang on them
REVOKED_BY_ADMIN_MAX = 10_000  # keys and nodes, for ever, by one issuer; the same
REVOKED_MAX = 16  # the same by one that is no admin: it can only revoke itself


class FullError(PeerError):
    """There is no room for an entry, whoever brings it. Nothing changed."""


class Shares:
    """How many entries are held, and of whom."""

    def __init__(self, roles: RoleBook) -> None:
        self._roles = roles
        self._count = 0
        self._given: Counter[tuple[bytes, str]] = Counter()  # what never goes, by issuer and kind
        self._of_roots = 0
        self._revoking: dict[bytes, set[bytes]] = {}  # entries of admins, by issuer
        self._of_revocations = 0  # at most OF_ONE_ADMIN of each

    def check(self, entry: Entry) -> None:
        """Raise FullError if there is no room for an entry that is not held."""
        if stays(entry):
            limit = self._given_max(entry)
            if self._given[entry.issuer, entry.kind] >= limit:
                what = "roles" if isinstance(entry.body, Role) else "revocations"
                raise FullError(f"more than {limit} {what} from one issuer")
        others = self._count - min(self._of_roots, OF_ROOTS)
        others -= min(self._of_revocations, OF_REVOCATIONS)
        if others >= ENTRIES_MAX - OF_ROOTS - OF_REVOCATIONS and not self._is_reserved(entry):
            said = "the control set is full: it takes what a root says for ever, and a number of"
            raise FullError(f"{said} revocations by each admin")

    def add(self, entry_id: bytes, entry: Entry) -> None:
        """Count an entry that is taken in."""
        self._count += 1
        if stays(entry):
            self._given[entry.issuer, entry.kind] += 1
        if self._is_of_root(entry):
            self._of_roots += 1
        elif self._is_of_admin(entry):
            mine = self._revoking.setdefault(entry.issuer, set())
            mine.add(entry_id)
            self._of_revocations += len(mine) <= OF_ONE_ADMIN

    def drop(self, entry_id: bytes, entry: Entry) -> None:
        """Count an entry no more; it is none of those that stay."""
        self._count -= 1
        mine = self._revoking.get(entry.issuer, set())
        if entry_id in mine:
            self._of_revocations -= len(mine) <= OF_ONE_ADMIN
            mine.remove(entry_id)

    def _is_reserved(self, entry: Entry) -> bool:
        """Whether an entry takes a place that the others cannot have."""
        if self._is_of_root(entry):
            return self._of_roots < OF_ROOTS
        mine = len(self._revoking.get(entry.issuer, ()))
        has_place = mine < OF_ONE_ADMIN and self._of_revocations < OF_REVOCATIONS
        return has_place and self._is_of_admin(entry)

    def _is_of_root(self, entry: Entry) -> bool:
        return stays(entry) and self._roles.is_root(entry.issuer)

    def _is_of_admin(self, entry: Entry) -> bool:
        return isinstance(entry.body, Revoke) and self._roles.is_admin(entry.issuer)

    def _given_max(self, entry: Entry) -> int:
        if isinstance(entry.body, Role):
            return ROLES_MAX
        return REVOKED_BY_ADMIN_MAX if self._roles.is_admin(entry.issuer) else REVOKED_MAX


def stays(entry: Entry) -> bool:
    """Whether an entry is never dropped: others hang on it, or a thief would push it out."""
    return isinstance(entry.body, Role | RootKeys | Admits) or (
        isinstance(entry.body, Revoke) and entry.body.what != "grant"
    )
