"""Outstanding invites of an admitter.

Invariant: a use is taken in one atomic statement, so that of parallel joiners no more than `uses`
are admitted; the same device asking again with the same key takes no second use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.app.ports import Device, OutstandingInvite
from meshnode.core.errors import ConflictError, NotFoundError, NotPermittedError
from meshnode.core.keys import Signed
from meshnode.core.packing import pack, unpack_map
from meshnode.core.roles import INVITE
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    import sqlite3

INVITES_MAX = 1000  # more outstanding: ConflictError
KEPT_AFTER_EXPIRY_S = 7 * 86400  # so that an expired invite is told from an unknown one


def add(connection: sqlite3.Connection, invite: OutstandingInvite, now_s: float) -> None:
    """Keep an invite."""
    with transaction(connection):
        oldest_s = int(now_s) - KEPT_AFTER_EXPIRY_S
        connection.execute("DELETE FROM invites WHERE expires_s < ?", (oldest_s,))
        connection.execute("DELETE FROM admitted WHERE invite_id NOT IN (SELECT id FROM invites)")
        (count,) = connection.execute("SELECT count(*) FROM invites").fetchone()
        if count >= INVITES_MAX:
            raise ConflictError(f"{INVITES_MAX} invites are kept already", "wait till some expire")
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


def outstanding(connection: sqlite3.Connection, now_s: float) -> int:
    """Count invites that still admit."""
    (count,) = connection.execute(
        "SELECT count(*) FROM invites WHERE uses_left > 0 AND expires_s >= ?", (int(now_s),)
    ).fetchone()
    return int(count)
