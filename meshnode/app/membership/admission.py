"""Admitting devices: an invite is made by an admin's word, and spent by whoever proves its secret.

Invariants: nothing is signed for a device before its application is verified, the proof compared
and a use of the invite taken, in that order. What had expired by the latest time that the clock has
shown stays expired; an invite that is made while the clock is behind that lasts as it says.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import ceil
from typing import TYPE_CHECKING

import msgspec

from meshnode.app.ports import Device, OutstandingInvite
from meshnode.app.settling import Settling
from meshnode.core.control.entries import Revoke, entry_from_signed, role_entry
from meshnode.core.control.roles import ACTIONS_OF_ROLE, Role, authorization_from_signed
from meshnode.core.control.shares import FullError
from meshnode.core.control.succession import Admits, RootKeys
from meshnode.core.errors import (
    MeshError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
    PeerError,
    RefusedError,
    UsageError,
)
from meshnode.core.floor import ClockFloor
from meshnode.core.ids import PREFIX_CHARS_MIN, node_id_of
from meshnode.core.keys import Signed
from meshnode.core.membership.certificates import issue_node_ca
from meshnode.core.membership.enrolment import (
    INVITE_ID_BYTES,
    SECRET_BYTES,
    admit_proof,
    application_from_signed,
    join_proof,
    same,
)
from meshnode.core.membership.members import check_labels
from meshnode.core.packing import pack, typed, unpack
from meshnode.core.tables.tables import ID_CHARS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from meshnode.app.ports import Clock, InviteBook
    from meshnode.core.control.control import ControlSet
    from meshnode.core.control.entries import Body
    from meshnode.core.ids import Chance, NodeId
    from meshnode.core.keys import Key
    from meshnode.core.membership.enrolment import Application
    from meshnode.core.membership.genesis import Genesis

INVITE_LIFE_S_MAX = 30 * 86400
KEPT_AFTER_EXPIRY_S = 7 * 86400.0  # so that an expired invite is told from an unknown one
USES_MAX = 10_000
# Of control entries in an answer, which gRPC wants below 4 MiB; a member is told the rest by the
# first neighbour that it reconciles with, as of all that is new.
CONTROL_BYTES_MAX = 3 << 20
ENTRY_FRAME_BYTES = 5  # around one of them at most, in an answer and in a file
DEVICE_CHARS_MAX = 48  # of a device's name, in what its user is called


class Admitted(msgspec.Struct, frozen=True):
    """What a new member receives, proof included. `control` holds packed signed entries."""

    genesis: bytes
    certificates: tuple[bytes, ...]
    control: tuple[bytes, ...]
    addresses: tuple[str, ...]
    at_s: float
    labels: dict[str, str]
    proof: bytes
    replaced: bytes = b""  # of the node whose place it takes: its name, labels and head, packed
    # Advice, which the proof does not cover:
    name_taken: bool = False  # by another member
    members: dict[NodeId, str] = msgspec.field(default_factory=dict)  # whom the joiner may wait for


class Admitter(msgspec.Struct, frozen=True):
    """The identity that admits; `certificate` returns None on nodes that may not."""

    key: Key
    genesis: Genesis
    control: ControlSet
    certificate: Callable[[], bytes | None]


class AdmissionDesk:
    """Makes invites and answers applications."""

    def __init__(
        self,
        admitter: Admitter,
        book: InviteBook,
        clock: Clock,
        chance: Chance,
        floor: ClockFloor | None = None,
    ) -> None:
        self._admitter = admitter
        self._book = book
        self._clock = clock
        self._chance = chance
        self._settling = Settling(clock)
        self.floor = floor or ClockFloor()
        self.addresses: Callable[[], tuple[str, ...]] = tuple
        self.find_replaceable: Callable[[str, NodeId], bytes] = _nobody
        self.is_taken: Callable[[str, NodeId], bool] = lambda _name, _joiner: False
        self.members: Callable[[NodeId], dict[NodeId, str]] = lambda _joiner: {}
        self.add_control: Callable[[Signed], object] = lambda entry: admitter.control.add(
            entry, clock.wall_s()
        )
        self.on_event: Callable[[str, bytes, str], None] = _nobody_told  # what, whose key, words

    async def invite(
        self,
        authorization: Signed,
        secret: bytes,
        labels: dict[str, str] | None = None,
        for_key: bytes = b"",
    ) -> None:
        """Keep an invite that an admin has signed; raises a MeshError if it is not in order."""
        me = self._admitter
        try:
            word = authorization_from_signed(authorization)
        except PeerError as error:
            raise NotAuthenticatedError(error.message) from error
        self._check_may_invite(word.signer)
        if word.mesh != me.genesis.mesh_id or word.admitter != node_id_of(me.key.public):
            raise UsageError("the invite names another mesh or another node")
        # One that ended on its way here is kept too: who follows it hears that it has expired.
        life_s = word.expires_s - min(word.issued_s, self._clock.wall_s())
        if not 0 < life_s <= INVITE_LIFE_S_MAX or not 0 < word.uses <= USES_MAX:
            raise UsageError(f"an invite lives at most 30 days and has 1 to {USES_MAX} uses")
        if word.role not in {"", *ACTIONS_OF_ROLE} or word.role == "admin":
            raise UsageError(f"an invite gives the role operator or observer, not {word.role!r}")
        if len(secret) != SECRET_BYTES or len(word.invite_id) != INVITE_ID_BYTES:
            raise UsageError("the secret or the id of the invite has the wrong length")
        check_labels(labels or {})  # or the device could join, and its node never start
        kept = OutstandingInvite(
            word.invite_id,
            secret,
            authorization,
            word.role,
            word.uses,
            word.expires_s + ceil(self._behind_s()),
            labels or {},
            for_key,
        )
        old_s = self._settling.old_s(KEPT_AFTER_EXPIRY_S)
        await self._book.add(kept, self._clock.wall_s() + self._behind_s(), old_s)
        said = f"{word.invite_id.hex()} for {word.uses}, role {word.role or 'none'}"
        self.on_event("invite_made", word.signer, said)

    def _check_may_invite(self, signer: bytes) -> None:
        """Raise NotPermittedError where this node or who asks may not; its hint has both needs."""
        me = self._admitter
        admits = me.certificate() is not None
        is_admin = me.control.role_of(signer) == "admin"
        if admits and is_admin:
            return
        node = (
            "" if admits else f"session-mesh nodes promote {node_id_of(me.key.public)[:ID_CHARS]}"
        )
        user = "" if is_admin else f"session-mesh operator add NAME {signer.hex()} --role admin"
        raise NotPermittedError(
            "only an admin may invite" if admits else "this node may not admit others",
            "run it where the mesh was made; or have run there, with the root: "
            + " and ".join(filter(None, (node, user))),
        )

    async def join(self, signed: Signed, invite_id: bytes, proof: bytes) -> Admitted:
        """Admit a device; raises a MeshError, having signed and spent nothing."""
        try:
            return await self._join(signed, invite_id, proof)
        except MeshError as error:
            self.on_event("join_refused", b"", error.message)
            raise

    async def _join(self, signed: Signed, invite_id: bytes, proof: bytes) -> Admitted:
        application = application_from_signed(signed)
        me = self._admitter
        certificate = me.certificate()
        if certificate is None or application.mesh_id != me.genesis.mesh_id:
            raise NotFoundError("this node does not admit into that mesh", "ask for a new invite")
        invite = await self._book.get(invite_id)
        self_id = node_id_of(me.key.public)
        if not same(proof, join_proof(invite.secret, self_id, signed.payload)):
            raise NotAuthenticatedError("the invite's secret is wrong", "ask for a new invite")
        now_s = float(int(self._clock.wall_s()))  # whole seconds survive every encoding
        self._check_word(invite, now_s)
        self._check_device(invite, application.node_key)
        device_id = node_id_of(application.node_key)
        old = application.replaces
        replaced = self.find_replaceable(old, device_id) if old else b""
        role = self._role(invite, application, now_s)
        if role is not None:
            self._check_room(role)
        device = Device(application.node_key, application.operator_key or b"")
        is_new = await self._book.take_use(invite_id, device, now_s + self._behind_s())
        given = []
        if role is not None:
            given.append(self._role_given(role))
        entries = needed_first(given, me.control.entries(), me.genesis.mesh_id)
        said = f"{node_id_of(application.node_key)} by invite {invite_id.hex()}"
        if is_new:  # a device that asks again fills no log, and no control set
            self.on_event("member_admitted", application.operator_key or b"", said)
        certificates = (
            issue_node_ca(me.key, device_id, now_s, self._chance),
            certificate,
        )
        genesis, addresses = me.genesis.to_bytes(), self.addresses()
        response = [genesis, list(certificates), entries, list(addresses), now_s, invite.labels]
        response += [replaced] if replaced else []
        mark = admit_proof(invite.secret, signed.payload, response)
        return Admitted(
            genesis,
            certificates,
            tuple(entries),
            addresses,
            now_s,
            invite.labels,
            mark,
            replaced,
            self.is_taken(application.name, device_id),
            self.members(device_id),
        )

    def _behind_s(self) -> float:
        return self.floor.behind_s(self._clock.wall_s())

    def _check_word(self, invite: OutstandingInvite, now_s: float) -> None:
        """Raise NotPermittedError for an invite that expired, or whose maker or node was revoked.

        It ends when its word says by the clock, and as it was kept by the latest time shown.
        """
        me = self._admitter
        word = authorization_from_signed(invite.authorization)
        if now_s > word.expires_s:
            raise NotPermittedError("this invite has expired", "ask for a new one")
        shown_s = now_s + self._behind_s()
        if shown_s > invite.expires_s:
            at = datetime.fromtimestamp(shown_s, UTC).isoformat(timespec="seconds")
            raise NotPermittedError(
                f"this invite has expired: the admitter's clock has shown {at} before",
                "ask for a new one",
            )
        if me.control.revocations.has_node(me.key.public, admits=True):
            raise NotPermittedError("this node was revoked", "ask another admitter for an invite")
        if me.control.role_of(word.signer) != "admin":
            raise NotPermittedError("who made this invite was revoked", "ask for a new one")

    def _check_device(self, invite: OutstandingInvite, node_key: bytes) -> None:
        """Raise NotPermittedError if an invite is not for a device, or that was revoked."""
        if invite.for_key not in {b"", node_key}:
            raise NotPermittedError(
                "this invite is for another device", "ask for one with --for-key of this one"
            )
        if self._admitter.control.revocations.has_node(node_key, admits=False):
            raise NotPermittedError(
                "this device's key was revoked, for good", "join with a new home: --home DIR"
            )

    def _check_room(self, role: Role) -> None:
        """Raise RefusedError if the role could not be given, before a use is spent on it."""
        if self._role_held(role) is not None:
            return
        try:
            self._admitter.control.check_room(role)
        except FullError as error:
            raise RefusedError(
                f"this admitter can give no more roles: {error.message}",
                "let another node admit (session-mesh nodes promote), with an admin there"
                " (session-mesh operator add NAME KEY --role admin); or invite with --node-only",
            ) from error

    def _role_given(self, role: Role) -> Signed:
        """Give the role of an invite; once, however often a device asks."""
        me = self._admitter
        entry = self._role_held(role)
        if entry is None:
            entry = role_entry(me.key, me.genesis.mesh_id, role, self._chance)
            self.add_control(entry)
        return entry

    def _role(
        self, invite: OutstandingInvite, application: Application, now_s: float
    ) -> Role | None:
        """Return what an invite gives a joiner's user, called after its device; None: nothing.

        The id is in the name, since the device chose the rest: it cannot pass for somebody else.
        """
        if application.operator_key is None or not invite.role:
            return None
        issuer, via = self._admitter.key.public, invite.authorization
        device = node_id_of(application.node_key)[:PREFIX_CHARS_MIN]
        name = f"{application.name[:DEVICE_CHARS_MAX]}/{device}"
        return Role(application.operator_key, invite.role, name, issuer, int(now_s), via)

    def _role_held(self, wanted: Role) -> Signed | None:
        """Return the role that a key was given by an invite here, if it was."""
        me = self._admitter
        for role in me.control.roles.of(wanted.subject):
            if (role.issuer, role.via) == (wanted.issuer, wanted.via):
                return me.control.entry_of(role)
        return None


def _nobody(_word: str, _joiner: NodeId) -> bytes:
    raise NotFoundError("this node knows no node to replace")


def _nobody_told(what: str, key: bytes, words: str) -> None:
    del what, key, words


def needed_first(
    given: Sequence[Signed], held: Iterable[Signed], mesh_id: str, room: int = CONTROL_BYTES_MAX
) -> list[bytes]:
    """Return packed entries of `room` bytes at most: those given, then what matters most."""
    own = list(map(packed_signed, given))
    others = {one: entry for entry in held if (one := packed_signed(entry)) not in own}
    if sum(_held_in(one) for one in [*others, *own]) <= room:
        return [*others, *own]

    chosen = []
    ranked = sorted(others, key=lambda one: _rank(entry_from_signed(others[one], mesh_id).body))
    for one in [*own, *ranked]:
        if (room := room - _held_in(one)) < 0:
            break
        chosen.append(one)
    return chosen


def _held_in(packed: bytes) -> int:
    return len(packed) + ENTRY_FRAME_BYTES


def _rank(body: Body | None) -> int:
    """Return how early a member needs an entry: whom to trust, whom no more, then the rest."""
    match body:
        case RootKeys() | Admits():
            return 0
        case Role(role="admin"):  # who gives others theirs
            return 1
        case Revoke():
            return 2
        case Role():
            return 3
        case _:
            return 4


def packed_signed(signed: Signed) -> bytes:
    """Encode a signed value with its type."""
    return pack([signed.type, signed.payload, signed.signature])


def unpacked_signed(packed: bytes) -> Signed:
    """Decode a signed value with its type, not verified; raises PeerError."""
    try:
        kind, payload, signature = unpack(typed(packed, bytes))
        return Signed(typed(kind, str), typed(payload, bytes), typed(signature, bytes))
    except (TypeError, ValueError) as error:
        raise PeerError("no signed value") from error
