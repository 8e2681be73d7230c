"""What a line of a transcript of Claude Code says of usage, also where it is written oddly.

Invariant: what an ordinary line does not say costs no time: the steps of an answer are looked into
only where they say more than their sum, which the line tells anyway.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from meshnode.ingest.lenient import COUNT_MAX, ContradictionError, any_json, count_of, moment_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STEPS_MAX = 1000  # of one answer; a line that tells of more cannot be true
MESSAGE, ADVISOR = "message", "advisor_message"  # kinds of steps
_Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]  # other spellings are read leniently


class Lifetimes(msgspec.Struct, gc=False):
    """What was written into a cache, by how long it stays there."""

    ephemeral_5m_input_tokens: _Count = 0
    ephemeral_1h_input_tokens: _Count = 0


class Tools(msgspec.Struct, gc=False):
    """How often tools of the provider were used."""

    web_search_requests: _Count = 0


class Kind(msgspec.Struct, gc=False):
    """What a step is: all that is read of those that say nothing more than their answer does."""

    type: str | None = None


class Usage(msgspec.Struct, gc=False):
    """What an answer used: advisors that were asked for it are in its steps alone."""

    input_tokens: _Count = 0
    cache_creation_input_tokens: _Count = 0
    cache_read_input_tokens: _Count = 0
    output_tokens: _Count = 0
    cache_creation: Lifetimes | None = None
    server_tool_use: Tools | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None
    iterations: list[Kind] | None = None


class Step(Usage, gc=False):
    """What one of the steps that lead to an answer used, with whose model."""

    type: str | None = None
    model: str | None = None  # where it is another's than that of the answer


class Message(msgspec.Struct, gc=False):
    """An answer, or as much of it as there was."""

    id: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    usage: Usage | None = None


class Origin(msgspec.Struct, gc=False):
    """Where a fork's line was copied from."""

    sessionId: str | None = None  # noqa: N815 - Claude Code's name


class Line(msgspec.Struct, gc=False):
    """The part of a line that counts."""

    type: str | None = None
    isSidechain: bool = False  # noqa: N815 - Claude Code's name
    sessionId: str | None = None  # noqa: N815 - Claude Code's name
    requestId: str | None = None  # noqa: N815 - Claude Code's name
    forkedFrom: Origin | None = None  # noqa: N815 - Claude Code's name; of a line that a fork copied
    timestamp: _Moment | None = None
    cwd: str | None = None
    message: Message | None = None


decode = msgspec.json.Decoder(Line).decode


class _Steps(msgspec.Struct):
    iterations: list[Step] | None = None


class _StepsMessage(msgspec.Struct):
    usage: _Steps


class _StepsLine(msgspec.Struct):
    message: _StepsMessage


_decode_steps = msgspec.json.Decoder(_StepsLine).decode


def leniently(raw: bytes) -> Line:
    """Read a line with texts for numbers, nulls and broken characters; raises ValueError."""
    line = any_json(raw)
    if not isinstance(line, dict):
        return Line()
    message = line.get("message")
    if isinstance(message, dict) and isinstance(message.get("usage"), dict):
        said = Message(
            _text(message.get("id")),
            _text(message.get("model")),
            _text(message.get("stop_reason")),
            _lenient_usage(message["usage"]),
        )
    else:
        said = None
    origin = line.get("forkedFrom")
    return Line(
        type=_text(line.get("type")),
        isSidechain=line.get("isSidechain") in (True, "true"),
        sessionId=_text(line.get("sessionId")),
        requestId=_text(line.get("requestId")),
        forkedFrom=Origin(_text(origin.get("sessionId"))) if isinstance(origin, dict) else None,
        timestamp=_moment(line.get("timestamp")),
        cwd=_text(line.get("cwd")),
        message=said,
    )


def is_worth_a_look(kinds: Sequence[Kind]) -> bool:
    """Tell whether steps say more than their answer does, which is the sum of one model's."""
    return len(kinds) > 1 or kinds[0].type == ADVISOR


def steps_of(raw: bytes) -> Sequence[Step]:
    """Read the steps of a line's answer; raises ContradictionError and ValueError."""
    try:
        steps = _decode_steps(raw).message.usage.iterations or []
    except ValueError:
        steps = [
            Step(*_counts(one), type=_text(one.get("type")), model=_text(one.get("model")))
            for one in _maps(any_json(raw)["message"]["usage"].get("iterations"))
        ]
    if len(steps) > STEPS_MAX:
        raise ContradictionError("more steps than an answer takes")
    return steps


def _lenient_usage(usage: Mapping[str, Any]) -> Usage:
    kinds = [Kind(_text(one.get("type"))) for one in _maps(usage.get("iterations"))]
    return Usage(*_counts(usage), kinds)


_Text = str | None
_Counts = tuple[int, int, int, int, Lifetimes | None, Tools | None, _Text, _Text, _Text]


def _maps(listed: object) -> list[dict[str, Any]]:
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def _counts(usage: Mapping[str, Any]) -> _Counts:
    """Return the fields of a Usage, but for its steps."""

    def count(name: str, of: Mapping[str, Any] = usage) -> int:
        return count_of(of.get(name)) or 0

    lifetimes, tools = usage.get("cache_creation"), usage.get("server_tool_use")
    return (
        count("input_tokens"),
        count("cache_creation_input_tokens"),
        count("cache_read_input_tokens"),
        count("output_tokens"),
        Lifetimes(
            count("ephemeral_5m_input_tokens", lifetimes),
            count("ephemeral_1h_input_tokens", lifetimes),
        )
        if isinstance(lifetimes, dict)
        else None,
        Tools(count("web_search_requests", tools)) if isinstance(tools, dict) else None,
        _text(usage.get("service_tier")),
        _text(usage.get("speed")),
        _text(usage.get("inference_geo")),
    )


def _moment(value: object) -> datetime | None:
    try:
        return moment_of(value) if isinstance(value, str) else None
    except ContradictionError:
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
