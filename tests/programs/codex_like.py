"""Writes what `codex exec` 0.169 writes while it runs: a lock for its thread, and its rollout.

    codex_like.py MODEL

Each line of stdin is one prompt: it makes one response, and prints its thread. It asks no model.
"""

import fcntl
import json
import os
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

root = Path(os.environ["CODEX_HOME"])
thread, model = str(uuid.uuid4()), sys.argv[1]
now = datetime.now(UTC)
used = {"input_tokens": 0, "cached_input_tokens": 0, "output_tokens": 0}


def write(kind: str, payload: dict) -> None:
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    rollout.write(json.dumps({"timestamp": at, "type": kind, "payload": payload}) + "\n")
    rollout.flush()


locks, folder = root / "thread-writer-locks", root / "sessions" / f"{now:%Y/%m/%d}"
for directory in (locks, folder):
    directory.mkdir(parents=True, exist_ok=True)
with (locks / f"{thread}.lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    with (folder / f"rollout-{now:%Y-%m-%dT%H-%M-%S}-{thread}.jsonl").open("a") as rollout:
        meta = {"id": thread, "cwd": str(Path.cwd()), "model_provider": "openai"}
        write("session_meta", meta | {"timestamp": now.isoformat()})
        write("turn_context", {"model": model, "cwd": str(Path.cwd())})
        for _prompt in sys.stdin:
            used["input_tokens"] += 1000
            used["output_tokens"] += 100
            last = {**used, "input_tokens": 1000, "output_tokens": 100}
            info = {"total_token_usage": dict(used), "last_token_usage": last}
            write("event_msg", {"type": "token_count", "info": info})
            sys.stdout.write(f"{thread}\n")
    Path(lock.name).unlink()
