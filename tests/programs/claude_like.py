"""Writes what Claude Code 2.1 writes while it runs: what it says of itself, and its transcript.

    claude_like.py MODEL [--resume ID]

Each line of stdin is one prompt: it makes one response, and prints its log session and its id.
`/clear` begins another log session, as in the program. It asks no model anything.
"""

import json
import os
import re
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

root = Path(os.environ["CLAUDE_CONFIG_DIR"])
model, *rest = sys.argv[1:]
session = rest[1] if rest else str(uuid.uuid4())
ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
said_in = root / "sessions" / f"{os.getpid()}.json"
folder = root / "projects" / re.sub("[^a-zA-Z0-9]", "-", str(Path.cwd()))


def say() -> None:
    said = {"pid": os.getpid(), "sessionId": session, "cwd": str(Path.cwd()), "procStart": ticks}
    said_in.write_text(json.dumps(said | {"version": "2.1.197", "kind": "interactive"}))


def answer(ident: str) -> None:
    usage = {"input_tokens": 1000, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    message = {"id": ident, "type": "message", "role": "assistant", "model": model}
    line = {
        "isSidechain": False,
        "message": message | {"stop_reason": "end_turn", "usage": usage | {"output_tokens": 100}},
        "type": "assistant",
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "cwd": str(Path.cwd()),
        "sessionId": session,
    }
    with (folder / f"{session}.jsonl").open("a") as transcript:
        transcript.write(json.dumps(line, separators=(",", ":")) + "\n")


said_in.parent.mkdir(parents=True, exist_ok=True)
folder.mkdir(parents=True, exist_ok=True)
say()
try:
    for prompt in sys.stdin:
        if prompt.strip() == "/clear":
            session = str(uuid.uuid4())
            say()
            continue
        ident = f"msg_{uuid.uuid4().hex}"
        answer(ident)
        sys.stdout.write(f"{session} {ident}\n")
finally:
    said_in.unlink()
