"""The Higress access log: one text template line per request, with the model call in `ai_log`.

Invariant: a request is counted once, by its own id, whatever becomes of the file it stands in. No
prompt text leaves this module but through `parse_round`, which a reader calls only if asked to.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.core.ledger.ledger import Buckets, Round, UsageRecord
from meshnode.core.ledger.rounds import texts_from
from meshnode.core.ledger.tiers import tier_of
from meshnode.ingest.lenient import (
    ContradictionError,
    any_json,
    at_s_of,
    count_of,
    key_of,
    text_of,
)
from meshnode.ingest.line_form import LineForm
from meshnode.ingest.reading import Reason, Skipped
from meshnode.ingest.rotation import RotatingReader

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCE = "higress"
STANDARD_PATHS = ("/var/log/proxy/access.log", "/var/log/higress/access.log")
DEFAULT_SESSION = "default"
SESSION_HEADERS = (
    "x-openclaw-session-key",
    "x-clawdbot-session-key",
    "x-moltbot-session-key",
    "x-agent-session",
)
ESTIMATED = "reasoning_estimated"  # a flag: nobody reported reasoning, its text was measured
TOLD_TWICE = "told_twice"  # a flag: fields outside the call contradict each other, see `_settled`
CHARS_PER_TOKEN = 4
KEPT = 1024  # names of agents and providers, read again and again


_HEADERS = [name for dashed in SESSION_HEADERS for name in (dashed, dashed.replace("-", "_"))]
_NAMES = {f"header_{number}": name for number, name in enumerate(_HEADERS)}


class _Outer(msgspec.Struct, gc=False, rename=_NAMES):
    """The part of a line that counts. Templates name headers with dashes or underscores."""

    header_0: Any = None
    header_1: Any = None
    header_2: Any = None
    header_3: Any = None
    header_4: Any = None
    header_5: Any = None
    header_6: Any = None
    header_7: Any = None
    ai_log: Any = None
    request_id: Any = None
    start_time: Any = None
    timestamp: Any = None
    consumer: Any = None
    upstream_cluster: Any = None


class _Object(msgspec.Struct):
    ai_log: msgspec.Raw


class _Call(msgspec.Struct, gc=False):
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


_decode_object = msgspec.json.Decoder(_Object).decode
_decode_outer = msgspec.json.Decoder(_Outer).decode
_decode_details = msgspec.json.Decoder(dict[str, Any]).decode
_decode_call = msgspec.json.Decoder(_Call).decode
_CALL = re.compile(rb'"ai_log"\s*:\s*("(?:[^"\\]++|\\.)*+")', re.DOTALL)
_FIELDS = zip(_Outer.__struct_encode_fields__, _Outer.__struct_fields__, strict=True)
_FIELD_OF = {name.encode(): field for name, field in _FIELDS}
_ANY = b"|".join(map(re.escape, _FIELD_OF))
# In the call's own text each quotation mark is escaped, so that only names outside it are found.
# A value is looked at and not passed over: it may be a sender's, and end where a name begins.
_FLAT = re.compile(rb'"(%b)"\s*:\s*(?=(?:"([^"\\]*)")?)' % _ANY)
_NAMED = re.compile(rb',\s*+"(%b)"' % _ANY)
_FORM = LineForm()  # of all logs: what is known of it changes how fast a line is read, not what
_SPELT = re.compile(rb'[,{]\s*+"[^"\\]*+\\')  # a name with escapes: no template writes any
_PROVIDER = re.compile(r"\|\|llm-([a-z0-9-]{1,40})\.internal\.")
_AGENT = re.compile(r"agent:([^:]{1,256}):")


def parse_line(
    line: bytes, file: str = "", fingerprint: str = "", offset: int = 0
) -> UsageRecord | Skipped:
    """Read one line. A call without any id is known by its file, place and content."""
    try:
        outer, is_told_twice = _outer(line)
        call = _call(outer.ai_log)
    except (ValueError, RecursionError):
        return Skipped(Reason.UNPARSABLE if line.strip() else Reason.NOT_A_CALL)
    if call is None:
        return Skipped(Reason.NOT_A_CALL)
    owner = text_of(call.consumer) or text_of(outer.consumer)
    session = text_of(call.session_id) or _session(outer, owner)
    try:
        usage, flags = _usage(call)
        at_s = 0.0 if usage is None else _at_s(outer)
    except ContradictionError:
        return Skipped(Reason.QUARANTINED, session)
    if usage is None:
        return Skipped(Reason.NO_USAGE, session)
    idem_key = key_of(SOURCE, outer.request_id) or key_of(SOURCE, call.chat_id)
    return UsageRecord(
        idem_key=idem_key or f"{SOURCE}:{fingerprint}:{offset}:{sha256(line).hexdigest()[:16]}",
        source=SOURCE,
        at_s=at_s,
        session=session,
        project=text_of(call.project),
        agent=_agent(session),
        owner=owner,
        model=text_of(call.model) or "unknown",
        provider=text_of(call.provider) or _provider(text_of(outer.upstream_cluster)),
        tier=tier_of(text_of(call.service_tier), usage.prompt),
        usage=usage,
        flags=(*flags, TOLD_TWICE) if is_told_twice else flags,
        file=file,
        offset=offset,
    )


def parse_round(line: bytes, record: UsageRecord) -> Round:
    """Read what was said in a call, of a line that `parse_line` has made a record of."""
    try:
        ai_log = _outer(line)[0].ai_log
        said = any_json(ai_log.encode("utf-8", "replace")) if isinstance(ai_log, str) else ai_log
    except (ValueError, RecursionError):
        said = None
    texts = texts_from(said if isinstance(said, dict) else {})
    return Round(record, texts)


def _outer(line: bytes) -> tuple[_Outer, bool]:
    """Read the fields of a line; tell whether it contradicts itself. Raises ValueError."""
    try:
        outer = _decode_outer(line)
        if _FORM.has(line) or _is_plain(outer, line):  # the first nearly always
            return outer, False
    except (ValueError, RecursionError):  # msgspec's own and UnicodeDecodeError are the former
        outer = _Outer()
    # The template escapes ai_log only: a quote in a user agent breaks the line, but not its head,
    # and what follows that quote may be fields of the sender's own.
    call, is_first, ai_log = _CALL.search(line), False, outer.ai_log
    if call is not None:
        is_first, ai_log = line[: call.start()].strip() == b"{", any_json(call[1])
    elif isinstance(ai_log, dict):  # of a template that writes it as it is
        line = line.replace(bytes(_decode_object(line).ai_log), b"0", 1)
    else:
        raise ValueError("no log line")
    if not is_first and line.count(b'"ai_log"') > 1:
        raise ValueError("two calls, and nobody knows which is the sender's own")
    outer, is_told_twice = _settled(line, _Outer() if _SPELT.search(line) else outer)
    outer.ai_log = ai_log
    return outer, is_told_twice


def _is_plain(outer: _Outer, line: bytes) -> bool:
    """Tell whether each name in a line stands once, as templates write it, and is found."""
    if not _has_each_name_once(outer, line):
        return False
    _FORM.learn(line)
    return True


def _has_each_name_once(outer: _Outer, line: bytes) -> bool:
    if line.rfind(b'"ai_log"') == 1 and isinstance(outer.ai_log, str):
        names = _NAMED.findall(line, len(outer.ai_log))  # escaped, it is as long at least
    else:
        names = _NAMED.findall(b"," + line.lstrip()[1:])
    if len(set(names)) < len(names) or (line.rfind(b"\\u00") >= 0 and _SPELT.search(line)):
        return False
    if outer.consumer is None and b"consumer" in names:
        return False
    usual = outer.request_id is not None and outer.start_time is not None
    return usual or None not in [getattr(outer, _FIELD_OF[name]) for name in names]


def _settled(line: bytes, outer: _Outer) -> tuple[_Outer, bool]:
    """Complete fields by what a line tells once; tell whether it contradicts itself.

    Then somebody else than the gateway has written a part of it. Of what is told twice only the
    latest time is believed, since who backdates a call hides it from every report; and of what is
    told once only the id of the request, and the time.
    """
    told: dict[bytes, set[bytes]] = {}
    names = _FLAT.findall(line)
    for name, value in names:
        told.setdefault(name, set()).add(value)
    is_told_twice = [name for name, _ in names].count(b"ai_log") > 1
    is_told_twice |= any(len(values) > 1 for values in told.values())
    if is_told_twice:
        outer = _Outer()
    for name, values in told.items():
        field, texts = _FIELD_OF[name], [value.decode("utf-8", "replace") for value in values]
        if getattr(outer, field) is not None:
            continue
        if name in _TIMES:
            setattr(outer, field, _latest(texts))
        elif name == b"request_id" or not is_told_twice:
            setattr(outer, field, texts[0] if len(texts) == 1 else None)
    return outer, is_told_twice


_TIMES = (b"start_time", b"timestamp")


def _latest(texts: list[str]) -> str | None:
    """Return which of these tells the latest time; the only one, whatever it tells."""
    times: list[tuple[float, str]] = []
    for text in texts:
        with suppress(ContradictionError):
            times.append((at_s_of(text.strip()), text))
    return max(times)[1] if times else texts[0]


def _call(ai_log: object) -> _Call | None:
    if ai_log is None or ai_log in ("", "-"):
        return None
    if not isinstance(ai_log, str):
        return msgspec.convert(ai_log, _Call)
    try:
        return _decode_call(ai_log)
    except ValueError:
        return msgspec.convert(any_json(ai_log.encode("utf-8", "replace")), _Call)


def _usage(call: _Call) -> tuple[Buckets | None, tuple[str, ...]]:
    sent, received = count_of(call.input_token) or 0, count_of(call.output_token) or 0
    details = _details(call.input_token_details)
    if call.output_token_details is not None:
        details = {**_details(call.output_token_details), **details}
    if not _ANTHROPIC.isdisjoint(details):
        usage = _like_anthropic(sent, received, details)
    elif not _GEMINI.isdisjoint(details):
        usage = _like_gemini(sent, received, details)
        return (usage if usage.total else None), ()
    elif sent or received:
        usage = _like_openai(sent, received, _first_count(details, "cached_tokens", call))
        return _with_reasoning(usage, call, details)
    else:
        return None, ()
    return _with_reasoning(usage, call, details) if usage.total else (None, ())


_ANTHROPIC = frozenset({"cache_creation_input_tokens", "cache_read_input_tokens"})
_GEMINI = frozenset(
    {"cached_content_token_count", "tool_use_prompt_token_count", "thoughts_token_count"}
)


def _like_openai(sent: int, received: int, cached: int) -> Buckets:
    """Cached tokens are a part of the input."""
    if cached > sent:
        raise ContradictionError("more cached than sent")
    return Buckets(sent - cached, cached, 0, 0, received)


def _like_anthropic(sent: int, received: int, details: Mapping[str, Any]) -> Buckets:
    """Cache reads and writes lie outside the input; writes without a breakdown live 5 minutes."""
    written = count_of(details.get("cache_creation_input_tokens")) or 0
    lifetimes = _details(details.get("cache_creation"))
    hour = count_of(lifetimes.get("ephemeral_1h_input_tokens")) or 0
    minutes = count_of(lifetimes.get("ephemeral_5m_input_tokens")) or 0
    written = max(written, hour + minutes)
    return Buckets(
        input=sent,
        cache_read=count_of(details.get("cache_read_input_tokens")) or 0,
        cache_write_5m=written - hour,
        cache_write_1h=hour,
        output=received,
    )


def _like_gemini(sent: int, received: int, details: Mapping[str, Any]) -> Buckets:
    """Cached content is a part of the input; tool prompts and thoughts come on top."""
    cached = count_of(details.get("cached_content_token_count")) or 0
    tools = count_of(details.get("tool_use_prompt_token_count")) or 0
    thoughts = count_of(details.get("thoughts_token_count")) or 0
    if cached > sent:
        raise ContradictionError("more cached than sent")
    return Buckets(
        input=sent - cached + tools,
        cache_read=cached,
        output=received + thoughts,
        reasoning=thoughts,
    )


def _with_reasoning(
    usage: Buckets, call: _Call, details: Mapping[str, Any]
) -> tuple[Buckets, tuple[str, ...]]:
    if call.reasoning_tokens is call.reasoning is None and "reasoning_tokens" not in details:
        return usage, ()  # nearly always
    reasoning, outside = _first_count(details, "reasoning_tokens", call), 0
    flags: tuple[str, ...] = ()
    if reasoning > usage.output:
        # Some providers report reasoning beside the output: believe it if the total says so too.
        if count_of(call.total_token) != usage.prompt + usage.output + reasoning:
            raise ContradictionError("more reasoning than output")
        outside = reasoning
    elif not reasoning and isinstance(call.reasoning, str):
        reasoning = min(len(call.reasoning) // CHARS_PER_TOKEN, usage.output)
        flags = (ESTIMATED,) if reasoning else ()
    if reasoning:
        usage = usage + Buckets(output=outside, reasoning=reasoning)
    return usage, flags


def _first_count(details: Mapping[str, Any], name: str, call: _Call) -> int:
    count = count_of(details.get(name))
    return (count_of(getattr(call, name)) or 0) if count is None else count


def _details(value: object) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            return _decode_details(value)
        except (ValueError, RecursionError):
            pass
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}


def _session(outer: _Outer, owner: str) -> str:
    headers = (getattr(outer, name) for name in _NAMES)
    named = next(filter(None, map(text_of, headers)), "")
    # In one session for all, what one consumer used in a half hour would be told as another's.
    return named or (f"{DEFAULT_SESSION}:{owner}" if owner else DEFAULT_SESSION)


@lru_cache(KEPT)
def _agent(session: str) -> str:
    found = _AGENT.match(session)
    return found[1] if found else ""


@lru_cache(KEPT)
def _provider(cluster: str) -> str:
    found = _PROVIDER.search(cluster)
    return found[1] if found else ""


def _at_s(outer: _Outer) -> float:
    for text in (outer.start_time, outer.timestamp):
        if isinstance(text, str) and text not in ("", "-"):
            return at_s_of(text.strip())
    raise ContradictionError("no time")


class HigressReader(RotatingReader):
    """Reads one access log on, with the files that it was rotated into."""

    def __init__(
        self, path: str, session_key: str | None = None, *, with_rounds: bool = False
    ) -> None:
        told = parse_round if with_rounds else None
        super().__init__(SOURCE, parse_line, path, session_key, told)
