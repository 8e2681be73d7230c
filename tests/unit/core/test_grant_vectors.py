"""The bytes of docs/protocol/vectors/grants.json are those that the code writes and reads.

Run as a program it writes them; a change there is a change of the protocol.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from meshnode.core.control.grants import (
    Grant,
    SessionKey,
    grant,
    grant_from_signed,
    session_key_from_text,
    verify_chain,
)
from meshnode.core.errors import MeshError, PeerError
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key, Signed, derive_session_key, key_id_of, parse_public
from meshnode.core.membership.enrolment import (
    Invite,
    admit_proof,
    application_from_signed,
    apply_with,
    invite_from_text,
    join_proof,
)
from meshnode.core.membership.genesis import Genesis

FILE = Path(__file__).parents[3] / "docs" / "protocol" / "vectors" / "grants.json"
ROOT, OPERATOR, NODE, JOINER = (Key(bytes([number]) * 32) for number in (1, 2, 3, 4))
SESSION_ROOT = bytes([5]) * 32
GENESIS = Genesis((ROOT.public,), 1, "vectors", bytes(16))
NOW_S = 1_790_000_000
KID = bytes(range(16))
SESSION = derive_session_key(SESSION_ROOT, GENESIS.mesh_id, KID, 1)
CHILD = Key(bytes([6]) * 32)
FIRST = grant(
    OPERATOR,
    Grant(
        mesh=GENESIS.mesh_id,
        issuer=OPERATOR.public,
        subject=SESSION.public,
        actions=("read", "steer", "kill"),
        not_before_s=NOW_S - 120,
        expires_s=NOW_S + 3600,
        grant_id=bytes([7]) * 16,
    ),
)
SECOND = grant(
    SESSION,
    Grant(
        mesh=GENESIS.mesh_id,
        issuer=SESSION.public,
        subject=CHILD.public,
        actions=("steer",),
        not_before_s=NOW_S,
        expires_s=NOW_S + 600,
        grant_id=bytes([8]) * 16,
        depth=1,
        parent=FIRST.hash,
        nodes=(node_id_of(NODE.public),),
        agents=("builder",),
        sessions=None,
        specializations=(),
        via=node_id_of(NODE.public),
    ),
)
INVITE = Invite(
    ROOT.public,
    GENESIS.mesh_id,
    node_id_of(NODE.public),
    bytes([9]) * 16,
    bytes([10]) * 16,
    NOW_S + 900,
    ("192.0.2.1:7708", "[2001:db8::1]:7708"),
    commands=True,
)
APPLICATION = apply_with(JOINER, OPERATOR, INVITE, "berta", bytes([11]) * 16)
ANSWER: list[Any] = [GENESIS.to_bytes(), [b"der"], [], ["192.0.2.1:7707"], float(NOW_S), {"a": "b"}]
REFUSED_GRANTS = {
    f"its id has {size} bytes": grant(
        OPERATOR, replace(grant_from_signed(FIRST), grant_id=bytes([7]) * size)
    )
    for size in (0, 15, 17)
}
REFUSED_KEYS = {
    "the neutral element": "01" + "00" * 31,
    "of order 2": "ec" + "ff" * 30 + "7f",
    "of order 4": "00" * 32,
    "of order 8": "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "the neutral element, not canonical": "ee" + "ff" * 30 + "7f",
    "y above the field": "f0" + "ff" * 30 + "7f",
    "too short": "02" * 31,
}


def vectors() -> dict[str, Any]:
    return {
        "mesh": GENESIS.mesh_id,
        "genesis": GENESIS.to_bytes().hex(),
        "seeds": {
            "root": ROOT.seed.hex(),
            "operator": OPERATOR.seed.hex(),
            "node": NODE.seed.hex(),
            "joiner": JOINER.seed.hex(),
            "child": CHILD.seed.hex(),
        },
        "operator": {"public": OPERATOR.public.hex(), "key_id": key_id_of(OPERATOR.public)},
        "node_id": node_id_of(NODE.public),
        "session key": {
            "session_root": SESSION_ROOT.hex(),
            "kid": KID.hex(),
            "generation": 1,
            "seed": SESSION.seed.hex(),
            "public": SESSION.public.hex(),
        },
        "chain": [_shown(link) for link in (FIRST, SECOND)],
        "smk1": {
            "of the session key": SessionKey(SESSION, (FIRST,)).to_text(),
            "of its child": SessionKey(CHILD, (FIRST, SECOND)).to_text(),
        },
        "smj1": INVITE.to_text(),
        "application": _shown(APPLICATION),
        "join proof": join_proof(INVITE.secret, INVITE.admitter, APPLICATION.payload).hex(),
        "admit proof": admit_proof(INVITE.secret, APPLICATION.payload, ANSWER).hex(),
        "grants that are refused": {why: _shown(one) for why, one in REFUSED_GRANTS.items()},
        "public keys that are refused": REFUSED_KEYS,
    }


def _shown(signed: Signed) -> dict[str, str]:
    return {
        "type": signed.type,
        "payload": signed.payload.hex(),
        "signature": signed.signature.hex(),
        "hash": signed.hash.hex(),
    }


def _read(shown: dict[str, str]) -> Signed:
    payload, mark = (bytes.fromhex(shown[part]) for part in ("payload", "signature"))
    return Signed(shown["type"], payload, mark)


HELD: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}


def test_the_code_writes_these_bytes():
    assert vectors() == HELD


def test_the_chain_of_the_vectors_is_valid_and_in_its_order():
    chain = [_read(shown) for shown in HELD["chain"]]
    grants = verify_chain(chain, HELD["mesh"])
    assert [one.actions for one in grants] == [("read", "steer", "kill"), ("steer",)]
    assert grants[1].parent.hex() == HELD["chain"][0]["hash"]
    with pytest.raises(MeshError):
        verify_chain(chain[::-1], HELD["mesh"])


@pytest.mark.parametrize("whose", ["of the session key", "of its child"])
def test_the_session_keys_of_the_vectors_are_read(whose: str):
    key = session_key_from_text(HELD["smk1"][whose])
    assert verify_chain(key.chain, HELD["mesh"])[-1].subject == key.key.public


def test_the_invite_of_the_vectors_is_read_and_its_application_is_genuine():
    invite = invite_from_text(HELD["smj1"])
    assert invite == INVITE
    application = application_from_signed(_read(HELD["application"]))
    assert application.operator_key is not None
    assert application.operator_key.hex() == HELD["operator"]["public"]
    proof = join_proof(
        invite.secret, invite.admitter, bytes.fromhex(HELD["application"]["payload"])
    )
    assert proof.hex() == HELD["join proof"]


@pytest.mark.parametrize("why", REFUSED_GRANTS)
def test_grants_that_no_revocation_could_name_are_refused(why: str):
    """Their signature is good, and whoever holds them could never be stopped by them."""
    with pytest.raises(MeshError, match="could not be revoked"):
        verify_chain([_read(HELD["grants that are refused"][why])], HELD["mesh"])


@pytest.mark.parametrize("why", REFUSED_KEYS)
def test_public_keys_that_let_anybody_forge_are_refused(why: str):
    with pytest.raises(PeerError):
        parse_public(bytes.fromhex(HELD["public keys that are refused"][why]))


if __name__ == "__main__":
    FILE.write_text(json.dumps(vectors(), indent=1) + "\n")
