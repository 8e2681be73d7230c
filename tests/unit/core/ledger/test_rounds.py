import json

import pytest

from meshnode.core.errors import PeerError
from meshnode.core.ledger.rounds import (
    ANSWER_BYTES_MAX,
    CUT_MARK,
    MESSAGES_MAX,
    ROUND_BYTES_MAX,
    TOOL_CALLS_MAX,
    Message,
    head_from_json,
    line_from_json,
    texts_from,
    texts_from_bytes,
    texts_to_bytes,
)

WEATHER = {"name": "get_weather", "arguments": '{"location":"Beijing"}'}
CALL = {"index": 0, "id": "call_abc123", "type": "function", "function": WEATHER}


def test_what_the_monitor_kept_is_kept():
    texts = texts_from(
        {
            "response_type": "normal",
            "messages": [{"role": "user", "content": "Check Beijing weather"}],
            "question": "Check Beijing weather",
            "answer": "Checking…",
            "reasoning": "I need the API.",
            "tool_calls": [CALL],
            "input_token_details": {"cached_tokens": 0},
            "output_token_details": "{}",
        }
    )
    [call] = texts.tool_calls
    assert (call.id, call.function.name, call.function.arguments) == (
        "call_abc123",
        WEATHER["name"],
        WEATHER["arguments"],
    )
    assert texts.messages == (Message("user", "Check Beijing weather"),)
    assert (texts.question, texts.answer, texts.reasoning, texts.cut) == (
        "Check Beijing weather",
        "Checking…",
        "I need the API.",
        (),
    )
    assert (texts.response_type, texts.input_token_details) == ("normal", {"cached_tokens": 0})


def test_a_gateway_may_write_lists_as_texts_and_content_in_parts():
    parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    said = {
        "messages": json.dumps([{"role": "user", "content": parts}]),
        "tool_calls": json.dumps([CALL]),
    }
    texts = texts_from(said)
    assert texts.messages == (Message("user", "look\n[image_url]"),)
    assert texts.tool_calls[0].function.name == "get_weather"


def test_an_answer_of_five_mebibytes_is_cut_and_says_so():
    texts = texts_from({"question": "q", "answer": "é" * (5 << 19)})
    assert texts.cut == ("answer",)
    assert texts.answer.endswith(CUT_MARK)
    assert ANSWER_BYTES_MAX - 2 <= len(texts.answer.encode()) <= ANSWER_BYTES_MAX
    assert texts.question == "q"


def test_of_many_messages_the_newest_stay():
    said = [{"role": "user", "content": f"{number} " + "x" * 1000} for number in range(3000)]
    texts = texts_from({"messages": said})
    assert texts.messages[-1].content.startswith("2999 ")
    assert texts.messages_left_out == 3000 - len(texts.messages)
    assert "messages" in texts.cut
    short = texts_from({"messages": [{"role": "", "content": ""}] * (MESSAGES_MAX + 1)})
    assert (len(short.messages), short.messages_left_out) == (MESSAGES_MAX, 1)


def test_many_large_tool_calls_leave_room_for_what_was_asked():
    large = {"function": {"name": "n" * 9999, "arguments": "a" * 99_999}}
    texts = texts_from(
        {"tool_calls": [large] * 200, "messages": [{"role": "user", "content": "?"}]}
    )
    assert len(texts.tool_calls) == TOOL_CALLS_MAX
    assert "tool_calls" in texts.cut
    assert texts.messages == (Message("user", "?"),)
    assert len(texts_to_bytes(texts)) <= ROUND_BYTES_MAX


@pytest.mark.parametrize(
    "said", [b"", b"\xff", b"[]", b'{"round":-1}', b'{"round":"1"}', b"[" * 9999]
)
def test_what_is_no_round_is_the_owners_fault(said: bytes):
    for decode in (line_from_json, head_from_json, texts_from_bytes):
        with pytest.raises(PeerError):
            decode(said)
