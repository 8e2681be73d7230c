"""Bringing devices into a mesh: making an invite, and following one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from meshnode.app.membership.admission import INVITE_LIFE_S_MAX, packed_signed, unpacked_signed
from meshnode.client import clock
from meshnode.client.connection.retrying import tried
from meshnode.client.home import Home, make_private, read_plain
from meshnode.client.keys.authority import InviteTerms, authorize_invite
from meshnode.client.keys.publickeys import public_key_from
from meshnode.core.control.control import ControlSet
from meshnode.core.errors import (
    ConflictError,
    DamagedError,
    ExhaustedError,
    MeshError,
    NotPermittedError,
    PeerError,
    UnreachableError,
)
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key
from meshnode.core.ledger.ledger import LEDGER
from meshnode.core.ledger.ledger_rows import replaced_in
from meshnode.core.membership.certificates import expires_at_s, from_pem
from meshnode.core.membership.enrolment import (
    ADDRESSES_MAX,
    INVITE_ID_BYTES,
    SECRET_BYTES,
    Invite,
    apply_with,
    invite_from_text,
)
from meshnode.core.membership.genesis import Genesis, genesis_from_bytes
from meshnode.discovery.seeds import check_seed, is_address, parse_address
from meshnode.node.clock import SystemClock, chance
from meshnode.node.configuration.told import LABELS_FACT, RETURNED_FACT
from meshnode.node.homes.entering import Entry, enter, finish
from meshnode.node.homes.founding import NAME_FACT, device_key, operator_key, read_genesis
from meshnode.node.homes.introducing import SEEDS_FACT, checked, fact_of
from meshnode.node.homes.membership import membership_in
from meshnode.node.homes.replacing import Replaced, replaced_from, retire_node
from meshnode.node.homes.restoring import leaving_in
from meshnode.node.homes.roots import known_roots, root_behind
from meshnode.node.lock import HomeLock
from meshnode.node.names import checked_name, default_node_name
from meshnode.node.presence.addresses import joined
from meshnode.node.presence.own_record import fitting
from meshnode.rpc.enrolment import CrowdedError, ask_to_join
from meshnode.store import elsewhere, facts, feeds
from meshnode.store.database import Database
from meshnode.wire.times import time_from_wire, time_to_wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshnode.client.mesh import MeshClient
    from meshnode.core.ids import NodeId
    from meshnode.core.keys import Signed
    from meshnode.v1 import enrolment_service_pb2

CLOCK_TOLERATED_S = 120.0
OWN_ROLES_MAX = 16  # of one user, that are sure to be kept from the beginning
PAUSES_S = (0.5, 1, 2, 4, 4, 4, 4)  # while more join at once than are let in
CROWDED_MAX = 3  # of them for a node that only closes connections: it may be no node at all
WHERE = "session-mesh id prints it on that device"


class Inviting(msgspec.Struct, frozen=True):
    """What an invite shall say; an empty `role` admits nodes that obey and never command."""

    ttl_s: int
    uses: int = 1
    role: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    for_key: str | None = None


def invite(home: Home, client: MeshClient, wish: Inviting) -> dict[str, Any]:
    """Make an invite on a running node."""
    genesis = read_genesis(home)
    node = Key(device_key(home).seed)
    secret, invite_id = chance(SECRET_BYTES), chance(INVITE_ID_BYTES)
    terms = InviteTerms(invite_id, node_id_of(node.public), wish.role, wish.uses, wish.ttl_s)
    now_s = SystemClock().wall_s()
    word = authorize_invite(home, terms, now_s)
    device = b"" if wish.for_key is None else public_key_from(wish.for_key, "a device", WHERE)
    addresses = client.invite(word, secret, wish.labels, device)
    made = Invite(
        root_key=_root_behind(home, genesis),
        mesh_id=genesis.mesh_id,
        admitter=node_id_of(node.public),
        invite_id=invite_id,
        secret=secret,
        expires_s=int(now_s) + wish.ttl_s,
        addresses=tuple(addresses[:ADDRESSES_MAX]),
        commands=bool(wish.role),
    )
    return {
        "invite": made.to_text(),
        "expires_at": time_to_wire(made.expires_s),
        "addresses": list(made.addresses),
        "uses_left": wish.uses,
        "role": wish.role or None,
        "command": "session-mesh join -",
    }


def join(
    home: Home,
    text: str,
    *,
    node_name: str | None = None,
    seeds: Sequence[str] = (),
    replaces: str = "",
    pause: Callable[[float], None] = clock.pause,
) -> dict[str, Any]:
    """Follow an invite; raises a MeshError, having left the home as it was, or as `enter` says.

    `replaces`: the name or id of a node that this one takes the place of, labels and name included.
    `pause` is called with seconds while more devices join at once than are let in.
    """
    invitation = invite_from_text(text)
    if replaces and not invitation.commands:
        raise NotPermittedError(
            "this invite gives no role, and whoever replaces a node must forget the old one",
            "ask for one without --node-only; or join, and ask for: session-mesh nodes forget",
        )
    for seed in seeds:
        check_seed(seed)
    make_private(home.path)
    with HomeLock(home, "join"):
        return _join_locked(home, _with_seeds(invitation, seeds), node_name, replaces, pause)


def _join_locked(
    home: Home,
    invitation: Invite,
    node_name: str | None,
    replaces: str,
    pause: Callable[[float], None],
) -> dict[str, Any]:
    database = Database(home.database)
    try:
        finish(home, database)
        if home.initialised:
            _check_replaceable(home, invitation, database)
        name = applied = checked_name(node_name or _known_name(database) or default_node_name())
        node = device_key(home)
        operator = operator_key(home) if invitation.commands else None
        _check_expiry(invitation)
        application = apply_with(node, operator, invitation, name, chance(16), replaces)
        answering, response, off_s = _let_in(invitation, application, pause)
        genesis = _checked_genesis(invitation, response)
        control = _control(invitation, genesis, response)
        old = replaced_from(response.replaced, genesis.mesh_id) if replaces else None
        labels = _known_labels(database) | dict(response.labels)
        warnings = []
        if old is not None and operator is not None:
            name = checked_name(node_name or old.name)
            labels = old.labels | labels
            warnings = retire_node(control, operator, genesis.mesh_id, old)
        labels, said = fitting(labels)
        warnings += [said] if said else []
        hints = {invitation.admitter: _members_at(answering, response.addresses)}
        left = leaving_in(database.run_now(feeds.load_own, node_id_of(node.public)))
        values = {
            RETURNED_FACT: left,
            NAME_FACT: name.encode(),
            SEEDS_FACT: json.dumps(hints).encode(),
            LABELS_FACT: json.dumps(labels).encode(),
            **_replacing(database, genesis.mesh_id, node_id_of(node.public), old),
            **fact_of({invitation.admitter: ""} | checked(response.members)),
        }
        certificates = tuple(response.certificates)
        own = _own_entries(control, response.control, operator)
        entry = Entry(genesis, certificates, control, own, values, invitation.commands)
        enter(home, database, entry)
    finally:
        database.close()
    return {
        "mesh_id": genesis.mesh_id,
        "mesh_name": genesis.name,
        "node_id": node_id_of(node.public),
        "name": name,
        "role": control.role_of(operator.public) or None if operator else None,
        "admitter": invitation.admitter,
        "certificate_expires_at": time_to_wire(expires_at_s(response.certificates[0])),
        "clock_off_s": round(off_s, 3),
        "replaces": old.node if old else None,
        "warnings": [
            *warnings,
            *_name_warnings(name, taken=response.name_taken and name == applied and not old),
            *_clock_warnings(off_s),
        ],
    }


def _replacing(
    database: Database, mesh_id: str, self_id: NodeId, old: Replaced | None
) -> dict[str, bytes]:
    """Return the fact whose place this node takes: what an earlier join said is kept.

    Unless the home had left and says nothing of it: its user joins anew, to count all that is here.
    """
    if old is not None:
        return elsewhere.replacing(mesh_id, old.node, old.header.head)
    own = database.run_now(feeds.load_own, self_id)
    if leaving_in(own) and not replaced_in(own.tables.get(LEDGER, ())):
        return elsewhere.replacing_nobody()
    return database.run_now(elsewhere.kept, mesh_id)


def _let_in(
    invitation: Invite, application: Signed, pause: Callable[[float], None]
) -> tuple[str, enrolment_service_pb2.JoinResponse, float]:
    """Return who answered, what, and by how much our clock is ahead of theirs at least."""
    spread = 1 + chance(1)[0] / 255  # others of a fleet come back at other times

    hopes = iter(range(CROWDED_MAX))

    def is_passing(error: MeshError) -> bool:
        return isinstance(error, ExhaustedError) or (
            isinstance(error, CrowdedError) and next(hopes, None) is not None
        )

    def ask() -> tuple[str, enrolment_service_pb2.JoinResponse, float]:
        asked_s = SystemClock().wall_s()
        try:
            address, response = ask_to_join(invitation, application)
        except UnreachableError as error:
            if asked_s >= invitation.expires_s - INVITE_LIFE_S_MAX:
                raise
            hint = f"set this machine's clock (it says {time_to_wire(asked_s)}): nobody had made"
            raise UnreachableError(
                error.message, f"{hint} this invite then, and certificates are not valid yet"
            ) from error
        at_s = time_from_wire(response.at)
        return address, response, clock_off_s(at_s, asked_s, SystemClock().wall_s())

    return tried(ask, is_passing, [pause_s * spread for pause_s in PAUSES_S], pause)


def clock_off_s(at_s: float, asked_s: float, answered_s: float) -> float:
    """Return by how much our clock is ahead at least, or behind; 0.0 where it may be right.

    `at_s` is some moment between question and answer by the other clock, in whole seconds of it.
    """
    least, most = asked_s - (at_s + 1), answered_s - at_s
    return max(least, 0.0) or min(most, 0.0)


def _members_at(answering: str, said: Sequence[str]) -> list[str]:
    """Return where the admitter listens for members: on the host that answered us, and as it says.

    That host may be all that leads to it from here: a name, a tunnel, an address of a router.
    """
    host, _ = parse_address(answering)
    ports = [parse_address(address)[1] for address in said if is_address(address)]
    return list(dict.fromkeys([*(joined(host, port) for port in ports[:1]), *said]))


def _name_warnings(name: str, *, taken: bool) -> list[str]:
    if not taken:
        return []
    return [
        f"another node of this mesh is called {name} too; to call this one otherwise:"
        " session-mesh up --detach --name NODE (where it runs, session-mesh down comes first)"
    ]


def _clock_warnings(off_s: float) -> list[str]:
    if abs(off_s) <= CLOCK_TOLERATED_S:
        return []
    side = "ahead of" if off_s > 0 else "behind"
    return [
        f"this machine's clock is {abs(round(off_s))} s {side} the inviting node's: "
        "commands from here will be refused until it is set"
    ]


def _check_replaceable(home: Home, invitation: Invite, database: Database) -> None:
    present = read_genesis(home)
    self_id = node_id_of(device_key(home).public)
    if leaving_in(database.run_now(feeds.load_own, self_id)):
        return
    if present.mesh_id == invitation.mesh_id:
        if invitation.commands or not _is_valid(home, present, self_id):
            return  # a member already, and now its user gets a role, or it is one again
        raise ConflictError("this home is already a member of that mesh", "session-mesh up")
    if len(database.run_now(feeds.load).feeds) > 1:
        raise ConflictError(
            f"this home belongs to the mesh {present.name}, which has other members",
            "session-mesh leave first, or join with another --home",
        )


def _is_valid(home: Home, genesis: Genesis, self_id: NodeId) -> bool:
    """Whether a home's certificates make it a member now."""
    try:
        chain = from_pem(read_plain(home.certificates))
        facts = membership_in(chain, genesis, self_id, known_roots(home, genesis))
    except (OSError, DamagedError, PeerError):
        return False
    return facts.chains_to_root and SystemClock().wall_s() < facts.valid_until_s


def _known_labels(database: Database) -> dict[str, str]:
    return facts.map_of(database.run_now(facts.recall, LABELS_FACT), LABELS_FACT, str)


def _known_name(database: Database) -> str | None:
    name = database.run_now(facts.recall, NAME_FACT)
    return name.decode(errors="replace") if name else None


def _check_expiry(invitation: Invite) -> None:
    now_s = SystemClock().wall_s()
    if now_s > invitation.expires_s + CLOCK_TOLERATED_S:
        raise NotPermittedError(
            f"this invite expired at {time_to_wire(invitation.expires_s)}",
            f"ask for a new one; if that is not so, this machine's clock is off "
            f"(it says {time_to_wire(now_s)})",
        )


def _with_seeds(invitation: Invite, seeds: Sequence[str]) -> Invite:
    return replace(invitation, addresses=(*seeds, *invitation.addresses))


def _checked_genesis(invitation: Invite, response: enrolment_service_pb2.JoinResponse) -> Genesis:
    genesis = genesis_from_bytes(response.genesis)
    if genesis.mesh_id != invitation.mesh_id:
        raise PeerError("the inviting node answered for another mesh")
    return genesis


def _control(
    invitation: Invite, genesis: Genesis, response: enrolment_service_pb2.JoinResponse
) -> ControlSet:
    control = ControlSet(genesis)
    entries = (unpacked_signed(packed) for packed in response.control)
    control.add_all(entries, SystemClock().wall_s())
    if invitation.root_key not in control.succession.present:
        raise NotPermittedError(
            "the root key that this invite names is no root of the mesh any more",
            "ask for a new invite",
        )
    return control


def _own_entries(control: ControlSet, told: Sequence[bytes], operator: Key | None) -> list[Signed]:
    """Return the entries that make the joiner's user who it is, and those that were made here."""
    known = set(told)
    made = [entry for entry in control.entries() if packed_signed(entry) not in known]
    roles = control.roles.of(operator.public) if operator else ()
    given = (control.entry_of(role) for role in roles[:OWN_ROLES_MAX])
    return [*made, *(entry for entry in given if entry is not None)]


def _root_behind(home: Home, genesis: Genesis) -> bytes:
    """Return the root that joiners shall trust: what this node shows them leads to it."""
    chain, roots = from_pem(read_plain(home.certificates)), known_roots(home, genesis)
    return root_behind(chain, node_id_of(device_key(home).public), roots) or roots[0]
