"""Decoders of what is kept of ledgers, and shown of rounds: by name, for the fuzzer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuzz.decoder import Decoder
from fuzz.values import NODE, NODE_ID, ROLLED_UP, ROWS, SLOT_KEY

from meshnode.core.errors import PeerError
from meshnode.core.ledger import checkpoints, rounds
from meshnode.core.ledger.ledger import LEDGER
from meshnode.core.ledger.ledger_rows import key_to_row
from meshnode.core.ledger.regained import by_month, counters_of, joined_rows
from meshnode.core.packing import pack, typed, unpack, unpack_map

if TYPE_CHECKING:
    from typing import Any

_SLOTS = [[key, row] for table, key, row in ROWS if table == LEDGER]
_SAID = rounds.Texts(
    question="q",
    messages=(rounds.Message("user", "hello"),),
    tool_calls=(rounds.ToolCall(function=rounds.Function("f", "{}")),),
    input_token_details={"cached": 1},
    cut=("answer",),
)
_LINE = b"""{"round":1,"timestamp":"2026-11-20T09:30:00Z","input_tokens":1,"output_tokens":2,
"reasoning_tokens":0,"cached_tokens":0,"model":"m","messages":[{"role":"user"}],"cost_usd":"0.1"}"""


def _checkpoint(payload: bytes) -> str:
    """Let the node that may say so have signed this."""
    signed = NODE.sign(checkpoints.CHECKPOINT, unpack_map(payload))
    return f"up to {checkpoints.checkpoint_from_signed(signed, NODE_ID).seq > 1}"


def _rows(value: Any) -> dict[bytes, bytes]:
    try:
        pairs = [typed(one, list) for one in typed(value, list)]
        return {typed(key, bytes): typed(row, bytes) for key, row in pairs}
    except (TypeError, ValueError) as error:
        raise PeerError("not rows") from error


def _joined(raw: bytes) -> str:
    """Join two ledgers: MessagePack of [ours, theirs], each [[key, row], ...]."""
    sides = unpack(raw)
    if not isinstance(sides, list) or len(sides) != 2:
        raise PeerError("not two ledgers")
    ours, theirs = map(_rows, sides)
    said = joined_rows(LEDGER, ours, theirs)
    after = {key: row for key, row in ({**ours, **theirs} | said).items() if row is not None}
    again = {key: row for key, row in joined_rows(LEDGER, after, after).items() if row is not None}
    if any(after[key] != row for key, row in again.items()):
        raise ValueError("joined with itself it is another")
    pieces = list(by_month(counters_of(after.items()), 1))
    return f"{len(said) > 0} {len(pieces) > 1}"


_PAYLOAD = {
    "node": NODE_ID,
    "seq": 7,
    "hash": bytes(32),
    "at": 5,
    "totals": ["1"] * 8,
    "dropped": False,
}
_OLD = [[key_to_row(key), _SLOTS[0][1]] for key in (*ROLLED_UP, SLOT_KEY)]
LEDGERS = {
    "ledger checkpoint": Decoder(_checkpoint, (pack(_PAYLOAD),), packed=True),
    "lost ledger": Decoder(_joined, (pack([_SLOTS, _OLD]), pack([[], _SLOTS])), packed=True),
    "round texts": Decoder(rounds.texts_from_bytes, (rounds.texts_to_bytes(_SAID),), packed=True),
    "round line": Decoder(rounds.line_from_json, (_LINE,)),
    "rounds head": Decoder(rounds.head_from_json, (b'{"rounds":2,"following":1}',)),
}
