"""What reads the usage logs of other programs, and its own places in them."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from fuzz.decoder import Decoder
from fuzz.homes import place, written

from meshnode.core.packing import pack
from meshnode.ingest.claude import Transcript, Transcripts
from meshnode.ingest.higress import HigressReader, parse_line
from meshnode.ingest.reading import Findings
from meshnode.ingest.rotation import POSITION
from meshnode.ingest.tree import TreeReader

GOLDEN = Path(__file__).parents[1] / "golden" / "claude"
LINE = b'{"ai_log":"-"}\n'
CALL = {
    "start_time": "2026-11-20T09:30:00Z",
    "request_id": "r",
    "ai_log": json.dumps({"model": "m", "input_token": 5, "output_token": "6"}),
}
TOLD = (GOLDEN / "plain.jsonl").read_bytes().splitlines(keepends=True)[-1]


def higress(raw: bytes) -> str:
    return type(parse_line(raw)).__name__


def position_of_a_reader(raw: bytes) -> str:
    reader = HigressReader(str(written("access.log", LINE * 3)))
    try:
        return reader.read({POSITION: raw}, 1 << 16).detail
    finally:
        reader.close()


def transcript(raw: bytes) -> str:
    """Read lines; say what became of how many."""
    findings = Findings()
    Transcript(Path("/projects/-p/s.jsonl")).take(raw + b"\n", 0, findings)
    reasons = " ".join(sorted(findings.skipped))
    return f"{len(findings.records)} {reasons}"


def place_of_a_file(raw: bytes) -> str:
    (place() / "projects").mkdir(mode=0o700, exist_ok=True)
    path = written("projects/p/s.jsonl", TOLD)
    name = sha256(str(path).encode()).digest()[:16]
    return TreeReader(Transcripts(), str(place() / "projects")).read({name: raw}, 1 << 16).detail


_POSITION = [1, 2, sha256(LINE).digest()[:16], 15, sha256(LINE).digest()[:8], False]
FROM_LOGS: dict[str, Decoder] = {
    "usage line": Decoder(higress, (json.dumps(CALL).encode(),), ()),
    "reader position": Decoder(position_of_a_reader, (pack([_POSITION]),), (), packed=True),
    "transcript": Decoder(transcript, (TOLD, (GOLDEN / "as_texts.jsonl").read_bytes()), ()),
    "place in a transcript": Decoder(place_of_a_file, (bytes(41) + b"p", b""), ()),
}
