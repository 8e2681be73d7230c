# ruff: noqa: S311, TID251 - a module beside its script; the gateway's clock is its own
"""A Higress gateway as its access log shows it: one line per model call, and it keeps growing.

The log is a text template that looks like JSON: what the model said about tokens is in `ai_log`.
"""

import json
import random
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

EARLIER_REQUESTS = 30  # already in the log when the tour begins, over the last minutes
EARLIER_EVERY_S = 10
REQUEST_EVERY_S = 0.2
FAILS_EVERY = 13  # a call that fails has no tokens
EARLIER_SESSION = "agent:night-shift:main"
UNKNOWN_MODEL = "house-llm-7b"  # nobody has published a price for it


@dataclass(frozen=True, slots=True)
class Model:
    """A model behind the gateway, and how its provider counts."""

    name: str
    provider: str
    cache_is_outside: bool = False  # Anthropic counts cached tokens beside the input


MODELS = (
    Model("gpt-4o", "openai"),
    Model("claude-sonnet-4-5", "anthropic", cache_is_outside=True),
    Model("qwen-max", "qwen"),
    Model("deepseek-chat", "deepseek"),
    Model(UNKNOWN_MODEL, "inhouse"),
)


class GatewayLog:
    """Writes the log in the background, and remembers what a correct bill must add up to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rng = random.Random(7)
        self._sessions = [EARLIER_SESSION]
        self._writing = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._grow, daemon=True)
        self.requests = 0  # calls with tokens
        self.failures = 0
        self.tokens = 0

    def __enter__(self) -> Self:
        now_s = time.time()
        for number in range(EARLIER_REQUESTS, 0, -1):
            self._write(now_s - number * EARLIER_EVERY_S)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Write no more."""
        self._stopped.set()
        self._thread.join()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Write nothing meanwhile: what is logged can be compared with what is billed."""
        with self._writing:
            yield

    def serve(self, *session_ids: str) -> None:
        """From now on these sessions are the callers."""
        with self._writing:
            self._sessions = list(session_ids)

    def _grow(self) -> None:
        while not self._stopped.wait(REQUEST_EVERY_S):
            self._write(time.time())

    def _write(self, at_s: float) -> None:
        with self._writing:
            number = self.requests + self.failures
            model = MODELS[number % len(MODELS)]
            # The next caller after each round of models, so that everybody calls every model.
            session = self._sessions[number // len(MODELS) % len(self._sessions)]
            failed = number % FAILS_EVERY == FAILS_EVERY - 1
            call = {"session_id": session, "model": model.name, "response_type": "error"}
            if not failed:
                call |= self._counted(model)
            with self._path.open("a", encoding="utf-8") as log:
                log.write(json.dumps(self._line(model, call, at_s, failed=failed)) + "\n")
            self.failures += failed
            self.requests += not failed

    def _counted(self, model: Model) -> dict[str, Any]:
        sent, received = self._rng.randint(800, 9000), self._rng.randint(60, 900)
        cached = sent // 3
        self.tokens += sent + received + (cached if model.cache_is_outside else 0)
        name = "cache_read_input_tokens" if model.cache_is_outside else "cached_tokens"
        return {
            "chat_id": f"chatcmpl-{self._rng.getrandbits(64):016x}",
            "input_token": sent,
            "output_token": received,
            "total_token": sent + received,
            "input_token_details": json.dumps({name: cached}),
            "response_type": "stream",
        }

    def _line(
        self, model: Model, call: dict[str, Any], at_s: float, *, failed: bool
    ) -> dict[str, str]:
        at = datetime.fromtimestamp(at_s, UTC)
        return {
            "ai_log": json.dumps(call),
            "authority": "gateway.example",
            "duration": str(self._rng.randint(400, 9000)),
            "method": "POST",
            "path": "/v1/chat/completions",
            "protocol": "HTTP/1.1",
            "request_id": str(uuid.UUID(int=self._rng.getrandbits(128), version=4)),
            "response_code": "503" if failed else "200",
            "start_time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "upstream_cluster": f"outbound|443||llm-{model.provider}.internal.dns",
            "user_agent": "demo-agent/1.0",
        }
