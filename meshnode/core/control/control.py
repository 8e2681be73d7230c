"""The control set: signed entries that every node stores and no feed owns.

Invariant: what is held is a function of the entries ever heard and of the time, whatever their
order: of one issuer's entries in one slot the latest, of one issuer's the ISSUED_MAX latest, and
nothing that has expired. "Later" goes by (expiry, time of issue, id), what stands for ever last of
all: so what expires first is the first to make room, and a node that has dropped what expired holds
the rest of what the others hold.

An entry is stored once its issuer's authority is known here, which only ever grows from the root's
own entries. One that comes too early is refused and offered again by the next reconciliation. So
nobody without a role can fill the set, and whoever has one only a share of it.

Storing asks what was ever given (`roles.ever`); whoever acts on an entry or on a chain of grants
asks what still counts (`role_of`, `role_behind`), and that revocations take away.

Clocks differ, so one node drops an entry before another does. `cut_s` is the latest expiry dropped
here; two nodes compare what both would hold at the higher of their cuts (`root`), and stay quiet.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from contextlib import suppress
from typing import TYPE_CHECKING

from meshnode.core.control.entitled import Entitled
from meshnode.core.control.entries import (
    CONTROL,
    KINDS,
    NEVER_S,
    Entry,
    Forget,
    Revoke,
    entry_from_signed,
    entry_id_of,
    is_of,
)
from meshnode.core.control.hiding import Hidden
from meshnode.core.control.revocations import Revocations
from meshnode.core.control.rolebook import RoleBook
from meshnode.core.control.roles import Role
from meshnode.core.control.shares import Shares, stays
from meshnode.core.control.succession import Admits, RootKeys, Succession
from meshnode.core.errors import NotAuthenticatedError, PeerError
from meshnode.core.keys import Signed, key_id_of, verify
from meshnode.core.summary import Summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from meshnode.core.control.grants import Grant
    from meshnode.core.feeds.heads import Head
    from meshnode.core.ids import NodeId
    from meshnode.core.membership.genesis import Genesis

ENTRY_BYTES_MAX = 4096
ISSUED_MAX = 1_000  # by one operator or observer; beyond, its earliest entries make room
ROOTS_MAX = 64  # remembered until the set changes, by how many entries they leave out
ISSUED_BY_ADMIN_MAX = 10_000  # by one admin: as many as there are feeds to forget

Place = tuple[int, int, bytes]  # (expiry, time of issue, id): the higher is the later


class NoAuthorityError(PeerError):
    """Nothing known here says that its issuer may issue this entry. It may come too early."""


class NoRoomError(PeerError):
    """An entry of our own would push out another one of the same issuer. Nothing changed."""


class ControlSet:
    """All entries heard, and what follows from them. `now_s` is seconds since 1970."""

    def __init__(self, genesis: Genesis) -> None:
        self._mesh_id = genesis.mesh_id
        self.succession = Succession(genesis.root_keys)
        self._entries: dict[bytes, Signed] = {}
        self._held: dict[bytes, Entry] = {}
        self._places: dict[bytes, list[Place]] = {}  # of what may go by issuer, the earliest first
        self._slots: dict[tuple[bytes, str, str], Place] = {}
        self._expiring: list[tuple[int, bytes]] = []  # the earliest first
        self._kinds: dict[type, dict[bytes, Entry]] = {}  # by id, but for roles
        self._roots: dict[int, bytes] = {}
        self._dropped: list[bytes] = []
        self._waiting: list[tuple[Signed, Entry]] = []  # until more is known of who may say what
        self._returned: list[Signed] = []
        self.revocations = Revocations(self.succession.counted)
        self.roles = RoleBook(self.succession, self.revocations)
        self.revocations.is_for_roots = self.roles.made_by_root
        self._entitled = Entitled(genesis.mesh_id, self.succession, self.roles)
        self._shares = Shares(self.roles)
        self._hidden = Hidden(self.roles)
        self.cut_s = 0  # the latest expiry of what was dropped here; never ahead of our clock
        self.summary: Summary[bytes] = Summary(bytes)  # of entry ids: equal on equal sets

    def add(self, signed: Signed, now_s: float, *, ours: bool = False) -> bool:
        """Store an entry; False if it is known, has expired, or is not among the latest.

        Raises PeerError if it cannot be stored: NoAuthorityError if its issuer may not say so as
        far as is known here, or it is `ours` and its issuer is revoked; NoRoomError if it is `ours`
        and another entry would have to go.
        """
        added = self._add(signed, now_s, ours=ours)
        if added and self._waiting and is_of(signed, Role, RootKeys):
            self._retry(now_s)
        return added

    def wait(self, refused: Iterable[Signed]) -> None:
        """Store these as soon as it is known that their issuers may say so: our disk holds them."""
        for signed in refused:
            with suppress(PeerError):
                entry = entry_from_signed(signed, self._mesh_id)
                if not self._entitled.may_say(entry):
                    self._waiting.append((signed, entry))

    def take_returned(self) -> list[Signed]:
        """Return those that had to wait, and were stored since this was last asked."""
        returned, self._returned = self._returned, []
        return returned

    def _retry(self, now_s: float) -> None:
        count = 0
        while count != len(self._waiting):
            waiting, self._waiting = self._waiting, []
            count = len(waiting)
            for signed, entry in waiting:
                if not self._entitled.may_say(entry):
                    self._waiting.append((signed, entry))
                    continue
                with suppress(PeerError):
                    if self._add(signed, now_s):
                        self._returned.append(signed)

    def _add(self, signed: Signed, now_s: float, *, ours: bool = False) -> bool:
        self.expire(now_s)
        entry_id = entry_id_of(signed)
        if entry_id in self._entries:
            return False
        if len(signed.payload) > ENTRY_BYTES_MAX:
            raise PeerError("a control entry is larger than 4 KiB")
        entry = entry_from_signed(signed, self._mesh_id)
        verify(signed, CONTROL, entry.issuer)
        if ours and self.revocations.has_key(entry.issuer):
            raise NoAuthorityError("the key that signed it was revoked")
        if not self._entitled.may_say(entry):
            said = f"the signer's role does not allow entry {entry.kind!r}, as far as is known here"
            raise NoAuthorityError(said)
        if entry.expires_s <= now_s:
            self.cut_s = max(self.cut_s, entry.expires_s)
            return False
        place = (entry.expires_s, entry.issued_s, entry_id)
        before = self._before(entry, ours=ours)
        if before is not None and place <= before:
            return False
        self._shares.check(entry, None if before is None else self._held[before[2]])
        if before is not None:
            self._drop(before[2])
        self._keep(entry, place, signed)
        return True

    def add_all(self, entries: Iterable[Signed], now_s: float) -> list[Signed]:
        """Store what can be stored, in whatever order it comes; return what cannot."""
        given: list[Signed] = []
        others: list[Signed] = []
        for signed in entries:  # roles and roots first: by them it goes how much one may say
            (given if is_of(signed, Role, RootKeys) else others).append(signed)
        return self._add_all([*self._add_all(given, now_s), *others], now_s)

    def _add_all(self, waiting: list[Signed], now_s: float) -> list[Signed]:
        while waiting:
            refused = []
            for entry in waiting:
                try:
                    self.add(entry, now_s)
                except PeerError:
                    refused.append(entry)
            if len(refused) == len(waiting):
                break
            waiting = refused
        return waiting

    def expire(self, now_s: float) -> None:
        """Drop what has expired."""
        self.cut_s = min(self.cut_s, int(now_s))  # our clock was ahead: others may return it
        while self._expiring and self._expiring[0][0] <= now_s:
            expires_s, entry_id = self._expiring[0]
            self._drop(entry_id)
            self.cut_s = max(self.cut_s, expires_s)

    def stirred(self) -> bool:
        """Whether `take_dropped` or `take_reconsidered` would return anything."""
        return bool(self._dropped) or self._hidden.has_moved

    def take_dropped(self) -> tuple[bytes, ...]:
        """Return the ids of what was dropped since this was last asked."""
        dropped, self._dropped = self._dropped, []
        return tuple(entry_id for entry_id in dropped if entry_id not in self._entries)

    def get(self, entry_id: bytes) -> Signed | None:
        """Return one entry."""
        return self._entries.get(entry_id)

    def entry_of(self, role: Role) -> Signed | None:
        """Return the entry by which a role is held."""
        return next((self._entries[i] for i, one in self._held.items() if one.body == role), None)

    def check_room(self, role: Role) -> None:
        """Raise FullError if there is no room for one more role by its issuer."""
        self._shares.check(Entry(KINDS[Role], role.issuer, role.issued_s, NEVER_S, "", role))

    def entries(self) -> list[Signed]:
        """Return all entries, each after those that its authority hangs on."""
        return list(self._entries.values())

    def chosen(self, entry_ids: frozenset[bytes]) -> list[Signed]:
        """Return those of these entries that are held, in the order of `entries`."""
        held = self._entries.items() if entry_ids else ()
        return [signed for entry_id, signed in held if entry_id in entry_ids]

    def held(self, kind: type) -> Mapping[bytes, Entry]:
        """Return the entries whose body is of a kind other than Role, by id; a live view."""
        return self._kinds.setdefault(kind, {})

    def root(self, cut_s: int = 0) -> bytes:
        """Return one hash over all entries, or over those that expire after a time."""
        count = bisect_right(self._expiring, (cut_s, b"\xff" * 17))
        known = self._roots.get(count)
        if known is None:
            gone = {entry_id for _, entry_id in self._expiring[:count]}
            if len(self._roots) >= ROOTS_MAX:
                self._roots.clear()
            known = self._roots[count] = self.summary.root_without(gone)
        return known

    def role_of(self, public_key: bytes) -> str:
        """Return the strongest role that a key has now, or the empty string."""
        return self.roles.now(public_key)

    def role_behind(self, grants: Sequence[Grant]) -> str:
        """Return the role that a chain of grants acts with.

        Raises NotAuthenticatedError if its first issuer has none, or if part of it is revoked. What
        a revoked key has granted to a survivor goes on, with the role that the key was given.
        """
        fault = self.fault_of(grants)
        if fault:
            raise NotAuthenticatedError(f"{fault}: it counts for nothing", "ask for a new key")
        role = self.roles.given(grants[0].issuer)
        if not role:
            raise NotAuthenticatedError(
                f"key {key_id_of(grants[0].issuer)} has no role in this mesh",
                "ask an admin for an invite with --role operator",
            )
        return role

    def fault_of(self, grants: Sequence[Grant]) -> str:
        """Say which part of a chain of grants was revoked; empty if none was."""
        return self.revocations.fault_of(grants, self.roles.is_admin)

    @property
    def forgotten(self) -> Mapping[NodeId, Head]:
        """The nodes whose rows are hidden, and up to which write; a live view."""
        return self._hidden.heads

    def take_reconsidered(self) -> set[NodeId]:
        """Return the nodes of which more, or less, is hidden since this was last asked."""
        return self._hidden.take_moved()

    def _before(self, entry: Entry, *, ours: bool) -> Place | None:
        """Return whose place an entry wants: of its slot, or the earliest if its issuer has many.

        Raises NoRoomError if it is `ours` and would push something out.
        """
        if stays(entry):
            return None
        if entry.slot and (before := self._slots.get((entry.issuer, entry.kind, entry.slot))):
            return before
        mine = self._places.get(entry.issuer, [])
        limit = ISSUED_BY_ADMIN_MAX if self.roles.is_admin(entry.issuer) else ISSUED_MAX
        if len(mine) < limit:
            return None
        if ours:
            raise NoRoomError(f"this key has issued {limit} control entries that still stand")
        return mine[0]

    def _keep(self, entry: Entry, place: Place, signed: Signed) -> None:
        entry_id = place[2]
        self._shares.add(entry)
        if not isinstance(entry.body, Role):
            self._kinds.setdefault(type(entry.body), {})[entry_id] = entry
        if not stays(entry):
            insort(self._places.setdefault(entry.issuer, []), place)
            if entry.slot:
                self._slots[entry.issuer, entry.kind, entry.slot] = place
        if entry.expires_s < NEVER_S:
            insort(self._expiring, (entry.expires_s, entry_id))
        self._entries[entry_id] = signed
        self._held[entry_id] = entry
        self.summary.add(entry_id)
        self._roots.clear()
        self._learn(entry_id, entry)

    def _learn(self, entry_id: bytes, entry: Entry) -> None:
        """Take what an entry says, and what follows from it for others."""
        match entry.body:
            case Role() as role:
                self._hidden.reconsider(self.roles.add(role))
                self._shares.reconsider(role.subject)
            case RootKeys() | Admits() as step:
                version = self.succession.version
                self._leave_out(self.succession.learn(entry.issuer, entry_id, step))
                if self.succession.version > version:
                    self.roles.renew()
                    self._hidden.reconsider_all()
                    self._shares.reconsider_all()
            case Revoke() if entry.issuer in self.succession.removed:
                pass
            case Revoke() as revoke:
                self._hidden.reconsider(self.roles.revoke(entry_id, entry.issuer, revoke))
            case Forget() as forget:
                self._hidden.add(entry_id, entry.issuer, forget)
            case _:
                pass

    def _leave_out(self, roots: set[bytes]) -> None:
        """Let what removed roots have revoked count no more."""
        for entry_id, entry in self._held.items() if roots else ():
            if isinstance(entry.body, Revoke) and entry.issuer in roots:
                self.revocations.drop(entry_id, entry.issuer, entry.body)

    def _drop(self, entry_id: bytes) -> None:
        """Leave nothing of an entry; it is none of those that stay for ever."""
        entry = self._held.pop(entry_id)
        del self._entries[entry_id], self._kinds[type(entry.body)][entry_id]
        self._shares.drop(entry)
        self.summary.remove(entry_id)
        self._roots.clear()
        mine = self._places[entry.issuer]
        del mine[bisect_left(mine, (entry.expires_s, entry.issued_s, entry_id))]
        if not mine:
            del self._places[entry.issuer]
        if entry.slot:
            del self._slots[entry.issuer, entry.kind, entry.slot]
        if entry.expires_s < NEVER_S:
            del self._expiring[bisect_left(self._expiring, (entry.expires_s, entry_id))]
        self._dropped.append(entry_id)
        if isinstance(entry.body, Revoke) and entry.issuer not in self.succession.removed:
            self.revocations.drop(entry_id, entry.issuer, entry.body)
        if isinstance(entry.body, Forget):
            self._hidden.drop(entry_id, entry.issuer, entry.body)
