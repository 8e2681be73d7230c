"""Rollouts of Codex, each trap of the format as lines written by hand."""

import json
import os
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from rollouts import (
    FIRST,
    GOLDEN,
    SECOND,
    START,
    THIRD,
    Counted,
    Rollout,
    minus,
    read_file,
    read_lines,
    usage,
)

from meshnode.core.ledger.ledger import Buckets
from meshnode.core.ledger.tiers import tier_of
from meshnode.ingest.codex import CodexParser, Rollouts, _State
from meshnode.ingest.reading import Findings, Reason
from meshnode.ingest.sources import SOURCES
from meshnode.ingest.tree import TreeReader
from meshnode.store import ledger, usage_log

LANES = _State.__struct_fields__.index("lanes")
KEYS_OF_TWO_LIMITS = [  # as they were when each telling counted: reading anew must double nothing
    "ae4b76fa2d5ec9dfe0cb2439275e8495",
    "b996b803691f32b73a67a9f4b7329db1",
    "912a01732baa49a9cedaba538a031963",
]


def test_the_last_usage_counts_cached_inside_input_and_reasoning_inside_output(root: Path):
    path = Rollout(root, "s1").model("gpt-5-codex").count(FIRST, FIRST).path
    [record] = read_file(path).records
    assert record.usage == Buckets(input=600, cache_read=400, output=50, reasoning=10)
    assert (record.session, record.project, record.model) == ("s1", "shop", "gpt-5-codex")
    assert (record.provider, record.at_s) == ("openai", (START + timedelta(seconds=2)).timestamp())


LOST = [b"", b"\0\0\0\n", b'garbage "session_meta"\n', b'{"type":"session_meta","payload":{}}\n']


@pytest.mark.parametrize("head", LOST)
def test_a_session_whose_first_line_is_lost_is_known_by_the_name_of_its_file(
    tmp_path: Path, head: bytes
):
    name = "0197c1f0-aaaa-7bbb-8ccc-0123456789ab"
    intact = Rollout(tmp_path / "a", f"2026-11-20T09-30-00-{name}", id=name)
    intact.model("gpt-5").count(FIRST, FIRST).count(SECOND)
    other = Rollout(tmp_path / "a", "of-another").count(THIRD, THIRD)
    whole = [read_file(one.path).records for one in (intact, other)]
    for rollout in (intact, other):
        _, _, rest = rollout.path.read_bytes().partition(b"\n")
        rollout.path.write_bytes(head + rest)
    found = [read_file(one.path).records for one in (intact, other)]
    assert [[one.usage for one in some] for some in found] == [
        [one.usage for one in some] for some in whole
    ]
    assert [one.idem_key for one in found[0]] == [one.idem_key for one in whole[0]]
    assert {one.session for one in found[0]} == {name}
    assert {one.session for one in found[1]} == {"rollout-of-another.jsonl"}
    assert len({one.idem_key for some in found for one in some}) == 3


def test_what_was_written_into_a_cache_is_a_part_of_the_input(root: Path):
    first, second = (*FIRST, 500), (*SECOND, 900)
    rollout = Rollout(root, "s1").count(first, first).count(second).count((*THIRD, 100))
    found = read_file(rollout.count((*minus(THIRD, (1, 0, 0, 0)), 4000)).path)
    first_used = Buckets(100, cache_read=400, cache_write_5m=500, output=50, reasoning=10)
    second_used = Buckets(100, cache_read=1000, cache_write_5m=400, output=70, reasoning=20)
    assert [one.usage for one in found.records[:2]] == [first_used, second_used]
    assert found.records[2].usage.cache_write_5m == 0
    assert found.skipped == {Reason.QUARANTINED: 1}


def test_what_was_written_changes_no_key_and_counts_from_when_it_was_told(root: Path):
    told = Rollout(root, "s1").count((*FIRST, 500), (*FIRST, 500)).count((*SECOND, 900)).path
    keys = [record.idem_key for record in read_file(told).records]
    told.unlink()
    older = Rollout(root, "s1").count(FIRST, FIRST)
    parser, findings = CodexParser(older.path, b""), Findings()
    parser.take(older.path.read_bytes(), 0, findings)
    state = msgspec.msgpack.decode(parser.state())
    del state[LANES + 1 :]
    state[LANES]["codex"] = list(FIRST)  # as versions that did not know of it have kept it
    begun = older.path.stat().st_size
    older.count((*SECOND, 900))
    parser = CodexParser(older.path, msgspec.msgpack.encode(state))
    parser.take(older.path.read_bytes()[begun:], begun, findings)
    assert [record.idem_key for record in findings.records] == keys
    assert findings.records[1].usage == Buckets(500, cache_read=1000, output=70, reasoning=20)


def test_a_total_told_again_and_one_without_info_count_nothing(root: Path):
    rollout = Rollout(root, "s1").count(None).count(FIRST, FIRST).count(FIRST, FIRST)
    found = read_file(rollout.count(SECOND, minus(SECOND, FIRST)).count(None).path)
    assert sum(record.usage.total for record in found.records) == 2500 + 120
    assert found.skipped == {Reason.DUPLICATE: 1}


def test_without_the_last_usage_the_difference_counts_and_a_fall_is_a_new_beginning(root: Path):
    rollout = Rollout(root, "s1").count(FIRST).count(SECOND).count(FIRST)
    found = read_file(rollout.path)
    assert [record.usage.total for record in found.records] == [1050, 1570, 1050]


def test_lanes_have_totals_of_their_own(root: Path):
    rollout = Rollout(root, "s1").count(FIRST).count(FIRST, lane="review").count(SECOND)
    found = read_file(rollout.path)
    assert [record.usage.total for record in found.records] == [1050, 1050, 1570]


def test_a_response_told_under_each_limit_counts_once_and_keeps_its_key():
    path = GOLDEN / "two_limits.jsonl"
    found = read_file(path)
    assert [record.usage.total for record in found.records] == [1050, 1570, 1050]
    assert found.skipped == {Reason.DUPLICATE: 6}
    keys = [record.idem_key.removeprefix("codex:s1:") for record in found.records]
    assert keys == KEYS_OF_TWO_LIMITS
    assert read_lines(path) == found


def test_a_compaction_counts_nothing_under_whatever_limit_it_is_told(root: Path):
    """The total stays, and what the last response used is told as nothing."""
    nothing = (0, 0, 0, 0)
    rollout = Rollout(root, "s1").count(FIRST, FIRST).count(FIRST, FIRST, lane="other")
    rollout.count(SECOND, minus(SECOND, FIRST))
    keys = [record.idem_key for record in read_file(rollout.path).records]
    for lane in ("codex", "other", "new"):
        rollout.count(SECOND, nothing, lane=lane)
    found = read_file(rollout.count(THIRD, minus(THIRD, SECOND), lane="other").path)
    assert [record.usage.total for record in found.records] == [1050, 1570, 1580]
    assert [record.idem_key for record in found.records[:2]] == keys
    assert found.skipped == {Reason.DUPLICATE: 4}
    assert read_lines(rollout.path) == found


def test_what_an_older_version_has_counted_of_a_compaction_is_taken_back(
    root: Path, counted: Counted
):
    for last in (None, (0, 0, 0, 0)):  # not told, it counts as it did then
        rollout = Rollout(root, "s1").count(FIRST, FIRST).count(SECOND)
        rollout.count(SECOND, last, lane="other")
        total = counted.read().totals.total
        rollout.path.unlink()
    assert total == 1050 + 1570
    assert len(usage_log.page(counted.connection, 0, 10)) == 4


def test_what_a_total_has_risen_by_when_a_compaction_tells_it_counts_once(root: Path):
    rollout = Rollout(root, "s1").count(FIRST, FIRST, lane="other").count(SECOND, (1, 0, 0, 0))
    found = read_file(rollout.count(THIRD, (0, 0, 0, 0), lane="other").path)
    assert [record.usage.total for record in found.records] == [1050, 1, 1580]


def test_the_model_is_that_of_the_latest_turn(root: Path):
    rollout = Rollout(root, "s1").count(FIRST).model("gpt-5").count(SECOND).model("o4").count(THIRD)
    assert [one.model for one in read_file(rollout.path).records] == ["unknown", "gpt-5", "o4"]


def test_the_tier_is_what_the_user_has_asked_for_by_then():
    path = GOLDEN / "service_tiers.jsonl"
    found = read_file(path)
    tiers = [record.tier for record in found.records]
    assert tiers == [tier_of(name, 1) for name in ("", "priority", "flex", "priority", "")]
    assert read_lines(path) == found


def test_rollouts_that_were_packed_before_they_were_read_are_told(root: Path, counted: Counted):
    read = Rollout(root, "s1").count(FIRST, FIRST).path
    counted.read()
    for name in ("s1", "s2", "s3"):
        Path(f"{read.with_stem(f'rollout-{name}')}.zst").write_bytes(b"packed")
    read.unlink()
    Rollout(root, "s3").count(SECOND, SECOND)
    stored = ledger.load(counted.connection, counted.reader.key)
    assert stored is not None
    reading = counted.reader.read(stored.places, 1 << 30)
    unread = f"{read.with_stem('rollout-s2')}.zst"
    expected = f"1 rollout is packed by zstd and not read; to count: zstd -d {unread}"
    assert (reading.detail, len(reading.batch.records)) == (expected, 1)
    told = TreeReader(Rollouts(), str(root)).read({}, 1 << 30).detail
    assert told.startswith("2 rollouts are packed by zstd and not read; to count: zstd -d ")
    assert told.endswith("/rollout-s1.jsonl.zst and 1 more")
    assert [path.suffix for path in SOURCES["codex"].files(str(root))] == [".jsonl"]


@pytest.mark.parametrize("was_archived", [False, True])
def test_a_rollout_that_was_read_is_not_told_when_it_is_packed_in_another_place(
    root: Path, counted: Counted, was_archived: bool
):
    path = Rollout(root, "2026-11-20T10-00-00-s1").count(FIRST, FIRST).path
    archived = root / "archived_sessions" / path.name
    archived.parent.mkdir()
    read, packed = (path.rename(archived), path) if was_archived else (path, archived)
    assert counted.read().diagnostics.records == 1
    read.rename(f"{packed}.zst")
    assert counted.detail == "ok"


@pytest.mark.parametrize("is_moved", [False, True])
def test_a_rollout_that_was_packed_long_ago_is_never_told_as_unread(
    root: Path, counted: Counted, is_moved: bool
):
    path = Rollout(root, "2026-11-20T10-00-00-s1").count(FIRST, FIRST).path
    os.utime(path, (0, 0))
    Rollout(root, "2026-11-20T10-00-00-s2").count(SECOND, SECOND)
    counted.read()
    packed = root / "archived_sessions" / path.name if is_moved else path
    packed.parent.mkdir(exist_ok=True)
    path.rename(f"{packed}.zst")
    for _ in range(2):
        assert counted.read().detail == "ok"


def test_the_command_that_unpacks_a_rollout_can_be_pasted(tmp_path: Path):
    root = tmp_path / "my $(home)"
    packed = root / "archived_sessions" / "rollout-1.jsonl.zst"
    packed.parent.mkdir(parents=True)
    packed.write_bytes(b"packed")
    told = TreeReader(Rollouts(), str(root)).read({}, 1 << 30).detail
    assert told.endswith(f"; to count: zstd -d '{packed}'")


def test_an_archived_copy_is_the_same_session(root: Path, counted: Counted):
    path = Rollout(root, "s1").count(FIRST, FIRST).count(SECOND, minus(SECOND, FIRST)).path
    counted.read()
    archived = root / "archived_sessions" / path.name
    archived.parent.mkdir()
    path.rename(archived)
    assert counted.read().totals.total == 2620
    assert counted.diagnostics.duplicates_ignored == 2


@pytest.mark.parametrize(
    ("total", "reason"),
    [
        ((10, 20, 5, 0), Reason.QUARANTINED),
        ((10, 0, 5, 9), Reason.QUARANTINED),
        ((-1, 0, 5, 0), Reason.QUARANTINED),
        ((1 << 50, 0, 5, 0), Reason.QUARANTINED),
        ((0, 0, 0, 0), Reason.NO_USAGE),
    ],
)
def test_counts_that_cannot_be_true_are_set_aside(
    root: Path, total: tuple[int, ...], reason: Reason
):
    rollout = Rollout(root, "../../x").count(total, total).count(FIRST, FIRST)
    found = read_file(rollout.path)
    assert [(one.reason, one.offset > 0) for one in found.remarks] == [(reason, True)]
    assert [record.session for record in found.records] == ["../../x"]


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"event_msg","payload":{"type":"token_count"',
        b'\xff\xfe "token_count"',
        b'["token_count"]',
        b'{"type":"session_meta","payload":7,"timestamp":"soon"}',
        b'{"type":"event_msg","payload":{"type":"token_count","info":{"total_token_usage":[]}}}',
        b'{"type":"event_msg","payload":{"type":"token_count","rate_limits":3,"info":7}}',
    ],
)
def test_lines_that_mean_nothing_end_nothing(root: Path, line: bytes):
    rollout = Rollout(root, "s1")
    with rollout.path.open("ab") as file:
        file.write(line + b"\r\n" + b"x" * 300_000 + b"\n")
    found = read_file(rollout.count(FIRST, FIRST).path)
    assert len(found.records) == 1
    assert found.skipped.total() <= 1


def test_a_state_that_nobody_wrote_begins_anew(root: Path):
    path = Rollout(root, "s1").count(FIRST, FIRST).path
    findings = Findings()
    CodexParser(path, b"\xc1 nonsense").take(path.read_bytes(), 0, findings)
    assert len(findings.records) == 1


def test_a_line_before_any_that_tells_a_time_is_counted_when_the_session_began(root: Path):
    path = root / "rollout-1.jsonl"
    meta = {"type": "session_meta", "payload": {"id": "s1", "timestamp": START.isoformat()}}
    info = {"total_token_usage": usage(FIRST)}
    count = {"type": "event_msg", "payload": {"type": "token_count", "info": info}}
    path.write_text(json.dumps(meta) + "\n" + json.dumps(count) + "\n")
    assert [record.at_s for record in read_file(path).records] == [START.timestamp()]
    path.write_text(json.dumps(count) + "\n")
    found = read_file(path)
    assert (found.records, [one.reason for one in found.remarks]) == ([], [Reason.QUARANTINED])
