"""The bytes of docs/protocol/vectors/ledger.json are those that the code writes and reads.

Run as a program it writes them; a change there is a change of the protocol.
"""

import json
from pathlib import Path
from typing import Any

from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.ledger.checkpoints import (
    CHECKPOINT,
    Checkpoint,
    checkpoint_from_signed,
    sign_checkpoint,
)
from meshnode.core.ledger.ledger import LEDGER, Buckets, Diagnostics, DiagnosticsKey, Slot, SlotKey
from meshnode.core.ledger.ledger_rows import (
    diagnostics_from_row,
    key_from_row,
    key_to_row,
    slot_from_row,
    value_to_row,
)
from meshnode.core.ledger.marks import mark_of, marked
from meshnode.core.ledger.regained import joined_rows
from meshnode.core.ledger.rollups import moves, written_by
from meshnode.core.periods import DayKey, MonthKey

FILE = Path(__file__).parents[4] / "docs" / "protocol" / "vectors" / "ledger.json"
SEED = bytes([4]) * 32
NODE = Key(SEED)
NOW_S = 1_795_000_000
WHAT = ("bäcker ✓", "claude-opus-4-6", "standard>200000")
KEYS = {
    "slot": SlotKey(*WHAT, 997_000),
    "reader": DiagnosticsKey("claude", "0" * 16),
    "day": DayKey(*WHAT, 20_736),
    "month": MonthKey(*WHAT, 667),
    "marked": SlotKey(*WHAT[:2], marked(WHAT[2], mark_of("", "olga", "", "openai")), 997_000),
    "had": SlotKey(*WHAT[:2], marked(WHAT[2], "7h4kq2v6xm" + "a" * 16), 997_000),
    "marked_short": DayKey(*WHAT[:2], marked("batch", mark_of("", "paul", "", "")), 20_736),
}
USED = Slot(3, Buckets(3, 22_137, 2_285, 0, 159, 20, 1), "builder", "olga", "shop", "anthropic")
MORE = Slot(1, Buckets(output=7), "builder", "olga", "shop", "anthropic")
VALUES = {"counter": USED, "reader": Diagnostics(3, 1, 2, 0, 1, 17, 1)}
HELD: dict[Any, Slot] = {
    SlotKey(*WHAT, 995_300): USED,  # of day 20735, more than 35 days ago
    SlotKey(*WHAT, 995_301): MORE,
    DayKey(*WHAT, 20_260): USED,  # of month 665, more than 13 months ago
    SlotKey(*WHAT, 997_000): MORE,
}
LOST: dict[Any, Slot] = {DayKey(*WHAT, 20_735): MORE, SlotKey(*WHAT, 997_000): USED}


def rows(ledger: dict[Any, Slot]) -> list[list[str]]:
    return sorted([key_to_row(key).hex(), value_to_row(slot).hex()] for key, slot in ledger.items())


def packed(ledger: dict[Any, Slot]) -> dict[bytes, bytes]:
    return {key_to_row(key): value_to_row(slot) for key, slot in ledger.items()}


def vectors() -> dict[str, Any]:
    moved = moves(HELD, NOW_S)
    joined = joined_rows(LEDGER, packed(HELD), packed(LOST))
    node = node_id_of(NODE.public)
    said = sign_checkpoint(NODE, Checkpoint(node, 57, bytes(32), NOW_S * 1000, (57, 1)))
    return {
        "seed": SEED.hex(),
        "keys": {name: key_to_row(key).hex() for name, key in KEYS.items()},
        "values": {name: value_to_row(value).hex() for name, value in VALUES.items()},
        "rolled_up": {
            "now_s": NOW_S,
            "held": rows(HELD),
            "written": rows(written_by(HELD, moved)),
            "removed": sorted(key_to_row(key).hex() for key, _ in moved),
        },
        "joined": {
            "ours": rows(HELD),
            "lost": rows(LOST),
            "said": {key.hex(): row and row.hex() for key, row in sorted(joined.items())},
        },
        "checkpoint": {"payload": said.payload.hex(), "signature": said.signature.hex()},
    }


def test_what_the_code_writes_is_what_the_vectors_say():
    assert json.loads(FILE.read_text()) == vectors(), f"write them: python {Path(__file__).name}"


def test_what_the_vectors_say_is_what_the_code_reads():
    told = json.loads(FILE.read_text())
    assert {name: key_from_row(bytes.fromhex(row)) for name, row in told["keys"].items()} == KEYS
    values = {name: bytes.fromhex(row) for name, row in told["values"].items()}
    assert slot_from_row(values["counter"]) == VALUES["counter"]
    assert diagnostics_from_row(values["reader"]) == VALUES["reader"]
    parts = (bytes.fromhex(told["checkpoint"][part]) for part in ("payload", "signature"))
    checkpoint = checkpoint_from_signed(Signed(CHECKPOINT, *parts), node_id_of(NODE.public))
    assert (checkpoint.seq, checkpoint.totals, checkpoint.dropped) == (57, (57, 1), False)


def test_the_vectors_roll_days_and_months_up_and_join_what_was_lost():
    told = vectors()
    assert len(told["rolled_up"]["removed"]) == 3
    assert len(told["rolled_up"]["written"]) == 2
    assert None in told["joined"]["said"].values()


if __name__ == "__main__":
    FILE.write_text(json.dumps(vectors(), indent=1) + "\n")
