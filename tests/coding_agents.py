"""Claude Code and Codex as npm has them, and a model on loopback that answers both the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import uuid
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PACKAGES = {"claude": "@anthropic-ai/claude-code@2.1.197", "codex": "@openai/codex@0.169.0"}
BINARIES = {"claude": "@anthropic-ai/claude-code-*/claude", "codex": "@openai/codex-*/**/bin/codex"}
PATIENCE_S = 240.0
TOKENS = {"input_tokens": 1000, "output_tokens": 100}
AWAY = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}  # nobody listens there
QUIET = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1"}
CONFIG = """
model = "gpt-5"
model_provider = "here"
[model_providers.here]
name = "here"
base_url = "{url}/v1"
env_key = "OPENAI_API_KEY"
wire_api = "responses"
"""


def install(directory: Path, name: str) -> Path | str:
    """Install a program; return it, or the reason why there is none."""
    npm = shutil.which("npm")
    if npm is None:
        return f"npm is not installed, which {name} is installed with"
    directory.mkdir(parents=True, exist_ok=True)
    quiet = ("--silent", "--no-fund", "--no-audit", "--ignore-scripts")
    command = [npm, "install", *quiet, "--prefix", str(directory), PACKAGES[name]]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)
    except (subprocess.SubprocessError, OSError) as error:
        return f"npm could not install {PACKAGES[name]}: {error}"
    programs = sorted((directory / "node_modules").glob(BINARIES[name]))
    if not programs:
        return f"{PACKAGES[name]} has no program for this machine"
    programs[0].chmod(0o755)
    return programs[0]


def prompted(name: str, program: Path, url: str, codex: Path) -> tuple[str, dict[str, str]]:
    """Return a command that asks the model at `url` once, and the environment it is to run in."""
    if name == "claude":
        here = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "none"}
        return f"'{program}' -p 'say hi' < /dev/null", AWAY | QUIET | here
    (codex / "config.toml").write_text(CONFIG.format(url=url))
    command = f"'{program}' exec --skip-git-repo-check 'say hi' < /dev/null"
    return command, AWAY | {"OPENAI_API_KEY": "none"}


def at_a_terminal(root: Path, work: Path, url: str, statusline: str) -> dict[str, str]:
    """Settle Claude Code in `root` for `work`, with a status line; return its environment."""
    key = "none" * 10
    settled = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
    known = {"approved": [key[-20:]], "rejected": []}
    state = {"hasCompletedOnboarding": True, "theme": "dark", "customApiKeyResponses": known}
    (root / ".claude.json").write_text(json.dumps(state | {"projects": {str(work): settled}}))
    command = {"type": "command", "command": statusline}
    (root / "settings.json").write_text(json.dumps({"statusLine": command}))
    here = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": key, "CLAUDE_CONFIG_DIR": str(root)}
    return AWAY | QUIET | here | {"HOME": str(work)}


@contextmanager
def model(think: Callable[[], object]) -> Iterator[str]:
    """Serve a model that thinks, and says hello; yields its URL."""
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Model", (_Model,), {"think": think})
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class _Model(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    think: Callable[[], object]

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers.get("content-length") or 0))
        type(self).think()
        if self.path.startswith("/v1/messages"):
            self._tell(_anthropic(json.loads(asked).get("model", "m")))
        elif self.path.startswith("/v1/responses"):
            self._tell(_openai())
        else:
            self._tell([])

    def do_GET(self) -> None:
        self._tell([])

    def _tell(self, events: list[dict]) -> None:
        lines = (f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in events)
        said = "".join(lines).encode()
        self.send_response(200 if events else 404)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        pass


def _anthropic(name: str) -> list[dict]:
    usage = {"input_tokens": TOKENS["input_tokens"], "output_tokens": 1}
    usage |= {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    message = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant"}
    message |= {"model": name, "content": [], "stop_reason": None, "stop_sequence": None}
    text = {"type": "text_delta", "text": "hello"}
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    return [
        {"type": "message_start", "message": {**message, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": text},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": ended,
            "usage": {"output_tokens": TOKENS["output_tokens"]},
        },
        {"type": "message_stop"},
    ]


def _openai() -> list[dict]:
    ident = f"resp_{uuid.uuid4().hex}"
    content = [{"type": "output_text", "text": "hello"}]
    item = {"type": "message", "role": "assistant", "id": "m", "content": content}
    usage = {**TOKENS, "total_tokens": sum(TOKENS.values())}
    usage |= {"input_tokens_details": {"cached_tokens": 0}}
    usage |= {"output_tokens_details": {"reasoning_tokens": 0}}
    return [
        {"type": "response.created", "response": {"id": ident}},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {"id": ident, "usage": usage}},
    ]
