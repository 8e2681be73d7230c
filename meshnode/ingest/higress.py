"""The Higress access log: one text template line per request, with the model call in `ai_log`.

Invariant: a request is counted once, by its own id, whatever becomes of the file it stands in. No
prompt text leaves this module.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.core.ledger import (
    SLOT_MAX,
    SLOT_S,
    Buckets,
    UsageRecord,
    cut,
    tier_of,
)
from meshnode.ingest.reading import Reason, Skipped
from meshnode.ingest.rotation import RotatingReader

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCE = "higress"
STANDARD_PATHS = ("/var/log/proxy/access.log", "/var/log/higress/access.log")
COUNT_MAX = 1 << 40  # more tokens in one request: set aside
ID_CHARS_MAX = 128  # longer request ids are hashed
DEFAULT_SESSION = "default"
SESSION_HEADERS = (
    "x-openclaw-session-key",
    "x-clawdbot-session-key",
    "x-moltbot-session-key",
    "x-agent-session",
)
ESTIMATED = "reasoning_estimated"  # a flag: nobody reported reasoning, its text was measured
CHARS_PER_TOKEN = 4


class _ContradictionError(ValueError):
    """The numbers of a call cannot all be true."""


class _Call(msgspec.Struct):
    """The part of `ai_log` that counts. Gateways write numbers as numbers or as strings."""

    session_id: Any = None
    chat_id: Any = None
    model: Any = None
    provider: Any = None
    consumer: Any = None
    project: Any = None
    service_tier: Any = None
    input_token: Any = None
    output_token: Any = None
    total_token: Any = None
    cached_tokens: Any = None
    reasoning_tokens: Any = None
    reasoning: Any = None
    input_token_details: Any = None
    output_token_details: Any = None


_decode_outer = msgspec.json.Decoder(dict[str, Any]).decode
_decode_call = msgspec.json.Decoder(_Call).decode
_LEADING = re.compile(rb'\s*\{\s*"ai_log"\s*:\s*("(?:[^"\\]++|\\.)*+")', re.DOTALL)
_FLAT = re.compile(
    rb'"(request_id|start_time|timestamp|consumer|upstream_cluster|x[-_][a-z]+[-_a-z]*)"'
    rb'\s*:\s*"([^"\\]*)"'
)
_PROVIDER = re.compile(r"\|\|llm-([a-z0-9-]{1,40})\.internal\.")
_AGENT = re.compile(r"agent:([^:]{1,256}):")


def parse_line(  # noqa: PLR0911 - one way out for each fate of a line
    line: bytes, file: str = "", fingerprint: str = "", offset: int = 0
) -> UsageRecord | Skipped:
    """Read one line. A call without any id is known by its file, place and content."""
    if not line.strip():
        return Skipped(Reason.NOT_A_CALL)
    try:
        outer = _outer(line)
        call = _call(outer.get("ai_log"))
    except (ValueError, RecursionError):
        return Skipped(Reason.UNPARSABLE)
    if call is None:
        return Skipped(Reason.NOT_A_CALL)
    session = _session(call, outer)
    try:
        usage, flags = _usage(call)
        at_s = 0.0 if usage is None else _at_s(outer)
    except ValueError:
        return Skipped(Reason.QUARANTINED, session)
    if usage is None:
        return Skipped(Reason.NO_USAGE, session)
    idem_key = _idem_key(call, outer)
    if not idem_key:
        idem_key = f"{SOURCE}:{fingerprint}:{offset}:{sha256(line).hexdigest()[:16]}"
    agent = _AGENT.match(session)
    return UsageRecord(
        idem_key=idem_key,
        source=SOURCE,
        at_s=at_s,
        session=session,
        project=_text(call.project),
        agent=agent[1] if agent else "",
        owner=_text(call.consumer) or _text(outer.get("consumer")),
        model=_text(call.model) or "unknown",
        provider=_provider(call, outer),
        tier=tier_of(_text(call.service_tier), usage.prompt),
        usage=usage,
        flags=flags,
        file=file,
        offset=offset,
    )


def _outer(line: bytes) -> Mapping[str, Any]:
    try:
        return _decode_outer(line)
    except ValueError:  # msgspec's own and UnicodeDecodeError both are
        pass
    # The template escapes ai_log only: a quote in a user agent breaks the line, but not its head.
    leading = _LEADING.match(line)
    if leading is None:
        raise ValueError("no log line")
    found: dict[str, Any] = {}
    for name, value in _FLAT.findall(line, leading.end()):
        found.setdefault(name.decode(), value.decode("utf-8", "replace"))
    found["ai_log"] = _lenient(leading[1])
    return found


def _call(ai_log: object) -> _Call | None:
    if ai_log is None or ai_log in ("", "-"):
        return None
    if not isinstance(ai_log, str):
        return msgspec.convert(ai_log, _Call)
    try:
        return _decode_call(ai_log)
    except ValueError:
        return msgspec.convert(_lenient(ai_log.encode("utf-8", "replace")), _Call)


def _lenient(text: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Read JSON with raw control characters and broken characters, as gateways write them."""
    return json.loads(text.decode("utf-8", "replace"), strict=False)


def _usage(call: _Call) -> tuple[Buckets | None, tuple[str, ...]]:
    sent, received = _count(call.input_token), _count(call.output_token)
    if not sent and not received:
        return None, ()
    sent, received = sent or 0, received or 0
    details = {**_details(call.output_token_details), **_details(call.input_token_details)}
    if "cache_creation_input_tokens" in details or "cache_read_input_tokens" in details:
        usage = _like_anthropic(sent, received, details)
    elif any(name in details for name in _GEMINI):
        usage = _like_gemini(sent, received, details)
        return usage, ()
    else:
        usage = _like_openai(sent, received, _first_count(details, "cached_tokens", call))
    return _with_reasoning(usage, call, details)


_GEMINI = ("cached_content_token_count", "tool_use_prompt_token_count", "thoughts_token_count")


def _like_openai(sent: int, received: int, cached: int) -> Buckets:
    """Cached tokens are a part of the input."""
    if cached > sent:
        raise _ContradictionError("more cached than sent")
    return Buckets(input=sent - cached, cache_read=cached, output=received)


def _like_anthropic(sent: int, received: int, details: Mapping[str, Any]) -> Buckets:
    """Cache reads and writes lie outside the input; writes without a breakdown live 5 minutes."""
    written = _count(details.get("cache_creation_input_tokens")) or 0
    lifetimes = _details(details.get("cache_creation"))
    hour = _count(lifetimes.get("ephemeral_1h_input_tokens")) or 0
    minutes = _count(lifetimes.get("ephemeral_5m_input_tokens")) or 0
    written = max(written, hour + minutes)
    return Buckets(
        input=sent,
        cache_read=_count(details.get("cache_read_input_tokens")) or 0,
        cache_write_5m=written - hour,
        cache_write_1h=hour,
        output=received,
    )


def _like_gemini(sent: int, received: int, details: Mapping[str, Any]) -> Buckets:
    """Cached content is a part of the input; tool prompts and thoughts come on top."""
    cached, tools, thoughts = (_count(details.get(name)) or 0 for name in _GEMINI)
    if cached > sent:
        raise _ContradictionError("more cached than sent")
    return Buckets(
        input=sent - cached + tools,
        cache_read=cached,
        output=received + thoughts,
        reasoning=thoughts,
    )


def _with_reasoning(
    usage: Buckets, call: _Call, details: Mapping[str, Any]
) -> tuple[Buckets, tuple[str, ...]]:
    reasoning, outside = _first_count(details, "reasoning_tokens", call), 0
    flags: tuple[str, ...] = ()
    if reasoning > usage.output:
        # Some providers report reasoning beside the output: believe it if the total says so too.
        if _count(call.total_token) != usage.prompt + usage.output + reasoning:
            raise _ContradictionError("more reasoning than output")
        outside = reasoning
    elif not reasoning and isinstance(call.reasoning, str):
        reasoning = min(len(call.reasoning) // CHARS_PER_TOKEN, usage.output)
        flags = (ESTIMATED,) if reasoning else ()
    if reasoning:
        usage = usage + Buckets(output=outside, reasoning=reasoning)
    return usage, flags


def _first_count(details: Mapping[str, Any], name: str, call: _Call) -> int:
    count = _count(details.get(name))
    return (_count(getattr(call, name)) or 0) if count is None else count


def _count(value: object) -> int | None:
    if value is None or value in ("", "-", "null"):
        return None
    try:
        count = int(value) if isinstance(value, (int, float)) else int(str(value)[:24])
    except (ValueError, OverflowError) as error:
        raise _ContradictionError("a count is no number") from error
    if isinstance(value, bool) or not 0 <= count <= COUNT_MAX:
        raise _ContradictionError("a count is out of range")
    return count


def _details(value: object) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or value == "-":
        return ""
    return cut(value.strip())


def _session(call: _Call, outer: Mapping[str, Any]) -> str:
    found = _text(call.session_id)
    for name in SESSION_HEADERS:
        found = found or _text(outer.get(name)) or _text(outer.get(name.replace("-", "_")))
    return found or DEFAULT_SESSION


def _provider(call: _Call, outer: Mapping[str, Any]) -> str:
    cluster = outer.get("upstream_cluster")
    found = _PROVIDER.search(cluster) if isinstance(cluster, str) else None
    return _text(call.provider) or (found[1] if found else "")


def _idem_key(call: _Call, outer: Mapping[str, Any]) -> str:
    for value in (outer.get("request_id"), call.chat_id):
        if isinstance(value, str) and value not in ("", "-"):
            long = len(value) > ID_CHARS_MAX
            raw = value.encode("utf-8", "replace")
            return f"{SOURCE}:{sha256(raw).hexdigest() if long else raw.decode()}"
    return ""


def _at_s(outer: Mapping[str, Any]) -> float:
    text = _text(outer.get("start_time")) or _text(outer.get("timestamp"))
    at = datetime.fromisoformat(text)  # a ValueError: without a time there is no slot for it
    at_s = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    if not 0 <= at_s < SLOT_MAX * SLOT_S:
        raise _ContradictionError("the time is out of range")
    return at_s


class HigressReader(RotatingReader):
    """Reads one access log on, with the files that it was rotated into."""

    def __init__(self, path: str, session_key: str | None = None) -> None:
        super().__init__(SOURCE, parse_line, path, session_key)
