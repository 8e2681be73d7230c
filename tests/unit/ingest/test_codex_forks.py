"""What forks and subagents copy of a rollout of Codex, and what they do themselves."""

import json
from collections.abc import Iterable
from datetime import timedelta
from itertools import permutations
from pathlib import Path

import pytest
from rollouts import (
    FIRST,
    GOLDEN,
    SECOND,
    START,
    THIRD,
    Counted,
    Rollout,
    as_older,
    minus,
    put,
    read_file,
    read_lines,
)

from meshnode.ingest.codex import BURST_GAP_S, CodexParser, Rollouts
from meshnode.ingest.reading import Findings, Reason
from meshnode.ingest.tree import TreeReader
from meshnode.store import ledger


def family(root: Path) -> tuple[list[Path], dict[str, int]]:
    """Three generations: each copies its ancestors' lines at once, then works on."""
    grand = Rollout(root, "grand").count(FIRST, FIRST)
    hour = timedelta(hours=1)
    parent = Rollout(root, "parent", START + hour, forked_from_id="grand").meta("grand")
    parent.count(FIRST, FIRST, pause_s=0.01).count(SECOND, minus(SECOND, FIRST), pause_s=9.0)
    child = Rollout(root, "child", START + 2 * hour, forked_from_id="parent")
    child.meta("parent").meta("grand").count(FIRST, FIRST, pause_s=0.01)
    child.count(SECOND, minus(SECOND, FIRST), pause_s=0.01)
    child.count(THIRD, minus(THIRD, SECOND), pause_s=9.0)
    own = {"grand": 1050, "parent": 1570, "child": 1580}
    return [grand.path, parent.path, child.path], own


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_copied_history_counts_once_in_the_session_that_made_it(
    root: Path, counted: Counted, order: Iterable[int]
):
    paths, own = family(root)
    away = [path.rename(root / path.name) for path in paths]
    for number in order:
        away[number].rename(paths[number])
        counted.read()
    assert counted.sessions == own
    assert counted.totals.total == sum(own.values())


def test_a_fork_tells_of_ancestors_whose_files_are_gone(root: Path, counted: Counted):
    paths, own = family(root)
    paths[0].unlink()
    paths[1].unlink()
    assert counted.read().totals.total == sum(own.values())


def test_what_two_forks_do_apart_counts_in_both(root: Path, counted: Counted):
    Rollout(root, "s1").count(FIRST, FIRST)
    for name, total in (("a", SECOND), ("b", THIRD)):
        fork = Rollout(root, name, START + timedelta(hours=1), forked_from_id="s1").meta("s1")
        fork.count(FIRST, FIRST, pause_s=0.01)
        fork.count(total, minus(total, FIRST), pause_s=BURST_GAP_S + 1)
    assert counted.read().sessions == {"s1": 1050, "a": 1570, "b": 3150}


def test_a_reader_goes_on_after_a_restart_between_any_two_lines(root: Path, counted: Counted):
    paths, own = family(root)
    for path in paths:
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"")
        for line in lines:
            with path.open("ab") as file:
                file.write(line)
            counted.reader = TreeReader(Rollouts(), str(root))
            counted.read()
    assert counted.sessions == own


SPAWNED = {"restamped": 3040, "kept": 3141, "cut": 3242, "ordered": 3343}
"""What children that a parent has spawned have used themselves. Their files copy what it did: with
new times, with its own, the last turn alone, and telling where the copy ends."""
PARENT = 1050 + 1570 + 2080


@pytest.mark.parametrize("child", SPAWNED)
@pytest.mark.parametrize("is_parent_first", [True, False])
def test_what_a_parent_has_named_counts_once_though_its_children_copy_it_unnamed(
    root: Path, counted: Counted, child: str, is_parent_first: bool
):
    for name in ("parent", child) if is_parent_first else (child, "parent"):
        put(root, f"spawning/{name}")
        counted.read()
    assert counted.sessions == {"parent": PARENT, child: SPAWNED[child]}
    assert counted.totals.total == PARENT + SPAWNED[child]
    ledger.forget_places(counted.connection, counted.reader.key)
    assert counted.read().totals.total == PARENT + SPAWNED[child]


def test_all_children_of_a_parent_count_once_also_when_its_file_is_gone(
    root: Path, counted: Counted
):
    parent = put(root, "spawning/parent")
    counted.read()
    parent.unlink()
    for name in SPAWNED:
        put(root, f"spawning/{name}")
    counted.reader = TreeReader(Rollouts(), str(root))
    assert counted.read().sessions == {"parent": PARENT, **SPAWNED}


def test_children_tell_once_of_a_parent_that_was_never_read(root: Path, counted: Counted):
    for name in SPAWNED:
        put(root, f"spawning/{name}")
    assert counted.read().sessions == {"parent": PARENT, **SPAWNED}
    put(root, "spawning/parent")
    assert counted.read().sessions == {"parent": PARENT, **SPAWNED}
    assert counted.totals.total == PARENT + sum(SPAWNED.values())


@pytest.mark.parametrize("child", SPAWNED)
def test_parent_and_child_are_read_in_any_pieces(root: Path, counted: Counted, child: str):
    paths = [put(root, f"spawning/{name}") for name in (child, "parent")]
    lines = [path.read_bytes().splitlines(keepends=True) for path in paths]
    assert all(read_lines(path) == read_file(path) for path in paths)
    for path in paths:
        path.write_bytes(b"")
    for number in range(max(map(len, lines))):
        for path, its in zip(paths, lines, strict=True):
            with path.open("ab") as file:
                file.writelines(its[number : number + 1])
        counted.reader = TreeReader(Rollouts(), str(root))
        counted.read()
    assert counted.sessions == {"parent": PARENT, child: SPAWNED[child]}


@pytest.mark.parametrize("lines", range(10))
def test_a_home_whose_parent_an_older_version_has_begun_counts_a_child_once(
    root: Path, counted: Counted, lines: int
):
    put(root, "spawning/parent", slice(lines))
    counted.read_as_older()
    put(root, "spawning/parent", slice(lines, None))
    put(root, "spawning/restamped")
    assert counted.read().sessions == {"parent": PARENT, "restamped": SPAWNED["restamped"]}


def test_what_an_older_version_has_counted_twice_is_mended_by_reading_anew(
    root: Path, counted: Counted
):
    for name in ("parent", "restamped", "cut"):
        put(root, f"spawning/{name}")
    counted.read_as_older()
    ledger.forget_places(counted.connection, counted.reader.key)
    expected = {"parent": PARENT, **{name: SPAWNED[name] for name in ("restamped", "cut")}}
    assert counted.read().sessions == expected


def test_a_quick_answer_after_the_last_turns_of_a_parent_is_the_childs(root: Path):
    child = Rollout(root, "child", forked_from_id="parent")
    child.count(SECOND, minus(SECOND, FIRST), pause_s=0.01).model("gpt-5", pause_s=0.2)
    found = read_file(child.count(THIRD, minus(THIRD, SECOND), pause_s=0.6).path)
    assert [record.usage.total for record in found.records] == [1580]
    assert found.skipped == {Reason.DUPLICATE: 1}


def test_the_last_turns_of_a_parent_count_nothing_where_they_begin_after_a_compaction(root: Path):
    child = Rollout(root, "child", forked_from_id="parent")
    child.count(SECOND, (0, 0, 0, 0), pause_s=0.01).count(THIRD, minus(THIRD, SECOND), pause_s=0.01)
    assert read_file(child.path).skipped == {Reason.DUPLICATE: 2}


FRESH = {"fresh_1": 2620, "fresh_2": 2620, "fresh_3": 2620}


def test_subagents_without_a_history_count_each_though_their_totals_are_alike(
    root: Path, counted: Counted
):
    for name in FRESH:
        put(root, f"fresh/{name}")
    assert counted.read().sessions == FRESH


@pytest.mark.parametrize("order", list(permutations(("parent", "child"))))
def test_a_subagent_without_names_counts_beside_its_parent_that_names_the_same(
    root: Path, counted: Counted, order: Iterable[str]
):
    spawned = {"subagent": {"thread_spawn": {"parent_thread_id": "parent"}}}
    for name in order:
        rollout = Rollout(root, name, **({"source": spawned} if name == "child" else {}))
        for number, total in enumerate((FIRST, minus(SECOND, FIRST))):
            rollout.model("gpt-5", pause_s=3.0)
            if name == "parent":
                rollout.named(f"resp_{number}", total)
            rollout.count((FIRST, SECOND)[number], total)
        counted.read()
    assert counted.sessions == {"parent": 2620, "child": 2620}


def test_a_subagent_that_answers_quickly_copies_nothing(root: Path, counted: Counted):
    """Its limits are told while it waits for its first answers."""
    told = json.loads((GOLDEN / "fresh" / "fresh_1.jsonl").read_text().partition("\n")[0])
    for name in FRESH:
        agent = Rollout(root, name, parent_thread_id="parent", source=told["payload"]["source"])
        agent.model("gpt-5", pause_s=0.1).count(None, pause_s=0.85).count(
            FIRST, FIRST, pause_s=0.85
        )
        agent.count(FIRST, FIRST, pause_s=0.85).count(SECOND, minus(SECOND, FIRST), pause_s=0.85)
        assert read_lines(agent.path) == read_file(agent.path)
    assert counted.read().sessions == FRESH


@pytest.mark.parametrize("order", list(permutations(("fresh/fresh_1", "fresh/nested"))))
def test_what_a_fresh_subagent_has_spawned_copies_it_under_its_key(
    root: Path, counted: Counted, order: Iterable[str]
):
    for name in order:
        put(root, name)
        counted.read()
    assert counted.sessions == {"fresh_1": 2620, "nested": 2080}


def test_what_a_fork_without_totals_does_is_known_to_its_forks(root: Path, counted: Counted):
    hour = timedelta(hours=1)
    Rollout(root, "fork", forked_from_id="s1").meta("s1").count(FIRST, FIRST, pause_s=9.0)
    again = Rollout(root, "again", START + hour, forked_from_id="fork").meta("fork").meta("s1")
    again.count(FIRST, FIRST, pause_s=0.01)
    assert counted.read().sessions == {"fork": 1050}


@pytest.mark.parametrize("lines", range(5))
def test_a_fresh_subagent_that_an_older_version_has_begun_counts_once(
    root: Path, counted: Counted, lines: int
):
    for name in FRESH:
        put(root, f"fresh/{name}", slice(lines if name == "fresh_1" else 0))
    counted.read_as_older()
    put(root, "fresh/fresh_1", slice(lines, None))
    assert counted.read().sessions == {"fresh_1": 2620}
    put(root, "fresh/fresh_2")
    put(root, "fresh/fresh_3")
    assert counted.read().sessions == FRESH
    ledger.forget_places(counted.connection, counted.reader.key)
    assert counted.read().sessions == FRESH


def test_the_key_of_a_file_that_was_begun_stays(root: Path):
    path = GOLDEN / "fresh" / "fresh_1.jsonl"
    first, *others = path.read_bytes().splitlines(keepends=True)
    parser = CodexParser(path, b"")
    parser.take(first, 0, Findings())
    findings = Findings()
    CodexParser(path, as_older(parser.state())).take(b"".join(others), len(first), findings)
    assert [one.idem_key for one in findings.records] == [
        one.formerly for one in read_file(path).records
    ]
    assert all(one.idem_key.startswith("codex:parent:") for one in findings.records)
