"""Totals of Codex and names of responses, in whatever order they come."""

from pathlib import Path

from rollouts import FIRST, GOLDEN, SECOND, THIRD, Rollout, minus, put, read_file, read_lines, usage

from meshnode.ingest.codex import CodexParser
from meshnode.ingest.reading import Findings, Reason


def test_named_responses_win_over_totals(root: Path):
    rollout = Rollout(root, "s1")
    record = {"type": "token_usage_record", "response_id": "resp_1", "usage": usage(FIRST)}
    rollout.line("event_msg", record).count(FIRST, FIRST)
    found = read_file(rollout.path)
    assert [one.idem_key for one in found.records] == ["codex:resp_1"]
    assert found.skipped == {Reason.DUPLICATE: 1}


def test_a_response_that_is_named_only_after_its_total_counts_once():
    found = read_file(GOLDEN / "named_afterwards.jsonl")
    assert [record.usage.total for record in found.records] == [1050, 1570, 1570]
    assert [one.idem_key for one in found.records[1:]] == ["codex:resp_2", "codex:resp_3"]
    assert (len(found.superseded), found.skipped) == (2, {Reason.DUPLICATE: 3})


def test_totals_that_nobody_names_count_beside_those_with_names():
    """An older version resumes the session, and a newer one after it."""
    path = GOLDEN / "resumed_by_older.jsonl"
    found = read_file(path)
    assert [one.usage.total for one in found.records] == [1050, 1570, 2080, 2590, 2691, 910, 2792]
    named = [one.idem_key.removeprefix("codex:") for one in found.records if "_" in one.idem_key]
    assert named == ["resp_1", "resp_2", "resp_5", "resp_compaction"]
    assert (len(found.superseded), found.skipped) == (3, {Reason.DUPLICATE: 4})
    assert read_lines(path) == found


def test_where_names_come_late_a_total_counts_when_the_next_one_comes(root: Path):
    path = put(root, "named_afterwards")
    fourth, fifth = (5600, 3400, 270, 70), (6600, 3800, 320, 80)
    rollout = Rollout(root, "s1").count(fourth, minus(fourth, (4000, 2400, 190, 50)))
    rollout.count(fifth, minus(fifth, fourth))
    with path.open("ab") as file:
        file.writelines(rollout.path.read_bytes().splitlines(keepends=True)[1:])
    found = read_file(path)
    assert [record.usage.total for record in found.records] == [1050, 1570, 1570, 1680]
    assert read_lines(path) == found


def test_a_compaction_is_told_with_the_response_after_it(root: Path):
    rollout = Rollout(root, "s1")
    rollout.named("resp_1", FIRST).named("resp_2", minus(SECOND, FIRST))
    found = read_file(rollout.count(SECOND).count(THIRD).path)
    assert [record.usage.total for record in found.records] == [1050, 1570, 1580]
    assert found.skipped == {Reason.DUPLICATE: 1}


def test_a_name_is_that_of_one_total(root: Path):
    rollout = Rollout(root, "s1").named("resp_1", FIRST).count(FIRST, FIRST)
    doubled = (2000, 800, 100, 20)
    found = read_file(rollout.count(FIRST, lane="other").count(doubled, FIRST).path)
    assert [record.usage.total for record in found.records] == [1050, 1050]
    assert found.skipped == {Reason.DUPLICATE: 2}


def test_names_whose_totals_never_come_are_not_kept_for_ever(root: Path):
    rollout = Rollout(root, "s1")
    for number in range(200):
        rollout.named(f"resp_{number}", (1000 + number, 400, 50, 10))
    parser = CodexParser(rollout.path, b"")
    parser.take(rollout.path.read_bytes(), 0, Findings())
    assert len(parser.state()) < 1000
