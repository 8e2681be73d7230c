"""Who was given which role, and which of them still count.

Invariant: `ever` only grows, and is what storing asks; `now` and `given` take from it what was
revoked, and are what acting asks. What is asked is looked up: an answer is worked out anew only
after an entry that concerns its key, so what one entry costs does not grow with all that is held.
"""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from meshnode.core.control.roles import Authorization, Role, authorization_from_signed
from meshnode.core.errors import PeerError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from meshnode.core.control.entries import Revoke
    from meshnode.core.control.revocations import Revocations
    from meshnode.core.control.succession import Succession
    from meshnode.core.keys import Signed

WORDS_MAX = 1 << 12  # of admins, whose signatures were verified, are remembered


class _Gift(NamedTuple):
    """All by which it is decided whether a role counts, beside its subject."""

    role: str
    giver: bytes
    node: bytes  # that passed it on; empty: none


class _Given(msgspec.Struct):
    """What one key was given."""

    roles: list[Role] = msgspec.field(default_factory=list)
    gifts: set[_Gift] = msgspec.field(default_factory=set)  # the same, each said once
    names: set[str] = msgspec.field(default_factory=set)
    made_by: set[bytes] = msgspec.field(default_factory=set)  # who have called it an admin


class RoleBook:
    """All roles that are held, by whom they were given to."""

    def __init__(self, succession: Succession, revocations: Revocations) -> None:
        self._succession = succession
        self._revocations = revocations
        self._held: dict[bytes, _Given] = {}
        self._subjects: defaultdict[bytes, set[bytes]] = defaultdict(set)  # by giver
        self._passed: defaultdict[bytes, set[bytes]] = defaultdict(set)  # by the node between
        self._counting: dict[bytes, str] = {}  # `given` of keys that were given any

    def add(self, role: Role) -> Collection[bytes]:
        """Take a role that is stored; return the keys whose role may be another one now."""
        held = self._held.setdefault(role.subject, _Given())
        was_made, gift = self.made_by_root(role.subject), _gift_of(role)
        held.roles.append(role)
        held.gifts.add(gift)
        held.names.add(role.role)
        self._subjects[gift.giver].add(role.subject)
        if role.via is not None:
            self._passed[role.issuer].add(role.subject)
        if role.role == "admin":
            held.made_by.add(role.issuer)
            if not was_made and self.made_by_root(role.subject):
                return self._changed(self._hanging_on(role.subject))
        known = self._counting.get(role.subject)
        if known is not None and self._counts(gift, role.subject):
            self._counting[role.subject] = _strongest({known, role.role})
        return (role.subject,)

    def revoke(self, entry_id: bytes, issuer: bytes, revoke: Revoke) -> Collection[bytes]:
        """Take a revocation that is stored; return the keys whose role may be another one now."""
        is_first = self._revocations.add(entry_id, issuer, revoke)
        if revoke.what == "grant" or (revoke.what == "node" and not self.was_root(issuer)):
            return ()  # no role hangs on that
        if not is_first:  # whoever has revoked it already only spares more
            return self._changed(revoke.survivors)
        if revoke.what == "node":
            return self._changed(self.given_by(revoke.name))
        return self._changed(self._hanging_on(revoke.name))

    def renew(self) -> None:
        """Take it that there are other roots."""
        self._counting.clear()

    def all(self) -> list[Role]:
        """Return all roles, whether they count or not."""
        return [role for held in self._held.values() for role in held.roles]

    def of(self, key: bytes) -> Sequence[Role]:
        """Return all roles that a key was given."""
        held = self._held.get(key)
        return () if held is None else held.roles

    def has_given(self, giver: bytes, subject: bytes) -> bool:
        """Whether one key gave another a role, itself or by its word to a node."""
        return subject in self._subjects.get(giver, ())

    def given_by(self, node: bytes) -> set[bytes]:
        """Return the keys that a node has given a role, on an admin's word."""
        return set(self._passed.get(node, ()))

    def ever(self, key: bytes) -> str:
        """Return the strongest role that a key was ever given, or the empty string."""
        if key in self._succession.ever:
            return "admin"
        held = self._held.get(key)
        return "" if held is None else _strongest(held.names)

    def now(self, key: bytes) -> str:
        """Return the strongest role that a key has now, or the empty string."""
        return "" if self._revocations.has_key(key) else self.given(key)

    def given(self, key: bytes) -> str:
        """Return the same without what was revoked, but for the key itself: for its survivors."""
        if key in self._succession.present:
            return "admin"
        known = self._counting.get(key)
        if known is None:
            if key not in self._held:
                return ""
            known = self._counting[key] = self._work_out(key)
        return known

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

    def counts(self, role: Role) -> bool:
        """Whether who gave a role was not revoked, key and node, or spares its subject.

        What hangs on a root that was removed counts for nothing.
        """
        return self._counts(_gift_of(role), role.subject)

    def _is_admin(self, key: bytes, roots: Collection[bytes]) -> bool:
        if key in roots:
            return True
        held = self._held.get(key)
        return held is not None and not held.made_by.isdisjoint(roots)

    def _counts(self, gift: _Gift, subject: bytes) -> bool:
        if not self._is_admin(gift.giver, self._succession.present):
            return False
        if gift.node and self._revocations.cuts_off(gift.node, subject):
            return False
        return self._revocations.spares(gift.giver, subject)

    def _work_out(self, key: bytes) -> str:
        return _strongest({one.role for one in self._held[key].gifts if self._counts(one, key)})

    def _hanging_on(self, key: bytes) -> set[bytes]:
        """Return whose role follows from what a key is: an admin, or revoked.

        Its own, and of those that it gave one. Nobody's by whom it has revoked: a role counts by an
        admin, and of an admin's key only the roots' word counts, and its own, which spares nobody.
        """
        return {key}.union(self._subjects.get(key, ()))

    def _changed(self, keys: Collection[bytes]) -> Collection[bytes]:
        for key in keys:
            self._counting.pop(key, None)
        return keys


def _strongest(held: Collection[str]) -> str:
    return next((name for name in ("admin", "operator", "observer") if name in held), "")


def _gift_of(role: Role) -> _Gift:
    return _Gift(role.role, giver_of(role), b"" if role.via is None else role.issuer)


def giver_of(role: Role) -> bytes:
    """Return the key on whose word a role stands: an admitting node only passes it on.

    Nobody's is one whose word cannot be read, as a removed root may have made it.
    """
    if role.via is None:
        return role.issuer
    try:
        return word_of(role.via).signer
    except PeerError:
        return b""


@lru_cache(maxsize=WORDS_MAX)
def word_of(via: Signed) -> Authorization:
    """Decode the word by which a role was passed on, and check its signature; raises PeerError."""
    return authorization_from_signed(via)
