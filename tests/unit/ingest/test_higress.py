import re
from pathlib import Path

import yaml

from meshnode.core.ledger.ledger import Buckets, UsageRecord
from meshnode.ingest.higress import TOLD_TWICE, parse_line
from meshnode.ingest.reading import Reason, Skipped

GOLDEN = Path(__file__).parents[2] / "golden" / "higress"
MANUAL = Path(__file__).parents[3] / "docs" / "usage.md"


def golden(name: str) -> list[UsageRecord | Skipped]:
    lines = (GOLDEN / f"{name}.log").read_bytes().splitlines()
    return [parse_line(line, "", "f", offset) for offset, line in enumerate(lines)]


def records(name: str) -> list[UsageRecord]:
    return [found for found in golden(name) if isinstance(found, UsageRecord)]


def reasons(name: str) -> list[Reason]:
    return [found.reason for found in golden(name) if isinstance(found, Skipped)]


CACHED = Buckets(input=600, cache_read=400, output=100)


def test_a_plain_line_is_a_record():
    [found] = golden("plain")
    assert found == UsageRecord(
        idem_key="higress:r1",
        source="higress",
        at_s=1769938215.123,
        session="s1",
        project="",
        agent="",
        owner="",
        model="gpt-4o",
        provider="",
        tier="standard",
        usage=CACHED,
    )


def test_a_quote_in_the_user_agent_does_not_lose_the_line():
    assert golden("quote_in_user_agent") == golden("plain")


def test_numbers_may_be_strings():
    assert golden("strings_for_numbers") == golden("plain")


def test_details_may_be_an_object():
    [found] = records("details_as_object")
    assert found.usage == CACHED + Buckets(reasoning=60)
    assert found.flags == ()


def test_the_cache_of_anthropic_lies_outside_the_input():
    whole, split = records("anthropic")
    assert whole.usage == Buckets(input=3, cache_read=22137, cache_write_5m=2285, output=159)
    assert split.usage == Buckets(input=3, cache_write_5m=285, cache_write_1h=2000, output=159)


def test_gemini_thinks_and_prompts_its_tools_on_top():
    [found] = records("gemini")
    assert found.usage == Buckets(input=650, cache_read=400, output=170, reasoning=70)


def test_reasoning_that_nobody_counted_is_estimated_and_flagged():
    [found] = records("reasoning_estimated")
    assert found.usage == Buckets(input=10, output=100, reasoning=50)
    assert found.flags == ("reasoning_estimated",)


def test_reasoning_beside_the_output_is_billed_output_if_the_total_says_so():
    [found] = records("reasoning_beside_output")
    assert found.usage == Buckets(input=10, output=105, reasoning=100)


def test_a_failed_call_has_no_usage():
    assert golden("failed_call") == [Skipped(Reason.NO_USAGE, "s1")]


def test_caches_and_tool_prompts_are_usage_without_any_other():
    assert [found.usage for found in records("cache_alone")] == [
        Buckets(cache_read=500, cache_write_5m=70),
        Buckets(input=50),
    ]
    assert reasons("cache_alone") == [Reason.NO_USAGE] * 3


def test_a_request_that_called_no_model_is_nothing():
    assert reasons("no_model_call") == [Reason.NOT_A_CALL] * 3


def test_what_is_no_log_line_is_counted_as_such():
    assert reasons("no_log_line") == [Reason.UNPARSABLE] * 3


def test_a_record_that_contradicts_itself_is_set_aside():
    assert golden("contradictions") == [Skipped(Reason.QUARANTINED, "s1")] * 5


def test_session_headers_are_tried_in_their_order():
    found = [record.session for record in records("session_headers")]
    assert found == ["third", "second", "agent:main:discord:channel:1", "default", "fifth"]
    assert records("session_headers")[2].agent == "main"


def test_without_a_session_consumers_have_one_each():
    found = [(record.session, record.owner) for record in records("consumers")]
    assert found == [
        ("default:bob", "bob"),
        ("default:alice", "alice"),
        ("default", ""),
        ("s1", "bob"),
    ]


def test_a_call_is_known_by_its_request_then_its_chat_then_its_place():
    first, second, third = (record.idem_key for record in records("keys"))
    assert (first, second) == ("higress:r1", "higress:chatcmpl-1")
    assert third.startswith("higress:f:2:")


def test_of_what_a_line_tells_twice_only_the_call_itself_is_believed():
    """What a caller sends stands unescaped in the line: in its path, in its user agent."""
    found = records("told_twice")
    assert [(one.session, one.owner, one.usage) for one in found] == [("s1", "mallory", CACHED)] * 9
    twice = [f"higress:chatcmpl-{number}" for number in (1, 2, 3)]
    assert [one.idem_key for one in found[:3]] == twice
    assert [one.idem_key for one in found[3:]] == [
        "higress:r4",  # a name that is written otherwise is nobody's
        "higress:r5",  # another call behind the line's own
        "higress:chatcmpl-6",
        "higress:r7",  # what was hidden is found
        "higress:chatcmpl-8",
        "higress:chatcmpl-9",  # the end of what is sent may be the name before our own
    ]
    assert {one.at_s for one in found} == {1769938215.123}
    assert [number for number, one in enumerate(found, 1) if one.flags == (TOLD_TWICE,)] == [
        *(1, 2, 3, 5, 6, 8, 9)
    ]


def test_what_is_told_twice_alike_is_believed():
    found = records("told_twice_alike")
    assert [(one.idem_key, one.flags) for one in found] == [("higress:r1", ()), ("higress:r2", ())]


def test_of_two_calls_in_one_line_the_one_at_its_start_counts_or_none():
    line = (GOLDEN / "told_twice.log").read_bytes().splitlines()[4]
    moved = b'{"authority":"-",' + line.removeprefix(b"{")
    assert parse_line(moved) == Skipped(Reason.UNPARSABLE)


def test_a_user_agent_nested_deeper_than_any_stack_hides_no_call():
    nest = b'a","z":' + b"[" * 100_000 + b"]" * 100_000 + b',"w":"'
    line = (GOLDEN / "plain.log").read_bytes().replace(b"curl/8", nest)
    assert parse_line(line, "", "f", 0) == golden("plain")[0]


def test_the_example_of_the_monitor_is_read():
    [found] = records("seed_example")
    assert (found.session, found.model) == ("sess_abc", "Qwen3-rerank")
    assert found.usage == Buckets(input=250, output=160)


def test_ai_log_may_be_an_object_and_times_have_zones():
    [plain], [found] = records("plain"), records("ai_log_as_object")
    assert (found.at_s, found.usage) == (plain.at_s, plain.usage)
    assert (found.owner, found.provider) == ("alice", "azure")


def test_the_length_of_a_prompt_is_in_the_tier():
    [found] = records("prompt_length")
    assert found.tier == "priority>200000"


def test_raw_control_characters_and_broken_utf8_do_not_lose_a_call():
    line = (GOLDEN / "plain.log").read_bytes()
    [plain] = golden("plain")
    assert parse_line(line.replace(b"curl/8", b"curl\xff")) == plain
    assert parse_line(line.replace(b'\\"response_type', b'\\"answer\\":\\"a\tb\\",\\"x')) == plain


def test_a_very_long_request_id_is_hashed():
    line = (GOLDEN / "plain.log").read_bytes().replace(b'"r1"', b'"' + b"r" * 9999 + b'"')
    found = parse_line(line)
    assert isinstance(found, UsageRecord)
    assert len(found.idem_key) == len("higress:") + 64


def test_the_template_in_the_manual_writes_the_line_beside_it_and_all_of_that_is_read():
    block = r"```yaml\n(accessLogFormat.*?)```\n\n```json\n(.*?)\n```"
    [(template, line)] = re.findall(block, MANUAL.read_text(), re.DOTALL)
    parts = re.split(r"%[A-Z_]+(?:\([^)]*\))?%", yaml.safe_load(template)["accessLogFormat"])
    assert re.fullmatch("(.+)".join(map(re.escape, parts)), line)
    assert parse_line(line.encode()) == UsageRecord(
        idem_key="higress:5895f5a9-e4e3-425b-98db-6c6a926195b7",
        source="higress",
        at_s=1795167015.123,
        session="review-7",
        project="",
        agent="",
        owner="olga",
        model="gpt-4o",
        provider="openai",
        tier="standard",
        usage=CACHED,
    )
