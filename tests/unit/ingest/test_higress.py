import gzip
import os
from pathlib import Path

import pytest

from meshnode.core.ledger import Buckets, Diagnostics, UsageRecord
from meshnode.ingest.higress import HigressReader, parse_line
from meshnode.ingest.reading import LINE_BYTES_MAX, Reading, Reason, Skipped
from meshnode.ingest.rotation import FILES_MAX, OPEN_FILES_MAX, POSITION

GOLDEN = Path(__file__).parents[2] / "golden" / "higress"
ALL = 1 << 30


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


def call(number: int, session: str = "s1") -> bytes:
    line = (GOLDEN / "plain.log").read_bytes().replace(b'"r1"', b'"r%d"' % number)
    return line.replace(b'\\"s1\\"', b'\\"%s\\"' % session.encode())


class Log:
    """A log in a directory, and a reader that goes on from its own position."""

    def __init__(self, directory: Path, session_key: str | None = None) -> None:
        self.path = directory / "access.log"
        self.reader = HigressReader(str(self.path), session_key)
        self.places: dict[bytes, bytes] = {}

    def write(self, *lines: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(b"".join(lines))

    def read(self, bytes_max: int = ALL) -> Reading:
        reading = self.reader.read(self.places, bytes_max)
        self.places |= reading.batch.places
        return reading

    def keys(self, bytes_max: int = ALL) -> list[str]:
        return [
            record.idem_key.removeprefix("higress:")
            for record in self.read(bytes_max).batch.records
        ]

    def rename(self, name: str) -> Path:
        return self.path.rename(self.path.with_name(name))


@pytest.fixture
def log(tmp_path: Path):
    log = Log(tmp_path)
    yield log
    log.reader.close()


def test_only_what_is_new_is_read(log: Log):
    log.write(call(1), call(2))
    assert log.keys() == ["r1", "r2"]
    assert log.keys() == []
    log.write(call(3))
    assert log.keys() == ["r3"]


def test_a_partial_line_waits_for_its_end(log: Log):
    log.write(call(1), call(2)[:50])
    reading = log.read()
    assert len(reading.batch.records) == 1
    assert reading.batch.diagnostics == Diagnostics(partial_tail_bytes=50)
    log.write(call(2)[50:])
    assert log.keys() == ["r2"]


def test_a_first_line_without_end_waits_too(log: Log):
    log.write(call(1)[:-1])
    assert log.read().batch.diagnostics.partial_tail_bytes == len(call(1)) - 1
    log.write(b"\n")
    assert log.keys() == ["r1"]


def test_a_call_reads_no_more_than_its_budget_or_one_line(log: Log):
    log.write(*(call(number) for number in range(10, 20)))
    reading = log.read(3 * len(call(10)))
    assert (len(reading.batch.records), reading.more) == (3, True)
    assert log.keys(1) == ["r13"]
    assert len(log.read().batch.records) == 6
    assert not log.read().more


def test_a_missing_file_is_waited_for(log: Log):
    assert log.read().detail == f"waiting for {log.path}: it does not exist yet"
    log.write(call(1))
    reading = log.read()
    assert (len(reading.batch.records), reading.detail) == (1, "ok")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_we_may_not_read_is_told_in_a_sentence(log: Log):
    log.write(call(1))
    log.path.chmod(0)
    assert log.read().detail.startswith(f"cannot read {log.path}: let this user read it")


def test_a_refused_file_is_told_in_a_sentence(log: Log, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    log.write(call(1))
    monkeypatch.setattr(Path, "open", refuse)
    assert log.read().detail.startswith(f"cannot read {log.path}: let this user read it")


def test_what_is_no_file_is_not_opened(log: Log):
    os.mkfifo(log.path)
    assert log.read().detail == f"{log.path} is no file"


def test_a_renamed_log_is_read_to_its_end(log: Log):
    log.write(call(1))
    assert log.keys() == ["r1"]
    log.write(call(2))
    renamed = log.rename("access.log.1")
    log.write(call(3))
    assert log.keys() == ["r2", "r3"]
    with renamed.open("ab") as late:
        late.write(call(4))
    assert log.keys() == ["r4"]


def test_a_log_renamed_to_any_name_or_deleted_is_read_to_its_end(log: Log):
    log.write(call(1))
    log.keys()
    log.write(call(2))
    renamed = log.rename("elsewhere")
    assert log.keys() == ["r2"]
    with renamed.open("ab") as late:
        late.write(call(3))
    log.write(call(4))
    assert log.keys() == ["r4", "r3"]
    renamed.unlink()
    assert log.keys() == []
    assert len(log.reader._held) == 1


def test_open_files_are_few(log: Log):
    for number in range(10):
        log.write(call(number))
        log.keys()
        log.rename(f"elsewhere{number}")
    assert len(log.reader._held) <= OPEN_FILES_MAX


def test_two_rotations_between_two_readings_lose_nothing(log: Log):
    log.write(call(1))
    log.keys()
    log.write(call(2))
    log.rename("access.log.1").rename(log.path.with_name("access.log.2"))
    log.write(call(3))
    log.rename("access.log.1")
    log.write(call(4))
    assert sorted(log.keys()) == ["r2", "r3", "r4"]


def test_a_copied_and_truncated_log_is_read_on_in_both(log: Log):
    log.write(call(1))
    log.keys()
    log.write(call(2))
    log.path.with_name("access.log.1").write_bytes(log.path.read_bytes())
    log.path.write_bytes(b"")
    log.write(call(3))
    assert log.keys() == ["r2", "r3"]


def test_a_truncated_log_that_has_outgrown_its_past_is_read_from_its_start(log: Log):
    log.write(call(1))
    log.keys()
    log.path.write_bytes(call(2) + call(3) + call(4))
    assert log.keys() == ["r2", "r3", "r4"]


def test_logs_that_all_begin_alike_are_told_apart(log: Log):
    log.write(b"header\n", call(1), call(2))
    assert log.keys() == ["r1", "r2"]
    log.path.write_bytes(b"header\n" + call(3) + call(4) + call(5))
    assert log.keys() == ["r3", "r4", "r5"]


def test_dated_and_packed_logs_are_read_once(log: Log):
    log.write(call(1))
    log.keys()
    log.write(call(2))
    dated = log.rename("access.log-20260201")
    packed = dated.with_name(f"{dated.name}.gz")
    packed.write_bytes(gzip.compress(dated.read_bytes()))
    dated.unlink()
    dated.with_name("access-20260131.log").write_bytes(call(3))
    dated.with_name("access.log.bak").write_bytes(call(4))
    log.write(call(5))
    assert sorted(log.keys()) == ["r2", "r3", "r5"]
    assert log.keys() == []
    assert log.keys() == []


def test_a_damaged_archive_is_told_and_the_log_is_read_all_the_same(log: Log):
    packed = gzip.compress(call(1) * 50)
    log.path.with_name("access.log.2.gz").write_bytes(packed[: len(packed) // 2])
    log.write(call(2))
    reading = log.read()
    assert [record.idem_key for record in reading.batch.records] == ["higress:r2"]
    assert "access.log.2.gz" in reading.detail


def test_after_losing_the_position_the_same_records_come_again(log: Log):
    log.write(call(1), call(2).replace(b'"r2"', b'"-"').replace(b"chatcmpl-1", b"-"))
    log.rename("access.log.1")
    log.write(call(3))
    before = log.read().batch.records
    log.places = {POSITION: b"\xc1 damaged"}
    assert log.read().batch.records == before


def test_a_line_over_a_mebibyte_is_skipped_and_counted_once(log: Log):
    log.write(call(1), b"x" * (LINE_BYTES_MAX + 1))
    reading = log.read(1000)
    assert (len(reading.batch.records), reading.batch.diagnostics.unparsable_lines) == (1, 0)
    assert log.read(1000).batch.diagnostics.unparsable_lines == 1
    log.write(b"x" * 5000)
    assert log.read(1000).batch.diagnostics == Diagnostics()
    log.write(b"\n", call(2))
    assert log.keys() == ["r2"]


def test_a_long_line_read_at_once_is_skipped_as_well(log: Log):
    log.write(call(1), b"x" * (LINE_BYTES_MAX + 1), b"\n", call(2))
    reading = log.read()
    assert (len(reading.batch.records), reading.batch.diagnostics.unparsable_lines) == (2, 1)


def test_a_log_may_begin_with_a_long_line(log: Log):
    log.write(b"x" * (LINE_BYTES_MAX + 9), b"\n", call(1))
    reading = log.read()
    assert (len(reading.batch.records), reading.batch.diagnostics.unparsable_lines) == (1, 1)


def test_a_session_key_counts_that_session_only(tmp_path: Path):
    log = Log(tmp_path, "s2")
    log.write(call(1), call(2, "s2"), (GOLDEN / "failed_call.log").read_bytes(), b"no line\n")
    reading = log.read()
    log.reader.close()
    assert [record.session for record in reading.batch.records] == ["s2"]
    assert reading.batch.diagnostics == Diagnostics(unparsable_lines=1)


def test_another_filter_is_another_reader(tmp_path: Path):
    path = str(tmp_path / "access.log")
    assert HigressReader(path).key == HigressReader(path).key
    assert HigressReader(path).key != HigressReader(path, "s1").key


def test_the_position_stays_small_with_many_rotated_files(log: Log):
    for number in range(2 * FILES_MAX + 9):
        log.path.with_name(f"access.log.{number}").write_bytes(call(number))
    assert len(log.read().batch.records) == FILES_MAX
    assert len(log.places[POSITION]) < 128 * 2 * FILES_MAX
