"""Lines that somebody wrote to bring a reader down."""

import json

from meshnode.ingest.higress import parse_line
from meshnode.ingest.reading import Skipped

CALL = {"session_id": "s", "model": "m", "input_token": 5, "output_token": 5}


def outer(call: dict[str, object]) -> bytes:
    at = "2026-11-20T10:00:00Z"
    return json.dumps({"ai_log": json.dumps(call), "request_id": "r", "start_time": at}).encode()


def test_details_nested_deeper_than_any_stack_are_no_details():
    nest = '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"
    found = parse_line(outer(CALL | {"input_token_details": nest}))
    assert not isinstance(found, Skipped)
    assert (found.usage.input, found.usage.output) == (5, 5)


def test_a_long_name_in_a_broken_line_is_passed_over_in_one_go():
    """Once this took time with the square of its length: minutes for what one request may send."""
    head = b'{"ai_log":' + json.dumps(json.dumps(CALL)).encode()
    tail = b',"request_id":"r","start_time":"2026-11-20T10:00:00Z"}'
    found = parse_line(head + b',"agent":"a"b"x-' + b"a" * 500_000 + b'"' + tail)
    assert not isinstance(found, Skipped)
    assert found.idem_key == "higress:r"
