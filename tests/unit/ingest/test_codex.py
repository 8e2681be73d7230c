"""Rollouts of Codex, each trap of the format as lines written by hand."""

import dataclasses
import json
import sqlite3
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path

import msgspec
import pytest

from meshnode.core.ledger import Buckets, Diagnostics, Slot
from meshnode.core.tiers import tier_of
from meshnode.ingest.codex import BURST_GAP_S, CodexParser, Rollouts, _State
from meshnode.ingest.reading import Findings, Reason
from meshnode.ingest.sources import SOURCES
from meshnode.ingest.tree import _PLACE, TreeReader
from meshnode.store import ledger, usage_log
from meshnode.store.migrations import migrate

LANES = _State.__struct_fields__.index("lanes")
NAMING = _State.__struct_fields__.index("naming")  # what versions before did not know begins here
START = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
GOLDEN = Path(__file__).parents[2] / "golden" / "codex"
KEYS_OF_TWO_LIMITS = [  # as they were when each telling counted: reading anew must double nothing
    "ae4b76fa2d5ec9dfe0cb2439275e8495",
    "b996b803691f32b73a67a9f4b7329db1",
    "912a01732baa49a9cedaba538a031963",
]
FIRST, SECOND, THIRD = (1000, 400, 50, 10), (2500, 1400, 120, 30), (4000, 2000, 200, 60)


class Rollout:
    """A file that grows, a second a line unless told otherwise."""

    def __init__(self, root: Path, session: str, at: datetime = START, **meta: object) -> None:
        self.path = root / "sessions" / "2026" / "11" / "20" / f"rollout-{session}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.at = at
        self.meta(session, **meta)

    def line(self, kind: str, payload: object, pause_s: float = 2.0) -> "Rollout":
        self.at += timedelta(seconds=pause_s)
        said = {"timestamp": self.at.isoformat(), "type": kind, "payload": payload}
        with self.path.open("a") as file:
            file.write(json.dumps(said) + "\n")
        return self

    def meta(self, session: str, pause_s: float = 0.0, **more: object) -> "Rollout":
        payload = {"id": session, "cwd": "/srv/anna/shop", "model_provider": "openai"} | more
        return self.line("session_meta", payload, pause_s)

    def model(self, name: str, pause_s: float = 0.0) -> "Rollout":
        return self.line("turn_context", {"model": name, "cwd": "/srv/anna/shop"}, pause_s)

    def count(
        self,
        total: tuple[int, ...] | None,
        last: tuple[int, ...] | None = None,
        lane: str = "codex",
        pause_s: float = 2.0,
    ) -> "Rollout":
        info = None if total is None else {"total_token_usage": usage(total)}
        if info is not None and last is not None:
            info["last_token_usage"] = usage(last)
        limits = {"limit_id": lane}
        payload = {"type": "token_count", "info": info, "rate_limits": limits}
        return self.line("event_msg", payload, pause_s)

    def named(self, response: str, used: tuple[int, ...]) -> "Rollout":
        payload = {"response_id": response, "usage": usage(used)}
        return self.line("token_usage_record", payload)


def usage(counts: tuple[int, ...]) -> dict[str, int]:
    """Lay out counts; the fifth, what was written into a cache, is told by newer versions only."""
    names = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_output_tokens")
    told = zip((*names, "cache_write_input_tokens"), counts, strict=False)
    return dict(told) | {"total_tokens": 272_000}


def minus(total: tuple[int, ...], before: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(new - old for new, old in zip(total, before, strict=True))


class Counted:
    """A ledger, and a reader over the rollouts of a root."""

    def __init__(self, root: Path) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        migrate(self.connection)
        self.reader = TreeReader(Rollouts(), str(root))

    def read(self) -> "Counted":
        stored = ledger.load(self.connection, self.reader.key)
        places = stored.places if stored else {}
        ledger.commit(self.connection, self.reader.read(places, 1 << 30).batch, 0)
        return self

    def read_as_older(self) -> "Counted":
        """Read as the versions before names superseded totals did."""
        stored = ledger.load(self.connection, self.reader.key)
        batch = self.reader.read(stored.places if stored else {}, 1 << 30).batch
        places = {
            file: place[: _PLACE.size] + as_older(place[_PLACE.size :])
            for file, place in batch.places.items()
        }
        records = [
            msgspec.structs.replace(one, idem_key=one.formerly or one.idem_key, formerly="")
            for one in batch.records
        ]
        older = dataclasses.replace(batch, places=places, records=records, superseded=())
        ledger.commit(self.connection, older, 0)
        return self

    @property
    def diagnostics(self) -> Diagnostics:
        stored = ledger.load(self.connection, self.reader.key)
        assert stored is not None
        return stored.diagnostics

    @property
    def totals(self) -> Buckets:
        slots = [value for _, value in ledger.slots(self.connection) if isinstance(value, Slot)]
        return sum((slot.usage for slot in slots), Buckets())

    @property
    def sessions(self) -> dict[str, int]:
        entries = [entry for entry, _ in usage_log.page(self.connection, 0, 1000)]
        counting = usage_log.latest(self.connection, [e.record.idem_key for e in entries])
        found: dict[str, int] = {}
        for entry in counting.values():
            record = entry.record
            found[record.session] = found.get(record.session, 0) + record.usage.total
        return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "sessions").mkdir()
    return tmp_path


@pytest.fixture
def counted(root: Path) -> Iterator[Counted]:
    counted = Counted(root)
    yield counted
    counted.connection.close()


def read_file(path: Path) -> Findings:
    findings = Findings()
    CodexParser(path, b"").take(path.read_bytes(), 0, findings)
    return findings


def read_lines(path: Path) -> Findings:
    """Read a file line by line, as if restarted after each."""
    findings, offset, state = Findings(), 0, b""
    for line in path.read_bytes().splitlines(keepends=True):
        parser = CodexParser(path, state)
        parser.take(line, offset, findings)
        state, offset = parser.state(), offset + len(line)
    return findings


def put(root: Path, name: str, lines: slice = slice(None)) -> Path:
    """Add some lines of a rollout that was written by hand to those of a root."""
    told = GOLDEN / f"{name}.jsonl"
    path = root / "sessions" / f"rollout-{told.stem}.jsonl"
    with path.open("ab") as file:
        file.writelines(told.read_bytes().splitlines(keepends=True)[lines])
    return path


def as_older(state: bytes) -> bytes:
    """Return a parser's state as the versions before names superseded totals have kept it."""
    return msgspec.msgpack.encode(msgspec.msgpack.decode(state)[:NAMING]) if state else b""


def test_the_last_usage_counts_cached_inside_input_and_reasoning_inside_output(root: Path):
    path = Rollout(root, "s1").model("gpt-5-codex").count(FIRST, FIRST).path
    [record] = read_file(path).records
    assert record.usage == Buckets(input=600, cache_read=400, output=50, reasoning=10)
    assert (record.session, record.project, record.model) == ("s1", "shop", "gpt-5-codex")
    assert (record.provider, record.at_s) == ("openai", (START + timedelta(seconds=2)).timestamp())


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


def test_the_model_is_that_of_the_latest_turn(root: Path):
    rollout = Rollout(root, "s1").count(FIRST).model("gpt-5").count(SECOND).model("o4").count(THIRD)
    assert [one.model for one in read_file(rollout.path).records] == ["unknown", "gpt-5", "o4"]


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


FRESH = {"fresh_1": 2620, "fresh_2": 2620, "fresh_3": 2620}


def test_subagents_without_a_history_count_each_though_their_totals_are_alike(
    root: Path, counted: Counted
):
    for name in FRESH:
        put(root, f"fresh/{name}")
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


def test_an_archived_copy_is_the_same_session(root: Path, counted: Counted):
    path = Rollout(root, "s1").count(FIRST, FIRST).count(SECOND, minus(SECOND, FIRST)).path
    counted.read()
    archived = root / "archived_sessions" / path.name
    archived.parent.mkdir()
    path.rename(archived)
    assert counted.read().totals.total == 2620
    assert counted.diagnostics.duplicates_ignored == 2


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
