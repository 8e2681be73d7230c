"""Receipts, checked by whoever has one: no node needs to run, and none is believed.

Invariant: what is returned was signed by the node that it names; whether that node is one of a
mesh that the reader knows is said beside it, and never taken from the receipt.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode
from typing import TYPE_CHECKING, Any

from meshnode.client.durations import rfc3339
from meshnode.core.commands.commands import (
    COMMAND,
    RECEIPT,
    Command,
    Receipt,
    command_from_signed,
    receipt_from_signed,
)
from meshnode.core.errors import PeerError, UsageError
from meshnode.core.ids import b32, node_key_of
from meshnode.core.keys import Signed
from meshnode.core.packing import typed, unpack, unpack_map

if TYPE_CHECKING:
    Plain = dict[str, Any]

TEXT_BYTES_MAX = 256 << 10  # of a receipt or a command; a command has 64 KiB, a receipt less
HINT = "a receipt is the text that steer and kill print with -o json, or that whole answer"


def receipt_in(text: bytes) -> Receipt:
    """Decode and verify a receipt: base64, or a JSON object that holds it as `receipt`.

    Raises UsageError for what is no receipt, PeerError for one that is not genuine.
    """
    signed = _signed_in(_receipt_of(text), RECEIPT)
    try:
        node_key = node_key_of(typed(unpack_map(signed.payload)["node"], str))
    except (PeerError, KeyError, TypeError) as error:
        raise UsageError("not a receipt: it names no node", HINT) from error
    try:
        return receipt_from_signed(signed, node_key)
    except PeerError as error:
        raise PeerError(f"the receipt is not genuine: {error.message}") from error


def check_answers(receipt: Receipt, text: bytes) -> None:
    """Check that a receipt answers this command: as an outbox keeps it, or in base64.

    Raises UsageError for what is no command, PeerError if the receipt is about something else.
    """
    signed = _signed_in(text, COMMAND)
    try:
        sent = command_from_signed(signed)
    except PeerError as error:
        raise UsageError(f"not a command: {error.message}") from error
    try:
        check_is_about(receipt, sent, signed.hash)
    except PeerError as error:
        raise PeerError(f"the receipt is genuine, but {error.message}") from error


def check_is_about(said: Receipt, sent: Command, command_hash: bytes) -> None:
    """Raise PeerError unless a receipt is the word of the command's owner about this command."""
    if (said.mesh, said.node, said.session) != (sent.mesh, sent.node, sent.session):
        raise PeerError("it is about another target")
    if said.command_id != sent.command_id or said.command_hash != command_hash:
        raise PeerError("it is about another command")


def described(receipt: Receipt, mesh_id: str | None, name: str | None) -> Plain:
    """Return what a receipt says, and whether this home knows the node as a member of the mesh.

    `name` is the node's if it is a member there, or was one; `mesh_id` is None without a home: then
    nothing is known.
    """
    is_member = None if mesh_id is None else receipt.mesh == mesh_id and name is not None
    return {
        "verified": True,
        "is_member": is_member,
        "mesh_id": receipt.mesh,
        "node_id": receipt.node,
        "node_name": name if is_member else None,
        "command_id": b32(receipt.command_id),
        "command_hash": receipt.command_hash.hex(),
        "session_id": receipt.session or None,
        "outcome": receipt.outcome,
        "at": rfc3339(receipt.at_s),
        "detail": receipt.detail,
        "processes": receipt.processes,
    }


def _receipt_of(text: bytes) -> bytes:
    if not text.lstrip().startswith(b"{"):
        return text
    try:
        held: str = typed(json.loads(text)["receipt"], str)
        return held.encode()
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise UsageError("this JSON holds no receipt", HINT) from error


def _signed_in(text: bytes, kind: str) -> Signed:
    """Decode `[type, payload, signature]` in base64, or `[payload, signature]` as it is on disk."""
    if len(text) > TEXT_BYTES_MAX:
        raise UsageError(f"a {kind} has at most {TEXT_BYTES_MAX >> 10} KiB")
    try:
        parts = unpack(b64decode(b"".join(text.split()), validate=True))
    except (binascii.Error, PeerError):
        try:
            parts = unpack(text)
        except PeerError:
            parts = None
    match parts:
        case [str(found), bytes(payload), bytes(mark)] if found == kind:
            return Signed(kind, payload, mark)
        case [str(found), bytes(), bytes()]:
            raise UsageError(f"this is a {found[:40]!r}, not a {kind}")
        case [bytes(payload), bytes(mark)]:
            return Signed(kind, payload, mark)
        case _:
            raise UsageError(f"not a {kind}", HINT if kind == RECEIPT else "")
