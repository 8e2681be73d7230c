"""Rounds of a conversation: what was asked and answered in one response, kept where it was read.

Invariant: the texts of a round are at most ROUND_BYTES_MAX bytes, however long they were; which of
them were cut is said. Rounds are never replicated: their owner shows them to who may read messages.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from meshnode.core.errors import PeerError

if TYPE_CHECKING:
    from collections.abc import Mapping

ROUND_BYTES_MAX = 256 << 10  # as kept; longer texts are cut, and messages left out
QUESTION_BYTES_MAX = 32 << 10
ANSWER_BYTES_MAX = 64 << 10  # of the reasoning too
ARGUMENTS_BYTES_MAX = 16 << 10  # of one tool call
NAME_BYTES_MAX = 256
MESSAGES_MAX = 1000
TOOL_CALLS_MAX = 64
DETAILS_MAX = 32
PARTS_MAX = 256  # of one message
CUT_MARK = " … [cut]"
ROUNDS = "rounds"  # what a reading asks for instead of output
LINE_BYTES_MAX = 6 * ROUND_BYTES_MAX + (1 << 16)  # JSON takes six bytes for some characters
_SPARE_BYTES = 64 << 10  # for the names of fields, of all messages and calls

Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class Message(msgspec.Struct, frozen=True):
    """What somebody said; parts that are no text are named in brackets."""

    role: str = ""
    content: str = ""


class Function(msgspec.Struct, frozen=True):
    """What a tool call calls; the arguments are JSON, as the model wrote them."""

    name: str = ""
    arguments: str = ""


class ToolCall(msgspec.Struct, frozen=True):
    """A call that the model asked for."""

    index: Count = 0
    id: str = ""
    type: str = "function"
    function: Function = Function()


class Texts(msgspec.Struct, frozen=True, kw_only=True):
    """What was said in a round; `cut` names the fields that were longer."""

    response_type: str = ""
    messages: tuple[Message, ...] = ()
    messages_left_out: Count = 0  # the oldest ones
    question: str = ""
    answer: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    input_token_details: dict[str, int] = {}
    output_token_details: dict[str, int] = {}
    cut: tuple[str, ...] = ()


class RoundLine(msgspec.Struct, frozen=True, kw_only=True):
    """A round as it is shown, in the layout of the Higress monitor; texts may be left out.

    `kept` tells whether the owner has the texts; times are RFC 3339, money is a decimal string.
    """

    round: Count
    timestamp: str
    input_tokens: Count
    output_tokens: Count
    reasoning_tokens: Count
    cached_tokens: Count  # read from caches
    model: str
    cache_write_tokens: Count = 0  # both in `input_tokens`; 0 also of an owner that does not tell
    cost_usd: str | None = None
    has_tool_calls: bool = False
    response_type: str = ""
    input_token_details: dict[str, int] = {}
    output_token_details: dict[str, int] = {}
    kept: bool = False
    cut: tuple[str, ...] = ()
    messages: tuple[Message, ...] | UnsetType = UNSET
    messages_left_out: Count | UnsetType = UNSET
    question: str | UnsetType = UNSET
    answer: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: tuple[ToolCall, ...] | UnsetType = UNSET


class RoundsHead(msgspec.Struct, frozen=True, kw_only=True):
    """What comes before the lines: how many rounds the session had, and how many will follow."""

    rounds: Count
    following: Count


def texts_from(said: Mapping[str, object]) -> Texts:
    """Keep what a log says under the names of `Texts`, whatever its types, as far as it fits."""
    room = _Room(ROUND_BYTES_MAX - _SPARE_BYTES)
    response_type = room.text("response_type", said.get("response_type"), NAME_BYTES_MAX)
    question = room.text("question", said.get("question"), QUESTION_BYTES_MAX)
    answer = room.text("answer", said.get("answer"), ANSWER_BYTES_MAX)
    reasoning = room.text("reasoning", said.get("reasoning"), ANSWER_BYTES_MAX)
    tool_calls = _tool_calls(said.get("tool_calls"), room)
    messages, left_out = _messages(said.get("messages"), room)
    return Texts(
        response_type=response_type,
        messages=messages,
        messages_left_out=left_out,
        question=question,
        answer=answer,
        reasoning=reasoning,
        tool_calls=tool_calls,
        input_token_details=_details(said.get("input_token_details")),
        output_token_details=_details(said.get("output_token_details")),
        cut=tuple(sorted(room.cut)),
    )


def texts_to_bytes(texts: Texts) -> bytes:
    """Encode: at most ROUND_BYTES_MAX bytes of MessagePack."""
    return msgspec.msgpack.encode(texts)


def texts_from_bytes(packed: bytes) -> Texts:
    """Decode; raises PeerError."""
    try:
        return _decode_texts(packed)
    except (ValueError, RecursionError) as error:
        raise PeerError("not the texts of a round") from error


def line_from_json(line: bytes) -> RoundLine:
    """Decode what an owner sent; raises PeerError."""
    try:
        return _decode_line(line)
    except (ValueError, RecursionError) as error:
        raise PeerError("the owner sent something that is no round") from error


def head_from_json(line: bytes) -> RoundsHead:
    """Decode what an owner sent first; raises PeerError."""
    try:
        return _decode_head(line)
    except (ValueError, RecursionError) as error:
        hint = "it may run an older version: session-mesh nodes --verbose shows which"
        raise PeerError("the owner does not answer with rounds", hint) from error


_decode_texts = msgspec.msgpack.Decoder(Texts).decode
_decode_line = msgspec.json.Decoder(RoundLine).decode
_decode_head = msgspec.json.Decoder(RoundsHead).decode


class _Room:
    """How many bytes of a round are left, and what did not fit."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.cut: set[str] = set()

    def text(self, name: str, value: object, bytes_max: int) -> str:
        """Take a text, or its beginning and a mark."""
        text = _plain(value)
        most = max(min(bytes_max, self.left), 0)
        raw = text[: most + 1].encode("utf-8", "replace")
        if len(raw) > most:
            self.cut.add(name)
            kept = max(most - len(CUT_MARK.encode()), 0)
            raw = raw[:kept] + CUT_MARK.encode()[: most - kept]
        self.left -= len(raw)
        return raw.decode("utf-8", "ignore")


def _messages(value: object, room: _Room) -> tuple[tuple[Message, ...], int]:
    """Keep the newest messages: each round repeats those of the rounds before it."""
    found = [one for one in _listed(value) if isinstance(one, dict)]
    kept: list[Message] = []
    for one in reversed(found):
        if len(kept) == MESSAGES_MAX or room.left <= NAME_BYTES_MAX:
            room.cut.add("messages")
            break
        role = room.text("messages", one.get("role"), NAME_BYTES_MAX)
        kept.append(Message(role, room.text("messages", one.get("content"), room.left)))
    return tuple(reversed(kept)), len(found) - len(kept)


def _tool_calls(value: object, room: _Room) -> tuple[ToolCall, ...]:
    found = [one for one in _listed(value) if isinstance(one, dict)]
    half = _Room(room.left // 2)  # the other half stays for the messages
    if len(found) > TOOL_CALLS_MAX:
        half.cut.add("tool_calls")
    calls: list[ToolCall] = []
    for number, one in enumerate(found[:TOOL_CALLS_MAX]):
        function = one.get("function")
        called: Mapping[str, Any] = function if isinstance(function, dict) else {}
        calls.append(
            ToolCall(
                number,
                half.text("tool_calls", one.get("id"), NAME_BYTES_MAX),
                half.text("tool_calls", one.get("type") or "function", NAME_BYTES_MAX),
                Function(
                    half.text("tool_calls", called.get("name"), NAME_BYTES_MAX),
                    half.text("tool_calls", called.get("arguments"), ARGUMENTS_BYTES_MAX),
                ),
            )
        )
    room.left -= room.left // 2 - half.left
    room.cut |= half.cut
    return tuple(calls)


def _details(value: object) -> dict[str, int]:
    if isinstance(value, str):
        value = _json(value)
    if not isinstance(value, dict):
        return {}
    counts = ((name, count) for name, count in value.items() if type(count) is int)
    named = [
        (str(name)[:64].encode("utf-8", "replace").decode(), count)
        for name, count in counts
        if 0 <= count < 1 << 53
    ]
    return dict(named[:DETAILS_MAX])


def _plain(value: object) -> str:
    """Return a text, the texts of a message's parts, or the JSON of what is neither."""
    match value:
        case None:
            return ""
        case str():
            return value
        case list():
            return "\n".join(map(_part, value[:PARTS_MAX]))
        case _:
            return _dumped(value)


def _part(part: object) -> str:
    if isinstance(part, dict):
        text = part.get("text")
        return text if isinstance(text, str) else f"[{str(part.get('type', 'part'))[:64]}]"
    return part if isinstance(part, str) else _dumped(part)


def _dumped(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return ""


def _listed(value: object) -> list[Any]:
    """Return a list, also one that a gateway wrote as a text."""
    if isinstance(value, str):
        value = _json(value)
    return value if isinstance(value, list) else []


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
