"""How much of the control set is for whom, so that nobody can fill it against those who revoke.

Of all entries ENTRIES_MAX are kept. A tenth is for what stands for ever by a root, of each only so
much, a tenth for what admins revoke. What is beyond counts among the others, which have the rest.

Invariant: what fits is a property of a set of entries. Places are kept for keys, by what they ever
were: an admin by a root, a root of a version that was followed. So a key is given places, and never
loses them, and in whatever order entries come they end in the same. A node that hears what another
holds has room for all of it, once it has heard who the roots and admins are.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from meshnode.core.control.entries import Revoke
from meshnode.core.control.roles import Role
from meshnode.core.control.succession import Admits, RootKeys
from meshnode.core.errors import PeerError

if TYPE_CHECKING:
    from meshnode.core.control.entries import Entry
    from meshnode.core.control.rolebook import RoleBook

ENTRIES_MAX = 50_000  # more: PeerError to the sender, the link is kept. All ids fit into one frame
OF_ROOTS = ENTRIES_MAX // 10  # places that only what roots say for ever can take
OF_ONE_ROOT = OF_ROOTS // 8  # of them, by each key that is or was a root
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
        self._staying: Counter[bytes] = Counter()  # the same by issuer
        self._revoking: Counter[bytes] = Counter()  # what stays of revocations, and what does not
        self._passing: Counter[bytes] = Counter()  # revocations that do not stay
        self._places: dict[bytes, tuple[int, int]] = {}  # kept for roots and for revocations
        self._of_roots = 0
        self._of_revocations = 0

    def check(self, entry: Entry, gone: Entry | None = None) -> None:
        """Raise FullError if there is no room for an entry that is not held; `gone` goes for it."""
        if stays(entry):
            limit = self._given_max(entry)
            if self._given[entry.issuer, entry.kind] >= limit:
                what = "roles" if isinstance(entry.body, Role) else "revocations"
                raise FullError(f"more than {limit} {what} from one issuer")
        before = self._others()
        if gone is not None:
            self.drop(gone)
        self.add(entry)
        others = self._others()
        self.drop(entry)
        if gone is not None:
            self.add(gone)
        if before < others > ENTRIES_MAX - OF_ROOTS - OF_REVOCATIONS:
            said = "the control set is full: it takes what a root says for ever, and a number of"
            raise FullError(f"{said} revocations by each admin")

    def add(self, entry: Entry) -> None:
        """Count an entry that is taken in."""
        self._tell(entry, 1)

    def drop(self, entry: Entry) -> None:
        """Count an entry no more."""
        self._tell(entry, -1)

    def reconsider(self, key: bytes) -> None:
        """Give what a key says the places of what it has become: an admin, or a root."""
        roots, revocations = self._places.pop(key, (0, 0))
        self._of_roots -= roots
        self._of_revocations -= revocations
        if self._roles.was_root(key):
            roots, revocations = self._staying[key], self._passing[key]
        elif self._roles.was_made_by_root(key):
            roots, revocations = 0, self._revoking[key]
        else:
            return
        places = (min(roots, OF_ONE_ROOT), min(revocations, OF_ONE_ADMIN))
        if any(places):
            self._places[key] = places
            self._of_roots += places[0]
            self._of_revocations += places[1]

    def reconsider_all(self) -> None:
        """Do that for all, since there are other roots."""
        for key in self._staying.keys() | self._passing.keys():
            self.reconsider(key)

    def _tell(self, entry: Entry, count: int) -> None:
        self._count += count
        if stays(entry):
            self._given[entry.issuer, entry.kind] += count
            self._staying[entry.issuer] += count
        if isinstance(entry.body, Revoke):
            self._revoking[entry.issuer] += count
            self._passing[entry.issuer] += 0 if stays(entry) else count
        self.reconsider(entry.issuer)

    def _others(self) -> int:
        """How many have no place of their own."""
        apart = min(self._of_roots, OF_ROOTS) + min(self._of_revocations, OF_REVOCATIONS)
        return self._count - apart

    def _given_max(self, entry: Entry) -> int:
        if isinstance(entry.body, Role):
            return ROLES_MAX
        return REVOKED_BY_ADMIN_MAX if self._roles.is_admin(entry.issuer) else REVOKED_MAX


def stays(entry: Entry) -> bool:
    """Whether an entry is never dropped: others hang on it, or a thief would push it out."""
    return isinstance(entry.body, Role | RootKeys | Admits) or (
        isinstance(entry.body, Revoke) and entry.body.what != "grant"
    )
