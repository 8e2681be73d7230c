"""Invites of an admitter: the outstanding ones, and for a while those used up or expired.

Invariant: a use is taken in one atomic statement, so that of parallel joiners no more than `uses`
are admitted; the same device asking again with the same key takes no second use. Only what is
outstanding keeps a new one from being made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.app.ports import Device, OutstandingInvite
from meshnode.core.control.roles import INVITE
from meshnode.core.errors import ConflictError, NotFoundError, NotPermittedError
from meshnode.core.keys import Signed
from meshnode.core.packing import pack, unpack_map
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    import sqlite3

INVITES_MAX = 1000  # outstanding; one more: ConflictError
KEPT_MAX = 2 * INVITES_MAX  # in all; beyond, those used up go first, then those that expired


def add(
    connection: sqlite3.Connection, invite: OutstandingInvite, now_s: float, old_s: float
) -> None:
    """Keep an invite, and none that expired before `old_s`; raises ConflictError."""
    with transaction(connection):
        connection.execute("DELETE FROM invites WHERE expires_s < ?", (old_s,))
        count, ends_s = outstanding(connection, now_s)
        if count >= INVITES_MAX:
            raise ConflictError(
                f"{INVITES_MAX} invites are outstanding",
                f"the first of them expires in {ends_s + 1 - int(now_s)} s; or let another node"
                " admit: session-mesh nodes promote",
            )
        _make_room(connection, now_s)
        word = invite.authorization
        connection.execute(
            "INSERT INTO invites VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                invite.invite_id,
                invite.secret,
                word.payload,
                word.signature,
                invite.role,
                invite.uses_left,
                invite.expires_s,
                pack(invite.labels),
                invite.for_key,
            ),
        )


def _make_room(connection: sqlite3.Connection, now_s: float) -> None:
    """Drop what is beyond KEPT_MAX with one more, and the devices of what was dropped."""
    (count,) = connection.execute("SELECT count(*) FROM invites").fetchone()
    connection.execute(
        "DELETE FROM invites WHERE id IN (SELECT id FROM invites"
        " WHERE uses_left <= 0 OR expires_s < ? ORDER BY uses_left > 0, expires_s LIMIT ?)",
        (int(now_s), max(0, count + 1 - KEPT_MAX)),
    )
    connection.execute("DELETE FROM admitted WHERE invite_id NOT IN (SELECT id FROM invites)")


def get(connection: sqlite3.Connection, invite_id: bytes) -> OutstandingInvite:
    """Return an invite, used up or expired ones too; raises NotFoundError."""
    found = connection.execute(
        "SELECT CAST(id AS BLOB), CAST(secret AS BLOB), CAST(payload AS BLOB),"
        " CAST(signature AS BLOB), CAST(role AS BLOB), CAST(uses_left AS INTEGER),"
        " CAST(expires_s AS INTEGER), CAST(labels AS BLOB), CAST(for_key AS BLOB)"
        " FROM invites WHERE id = ?",
        (invite_id,),
    ).fetchone()
    if found is None:
        raise NotFoundError("this invite is not known here", "ask for a new one")
    identity, secret, payload, signature, role, uses_left, expires_s, labels, for_key = found
    return OutstandingInvite(
        identity,
        secret,
        Signed(INVITE, payload, signature),
        role.decode(errors="replace"),
        uses_left,
        expires_s,
        unpack_map(labels),
        for_key,
    )


def take_use(
    connection: sqlite3.Connection, invite_id: bytes, device: Device, now_s: float
) -> bool:
    """Take one use for a device, False if it has had one and asks again.

    Raises NotPermittedError when there is none, having taken none.
    """
    with transaction(connection):
        again = connection.execute(
            "SELECT operator_key FROM admitted WHERE invite_id = ? AND node_key = ?",
            (invite_id, device.node_key),
        ).fetchone()
        if again == (device.operator_key,):
            return False
        if again:
            raise NotPermittedError("this invite was used with another operator key")
        taken = connection.execute(
            "UPDATE invites SET uses_left = uses_left - 1"
            " WHERE id = ? AND uses_left > 0 AND expires_s >= ?",
            (invite_id, int(now_s)),
        )
        if taken.rowcount != 1:
            raise NotPermittedError("this invite is used up or has expired", "ask for a new one")
        connection.execute(
            "INSERT INTO admitted VALUES (?, ?, ?)",
            (invite_id, device.node_key, device.operator_key),
        )
    return True


def outstanding(connection: sqlite3.Connection, now_s: float) -> tuple[int, int]:
    """Count invites that still admit; with when the first of them expires, 0 if there is none."""
    count, ends_s = connection.execute(
        "SELECT count(*), CAST(min(expires_s) AS INTEGER) FROM invites"
        " WHERE uses_left > 0 AND expires_s >= ?",
        (int(now_s),),
    ).fetchone()
    return int(count), int(ends_s or 0)
