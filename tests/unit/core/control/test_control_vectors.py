"""The bytes of docs/protocol/vectors/control.json are those that the code writes and reads.

Run as a program it writes them; a change there is a change of the protocol.
"""

import json
from pathlib import Path

import pytest

from meshnode.core.control.entries import (
    CONTROL,
    Body,
    Cancel,
    Forget,
    Revoke,
    StandingKill,
    entry_from_signed,
    entry_id_of,
    sign_entry,
)
from meshnode.core.control.roles import Authorization, Role, authorize
from meshnode.core.control.settings import Budget, Policy, Terms
from meshnode.core.control.succession import Admits, RootKeys
from meshnode.core.feeds.headers import Header, sign_header
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key, Signed, verify
from meshnode.core.membership.certificates import issue_admitter
from meshnode.core.membership.genesis import Genesis

FILE = Path(__file__).parents[4] / "docs" / "protocol" / "vectors" / "control.json"
SEEDS = {name: bytes([number]) * 32 for number, name in enumerate(("root", "operator", "node"), 1)}
KEYS = {name: Key(seed) for name, seed in SEEDS.items()}
GENESIS = Genesis((KEYS["root"].public,), 1, "vectors", bytes(16))
NODE_ID = node_id_of(KEYS["node"].public)
NOW_S = 1_790_000_000
DAY_S = 86400
HEADER = sign_header(
    KEYS["node"],
    Header(GENESIS.mesh_id, NODE_ID, 2, 77, 4, 6, bytes([1]) * 32, bytes([2]) * 32, float(NOW_S)),
)
WORD = authorize(
    KEYS["root"],
    Authorization(GENESIS.mesh_id, bytes(16), NODE_ID, "operator", 1, NOW_S, NOW_S + 900, b""),
)


def role(issuer: str, name: str, via: Signed | None = None) -> Role:
    return Role(KEYS["operator"].public, name, "olga", KEYS[issuer].public, NOW_S, via)


SAID: dict[str, tuple[str, Body, int | None]] = {
    "role by the root": ("root", role("root", "operator"), None),
    "role by a node, on an admin's word": ("node", role("node", "operator", WORD), None),
    "revoke a key": (
        "root",
        Revoke("key", KEYS["operator"].public, (KEYS["node"].public,)),
        None,
    ),
    "revoke a node": ("root", Revoke("node", KEYS["node"].public), None),
    "revoke a grant": ("operator", Revoke("grant", bytes(range(16))), NOW_S + 9 * DAY_S),
    "order to kill a session": (
        "operator",
        StandingKill(session="s", epoch=(1 << 64) - 1, force=True, grace_s=0),
        NOW_S + DAY_S,
    ),
    "order to kill by node and specialization": (
        "operator",
        StandingKill(node=NODE_ID, specialization="crawler"),
        NOW_S + 7 * DAY_S,
    ),
    "cancel": ("operator", Cancel(bytes(range(16))), NOW_S + DAY_S),
    "policy": ("operator", Policy("limits", {"max": 5, "on": True, "to": "ops"}), None),
    "policy deleted": ("operator", Policy("limits", None), None),
    "budget": (
        "operator",
        Budget("team", Terms(20 * 10**9, "nusd", "day", "suspend", owner="olga")),
        None,
    ),
    "budget in tokens": (
        "operator",
        Budget("crawlers", Terms(5 * 10**6, "tokens", "hour", "kill", 50, specialization="crawl")),
        None,
    ),
    "budget deleted": ("operator", Budget("team", None), None),
    "forget": ("operator", Forget(HEADER), None),
    "roots": ("root", RootKeys(2, (KEYS["root"].public, KEYS["operator"].public)), None),
    "admitter": (
        "root",
        Admits(
            KEYS["node"].public,
            issue_admitter(KEYS["root"], GENESIS.mesh_id, NODE_ID, NOW_S, bytes),
        ),
        None,
    ),
}


def signed(name: str) -> Signed:
    issuer, body, expires_s = SAID[name]
    return sign_entry(
        KEYS[issuer], GENESIS.mesh_id, body, bytes, issued_s=NOW_S, expires_s=expires_s
    )


def vectors() -> dict[str, object]:
    return {
        "mesh": GENESIS.mesh_id,
        "seeds": {name: seed.hex() for name, seed in SEEDS.items()},
        "entries": [
            {
                "name": name,
                "issuer": issuer,
                "payload": signed(name).payload.hex(),
                "signature": signed(name).signature.hex(),
                "id": entry_id_of(signed(name)).hex(),
            }
            for name, (issuer, _, _) in SAID.items()
        ],
    }


def test_what_the_code_writes_is_what_the_vectors_say():
    assert json.loads(FILE.read_text()) == vectors(), f"write them: python {Path(__file__).name}"


@pytest.mark.parametrize("vector", json.loads(FILE.read_text())["entries"], ids=lambda v: v["name"])
def test_what_the_vectors_say_is_what_the_code_reads(vector: dict[str, str]):
    entry = Signed(CONTROL, *(bytes.fromhex(vector[part]) for part in ("payload", "signature")))
    issuer, body, _ = SAID[vector["name"]]
    verify(entry, CONTROL, KEYS[issuer].public)
    assert entry_from_signed(entry, GENESIS.mesh_id).body == body
    assert entry_id_of(entry).hex() == vector["id"]


if __name__ == "__main__":
    FILE.write_text(json.dumps(vectors(), indent=1) + "\n")
