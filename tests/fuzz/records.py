"""What nodes keep or hand over that is read on its own: audit records, roots, replaced nodes."""

from __future__ import annotations

from atexit import register
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz.decoder import Decoder
from fuzz.values import CHAIN, CHANGE, GENESIS, ROOT, USER

from meshnode.client.home import Home
from meshnode.core.commands.audit import AuditRecord, record_from_bytes
from meshnode.core.packing import pack
from meshnode.node.homes.replacing import replaced_from
from meshnode.node.homes.roots import followed_by, known_roots

if CHANGE.header.signed is None:
    raise ValueError("a flush has a signed header")
RECORDED = AuditRecord(
    3, 1_790_000_000_000, "command", "s", "builder", "o", "c", "k", "kill", "applied", "1 is gone"
)
REPLACED = {"name": "old", "labels": {"a": "b"}, "head": CHANGE.header.signed.to_list()}
ROOTS = {"mesh": GENESIS.mesh_id, "present": [ROOT.public, USER.public], "followed": [CHAIN[1]]}


@cache
def _home() -> Home:
    directory = TemporaryDirectory(prefix="sm-fuzz-")
    register(directory.cleanup)
    return Home(Path(directory.name))


def roots(raw: bytes) -> str:
    """Read a home's roots; a file that says nothing leaves the genesis its word."""
    home = _home()
    home.roots.write_bytes(raw)
    known, followed = known_roots(home, GENESIS), followed_by(home, GENESIS)
    if not known or not all(isinstance(one, bytes) for one in (*known, *followed)):
        raise AssertionError("a home without roots")
    return f"{len(known)} roots, {min(len(followed), 2)} followed"


RECORDS: dict[str, Decoder] = {
    "audit record": Decoder(
        record_from_bytes, (RECORDED.to_bytes(), AuditRecord(1, 5, "log").to_bytes()), packed=True
    ),
    "roots of a home": Decoder(roots, (pack(ROOTS), pack({**ROOTS, "followed": []})), packed=True),
    "replaced": Decoder(
        lambda raw: replaced_from(raw, GENESIS.mesh_id), (pack(REPLACED),), packed=True
    ),
}
