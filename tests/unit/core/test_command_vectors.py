"""The bytes of docs/protocol/vectors/commands.json are those that the code writes and reads.

Run as a program it writes them; a change there is a change of the protocol.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from unit.core.test_grant_vectors import (
    CHILD,
    FIRST,
    GENESIS,
    NODE,
    NOW_S,
    OPERATOR,
    ROOT,
    SECOND,
    SESSION,
    _read,
    _shown,
)

from meshnode.core.commands.commands import (
    Command,
    Court,
    Receipt,
    command_from_signed,
    receipt_from_signed,
    sign_command,
    sign_receipt,
)
from meshnode.core.control.control import ControlSet
from meshnode.core.control.entries import role_entry
from meshnode.core.control.grants import SessionKey, grant, grant_from_signed
from meshnode.core.control.roles import Role
from meshnode.core.errors import BY_CODE, MeshError
from meshnode.core.ids import SessionId, node_id_of
from meshnode.core.keys import Signed
from meshnode.core.sessions.sessions import SessionRecord, State

FILE = Path(__file__).parents[3] / "docs" / "protocol" / "vectors" / "commands.json"
NODE_ID = node_id_of(NODE.public)
SESSION_ID = SessionId("s" * 26)
EPOCH = (1 << 64) - 1
STEER = Command(
    mesh=GENESIS.mesh_id,
    command_id=bytes(range(16)),
    node=NODE_ID,
    session=SESSION_ID,
    epoch=EPOCH,
    action="steer",
    issued_s=NOW_S,
    expires_s=NOW_S + 300,
    args={"direction": "north", "message": "go on", "mode": "soft"},
)
KILL = replace(STEER, action="kill", expires_s=NOW_S + 43200, args={"force": False, "grace_s": 5})
DELEGATED = grant(SESSION, replace(grant_from_signed(SECOND), specializations=None))
BY_SESSION, BY_CHILD = SessionKey(SESSION, (FIRST,)), SessionKey(CHILD, (FIRST, DELEGATED))
COMMANDS = {
    "steer": sign_command(BY_SESSION, STEER),
    "steer by a delegated key": sign_command(BY_CHILD, STEER),
    "kill": sign_command(BY_SESSION, KILL),
}
REFUSED = {
    "for another node": ("peer", sign_command(BY_SESSION, replace(STEER, node="x"))),
    "of an earlier start": ("stale", sign_command(BY_SESSION, replace(STEER, epoch=1))),
    "expired": (
        "expired",
        sign_command(BY_SESSION, replace(STEER, issued_s=NOW_S - 400, expires_s=NOW_S - 121)),
    ),
    "a steer that lives too long": (
        "refused",
        sign_command(BY_SESSION, replace(STEER, expires_s=NOW_S + 301)),
    ),
    "a kill by a key that may only steer": ("not_permitted", sign_command(BY_CHILD, KILL)),
    "by a key for no specialization at all": (
        "not_permitted",
        sign_command(SessionKey(CHILD, (FIRST, SECOND)), STEER),
    ),
    "a field too many": ("peer", SESSION.sign("command", {"and": "more"})),
    "signed as a receipt": (
        "peer",
        replace(COMMANDS["steer"], type="receipt"),
    ),
    "by another key than its grant names": (
        "not_authenticated",
        sign_command(SessionKey(CHILD, (FIRST,)), STEER),
    ),
}
SAID = Receipt(
    mesh=GENESIS.mesh_id,
    command_id=STEER.command_id,
    command_hash=COMMANDS["steer"].hash,
    node=NODE_ID,
    session=SESSION_ID,
    outcome="delivered",
    at_s=NOW_S + 0.25,
    detail="one line written to the agent's stdin",
)
RECEIPTS = {
    "accepted": sign_receipt(NODE, replace(SAID, outcome="accepted", detail="journalled")),
    "delivered": sign_receipt(NODE, SAID),
    "applied": sign_receipt(
        NODE,
        replace(
            SAID,
            command_hash=COMMANDS["kill"].hash,
            outcome="applied",
            detail="2 processes are gone",
            processes={"found": 2, "gone": 2, "survivors": []},
        ),
    ),
}


def vectors() -> dict[str, Any]:
    return {
        "now": NOW_S,
        "session": {"id": SESSION_ID, "epoch": EPOCH, "agent": "builder"},
        "keys": "those of grants.json; the operator has the role operator from the root",
        "commands": {name: _shown(signed) for name, signed in COMMANDS.items()},
        "refused": {
            name: {"code": code, **_shown(signed)} for name, (code, signed) in REFUSED.items()
        },
        "receipts": {name: _shown(signed) for name, signed in RECEIPTS.items()},
    }


HELD: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}


def judged(signed: Signed) -> Command:
    """Judge as the node of the vectors, on the way that the child's grant demands."""
    control = ControlSet(GENESIS)
    role = Role(OPERATOR.public, "operator", "", ROOT.public, NOW_S, None)
    control.add(role_entry(ROOT, GENESIS.mesh_id, role, bytes), NOW_S)
    record = SessionRecord(SESSION_ID, EPOCH, "builder", State.RUNNING, 1.0, 1.0)
    return Court(GENESIS.mesh_id, NODE_ID, control, 1).judge(signed, record, NODE_ID, NOW_S)


def test_the_code_writes_these_bytes():
    assert vectors() == HELD


@pytest.mark.parametrize("name", COMMANDS)
def test_the_commands_of_the_vectors_are_permitted(name: str):
    signed = _read(HELD["commands"][name])
    assert judged(signed) == command_from_signed(signed)
    assert signed.hash.hex() == HELD["commands"][name]["hash"]


@pytest.mark.parametrize("name", REFUSED)
def test_the_others_are_refused_for_the_reason_given(name: str):
    held = HELD["refused"][name]
    with pytest.raises(MeshError) as refused:
        judged(_read(held))
    assert BY_CODE[held["code"]].code == refused.value.code


@pytest.mark.parametrize("name", RECEIPTS)
def test_the_receipts_of_the_vectors_are_the_nodes_and_name_their_command(name: str):
    receipt = receipt_from_signed(_read(HELD["receipts"][name]), NODE.public)
    order = "kill" if name == "applied" else "steer"
    assert receipt.command_hash.hex() == HELD["commands"][order]["hash"]
    assert receipt.outcome == name


if __name__ == "__main__":
    FILE.write_text(json.dumps(vectors(), indent=1) + "\n")
