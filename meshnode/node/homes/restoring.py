"""Taking up what the disk holds: our own feed and everybody's replicas.

Invariant: rows that are not the ones their owner signed are never taken up, and never sent on:
peers return them. Our own feed, once damaged, is a history that our disk has lost: those of its
rows that are what we wrote are written anew in an epoch above it, and peers return the rest. Of
a mesh that this home has left, nothing stays on the disk but what it carries into the next one;
that is signed anew, in the transaction that deletes the rest. Of a feed of ours that no peer takes,
since it is too large, what has room is signed anew before anybody hears of it.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from meshnode.app.audit.alarms import Alarm
from meshnode.core.control.entries import entry_from_signed, entry_id_of
from meshnode.core.errors import MeshError, PeerError, StorageError
from meshnode.core.feeds.forks import proof_of
from meshnode.core.feeds.headers import header_from_signed
from meshnode.core.feeds.rows import all_rows
from meshnode.core.ledger.ledger import LEDGER
from meshnode.core.ledger.ledger_rows import replaced_in
from meshnode.core.membership.members import NODE, ONLY_ROW, node_from_row
from meshnode.core.sessions.sessions import SESSIONS
from meshnode.node.audit.alarming import alarm_of, feed_alarm_id
from meshnode.node.loading import no_collection
from meshnode.store import facts, feeds, forks, rollups
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from sqlite3 import Connection

    from meshnode.app.audit.alarms import Alarms
    from meshnode.app.mesh.mesh import Mesh
    from meshnode.core.feeds.feed import Change
    from meshnode.core.feeds.headers import Header
    from meshnode.core.feeds.rows import Place, Row, Rows
    from meshnode.core.keys import Signed
    from meshnode.node.world import NodeWorld
    from meshnode.store.database import Database
    from meshnode.store.feeds import Held

CARRIED = frozenset({LEDGER, SESSIONS})  # what a home keeps when it joins another mesh
OWN_FEED = "own_feed"
CONTROL_SET = "control_set"
_log = logging.getLogger("session_mesh.store")
_LOOK = "look at this machine's disk: smartctl -H, dmesg"


class Damage(msgspec.Struct, frozen=True):
    """What the disk holds that nobody has written like that, and what of our own is intact."""

    held: Held
    others: tuple[str, ...] = ()  # origins, as far as they are readable
    own: dict[Place, Row] | None = None  # what is intact of our feed, if our feed is damaged
    entries: int = 0  # of the control set
    unwanted: tuple[bytes, ...] = ()  # entries expired, replaced, or of another mesh
    moved: Header | None = None  # of our feed, if it is sound and signed anew nevertheless

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.others or self.entries) or self.own is not None

    @property
    def summary(self) -> str:
        """Say in words what is damaged."""
        parts = [f"feeds of others: {len(self.others)}"] if self.others else []
        parts += ["this node's own feed"] if self.own is not None else []
        parts += [f"control entries: {self.entries}"] if self.entries else []
        return "damaged on the disk are " + ", ".join(parts)

    def alarms(self) -> list[Alarm]:
        """Return what a running node has to say about it, until it is made good."""
        alarms = [
            Alarm(
                feed_alarm_id(origin),
                f"the rows of {origin[:12]!a} on this disk were not as signed, and are left out",
                f"peers return them by themselves; {_LOOK}",
            )
            for origin in self.others
        ]
        if self.own is not None:
            said = f"this node's own rows on the disk were damaged: {len(self.own)} are intact"
            fix = f"nothing more to do for the rows: peers return the others; {_LOOK}"
            alarms.append(Alarm(OWN_FEED, said, fix))
        if self.entries:
            said = f"{self.entries} entries of the control set were damaged on the disk"
            alarms.append(Alarm(CONTROL_SET, said, f"peers return them by themselves; {_LOOK}"))
        return alarms


def restore(mesh: Mesh, database: Database, wall_s: float) -> Damage:
    """Fill a mesh from the disk; rows signed for an earlier mesh of this home are signed anew.

    The disk is not changed: see `repair`.
    """
    with no_collection():
        held = database.run_now(feeds.load)
    refused = mesh.control.add_all(held.control, wall_s)
    mesh.control.wait(refused)
    moved = None
    for header, rows in held.feeds:
        if header.mesh == mesh.genesis.mesh_id:
            mesh.replication.restore(header, rows)
            if header.origin == mesh.self_id and mesh.own.left_out:
                moved = header
        elif header.origin == mesh.self_id:
            moved = header
            _write_anew(mesh, _carried(all_rows(rows)))
    for one, other in database.run_now(forks.load):
        with suppress(PeerError):  # of an earlier mesh, or damaged: peers return it
            headers = [header_from_signed(signed, mesh.genesis.mesh_id) for signed in (one, other)]
            mesh.replication.restore_fork(proof_of(tuple(headers)))
    own = _damaged_own(held, mesh, database)
    if own is not None:
        _leave_history(mesh, held, own)
    others = (damaged.origin for damaged in held.damaged if damaged.origin != mesh.self_id)
    waiting = {entry_id_of(one) for one in refused if _may_stand(one, mesh, wall_s)}
    entry_ids = (one for one in map(entry_id_of, held.control) if one not in waiting)
    unwanted = [one for one in entry_ids if mesh.control.get(one) is None]
    return Damage(held, tuple(others), own, held.damaged_entries, tuple(unwanted), moved)


def _may_stand(entry: Signed, mesh: Mesh, wall_s: float) -> bool:
    """Whether an entry that was refused may be taken later: what it hangs on is not here now."""
    try:
        return entry_from_signed(entry, mesh.genesis.mesh_id).expires_s > wall_s
    except PeerError:
        return False


def take_up(
    world: NodeWorld,
    database: Database,
    alarms: Alarms,
    began_with: Iterable[Signed],
    wall_s: float,
) -> tuple[bytes, ...]:
    """Fill the mesh of a node that starts, make good what is damaged, and say what is wrong.

    Returns the ids of control entries that the disk need not keep. Raises StorageError if what is
    signed anew cannot be written; the disk is as it was.
    `began_with`: the control entries that the home started with, for what nobody can return.
    """
    mesh = world.mesh
    damage = restore(mesh, database, wall_s)
    for proof in mesh.replication.forks:
        origin = proof[0].origin
        alarm = alarm_of("feed_quarantined", origin, "its epoch has two histories")
        if alarm is not None and not mesh.tables.is_forgotten(origin):
            alarms.sound(alarm)
    if damage:
        try:
            repair(mesh, database, damage)
        except StorageError as error:
            _log.warning("what is damaged stays on the disk: %s", error.message)
    move(mesh, database, damage, wall_s)
    for alarm in damage.alarms():
        alarms.sound(alarm)
    for entry in began_with if damage.entries else ():
        with suppress(PeerError):
            world.add_control(entry)
    return damage.unwanted


def repair(mesh: Mesh, database: Database, damage: Damage) -> None:
    """Drop from the disk what is damaged, so that what is returned takes its place."""
    own = None if damage.own is None else (mesh.self_id, damage.own)
    database.run_now(feeds.rewrite, damage.held, own)


def move(mesh: Mesh, database: Database, damage: Damage, wall_s: float) -> None:
    """Sign what this home carries into the mesh, and drop what is of others; raises StorageError.

    The same for what has room of a feed of ours that was too large. All of it is one transaction: a
    crash finds the one feed whole, or the other.
    """
    mesh_id = mesh.genesis.mesh_id
    left = [header.origin for header, _ in damage.held.feeds if header.mesh != mesh_id]
    if not left and damage.moved is None:
        return
    changes: list[Change] = []
    if damage.moved is not None:
        while (change := mesh.own.flush(wall_s)) is not None:
            changes.append(change)
    database.run_now(_moved, left, changes, damage.moved)
    for change in changes:
        if change.flush is not None:
            mesh.replication.remember(change.flush)


def _moved(
    connection: Connection, left: Iterable[str], changes: Sequence[Change], moved: Header | None
) -> None:
    with transaction(connection):
        feeds.drop(connection, left)
        feeds.save(connection, changes, [])
        held = facts.recall(connection, rollups.HELD)
        if moved is not None and changes and held == rollups.held_at(moved.mesh, moved.epoch):
            now = changes[-1].header  # it says what the one before said
            facts.remember(connection, {rollups.HELD: rollups.held_at(now.mesh, now.epoch)})


def leaving_in(own: Rows) -> bytes:
    """Name the row by which the node of a home has withdrawn from its mesh; empty if it has not.

    Each leaving has another name: what a home has joined after one does not outlive the next.
    """
    row = own.get(NODE, ONLY_ROW)
    try:
        if row is not None and node_from_row(row.value).standing == "left":
            return f"{row.epoch}:{row.seq}".encode()
    except PeerError:
        pass  # of a version that we cannot read
    return b""


def _damaged_own(held: Held, mesh: Mesh, database: Database) -> dict[Place, Row] | None:
    """Return what is intact of our feed; None if all of it is, or there is none.

    Of a feed that is known to be of another mesh, it is what is carried into this one.
    """
    self_id = mesh.self_id
    if any(header.origin == self_id for header, _ in held.feeds):
        return None
    damaged = [one for one in held.damaged if one.origin == self_id]
    if not damaged and not database.run_now(feeds.has_rows, self_id):
        return None
    rows = database.run_now(feeds.salvaged, self_id)
    headers = [one.header for one in damaged if one.header is not None]
    is_of_another = any(header.mesh != mesh.genesis.mesh_id for header in headers)
    return _carried(rows) if is_of_another else rows


def _leave_history(mesh: Mesh, held: Held, own: dict[Place, Row]) -> None:
    headers = (damaged.header for damaged in held.damaged if damaged.origin == mesh.self_id)
    said = [header.epoch for header in headers if header is not None]
    mesh.own.epoch = max([*said, *(row.epoch for row in own.values())], default=0) + 1
    # Sessions first: they are looked for as soon as the first flush is out.
    _write_anew(mesh, dict(sorted(own.items(), key=lambda item: item[0][0] != SESSIONS)))


def _carried(rows: Mapping[Place, Row | None]) -> dict[Place, Row]:
    """Return what goes into another mesh, sessions first, as they are looked for."""
    carried = {place: row for place, row in rows.items() if row and place[0] in CARRIED}
    for place in [(LEDGER, key) for _, key in carried if replaced_in([key])]:
        carried.pop(place, None)  # of nodes of the mesh that is left
    return dict(sorted(carried.items(), key=lambda item: item[0][0] != SESSIONS))


def _write_anew(mesh: Mesh, rows: dict[Place, Row]) -> None:
    for (table, key), row in rows.items():
        try:
            mesh.own.write(table, key, row.value)
        except MeshError:
            continue  # what the mesh does not allow, it has never held
