"""The bytes of docs/protocol/vectors/audit.json are those that the code writes and reads.

Run as a program it writes them; a change there is a change of the protocol.
"""

import json
from pathlib import Path

from msgspec.structs import asdict

from meshnode.core.commands.audit import (
    AUDIT_HEAD,
    AuditHead,
    AuditRecord,
    head_from_signed,
    head_to_row,
    record_from_bytes,
    sign_head,
    start_hash,
)
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key, Signed

FILE = Path(__file__).parents[4] / "docs" / "protocol" / "vectors" / "audit.json"
SEED = bytes([3]) * 32
NODE = Key(SEED)
LOG = (1 << 64) - 3
AT_MS = 1_790_000_000_123
RECORDS = (
    AuditRecord(1, AT_MS, "node_started", detail="version 0.1.0"),
    AuditRecord(
        2,
        AT_MS + 1,
        "command_executed",
        "pwby3rnioavn532qf63rag4s5q",
        "builder",
        "olga",
        "bxdq7p7r4y5hqgsmxpoklp2bgy",
        "387d99fcebce54a4",
        "steer",
        "delivered",
        "one line written to the agent's stdin",
    ),
    AuditRecord(3, AT_MS + 2, "session_closed", agent="bäcker ✓", outcome="closed"),
)


def vectors() -> dict[str, object]:
    chain = start_hash(NODE.public, LOG)
    written: list[dict[str, object]] = []
    start = chain.hex()
    for record in RECORDS:
        chain = record.hash_after(chain)
        packed = record.to_bytes().hex()
        written.append({"record": asdict(record), "bytes": packed, "hash": chain.hex()})
    head = sign_head(NODE, AuditHead(node_id_of(NODE.public), LOG, 3, chain, AT_MS + 3))
    return {
        "seed": SEED.hex(),
        "log": LOG,
        "start": start,
        "records": written,
        "head": {"payload": head.payload.hex(), "signature": head.signature.hex()},
        "row": head_to_row(head).hex(),
    }


def test_what_the_code_writes_is_what_the_vectors_say():
    assert json.loads(FILE.read_text()) == vectors(), f"write them: python {Path(__file__).name}"


def test_what_the_vectors_say_is_what_the_code_reads():
    told = json.loads(FILE.read_text())
    for one in told["records"]:
        assert asdict(record_from_bytes(bytes.fromhex(one["bytes"]))) == one["record"]
    parts = (bytes.fromhex(told["head"][part]) for part in ("payload", "signature"))
    head = head_from_signed(Signed(AUDIT_HEAD, *parts))
    assert (head.log, head.seq, head.hash.hex()) == (told["log"], 3, told["records"][-1]["hash"])


if __name__ == "__main__":
    FILE.write_text(json.dumps(vectors(), indent=1) + "\n")
