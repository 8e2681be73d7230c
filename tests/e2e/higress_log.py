"""A small Higress log of three responses in two sessions, and `usage` of it."""

import json
from pathlib import Path
from typing import Any

from e2e.fleet import Node


def line(request: str, session: str, tokens: int, day: int = 20, model: str = "gpt-4o") -> str:
    call = {"session_id": session, "model": model, "input_token": tokens, "output_token": 10}
    outer = {
        "ai_log": json.dumps(call),
        "request_id": request,
        "start_time": f"2026-11-{day}T09:30:15Z",
    }
    return json.dumps(outer) + "\n"


def write_log(directory: Path) -> Path:
    path = directory / "access.log"
    path.write_text(line("r1", "s1", 1000) + line("r2", "s1", 2000, 19) + line("r3", "s2", 7))
    return path


def read(node: Node, log: Path, *more: str) -> dict[str, Any]:
    value: dict[str, Any] = node.json("usage", "--source", "higress", "--path", str(log), *more)
    return value
