"""A tree of files that grow, move, shrink and vanish, read by a real reader from a real disk."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from usage_records import usage_record

from meshnode.core.ledger.ledger import UsageRecord
from meshnode.ingest import codex
from meshnode.ingest import tree as tree_module
from meshnode.ingest.claude import MARKS
from meshnode.ingest.reading import Findings, Reader, Reading, Reason, Remark, places_after
from meshnode.ingest.sources import SOURCES
from meshnode.ingest.tree import CHUNK_BYTES, GONE_NS, WHOLE_BYTES_MAX, TreeReader

pytestmark = pytest.mark.integration
DAY_NS = 86400 * 10**9
GONE_DAYS = GONE_NS // DAY_NS
NEWEST_NS = 1_795_132_800 * 10**9


class Numbers:
    """Reads `WORD` lines; its state is how many lines came before."""

    def __init__(self, path: Path, state: bytes) -> None:
        self._path = path
        self._seen = int(state or b"0")

    def take(self, chunk: bytes, offset: int, findings: Findings) -> None:
        for line in chunk.splitlines():
            self._seen += 1
            if line == b"bad":
                findings.skip(Reason.UNPARSABLE, str(self._path), offset)
                continue
            findings.records.append(record(line.decode(), f"{self._path.stem} {self._seen}"))

    def state(self) -> bytes:
        return b"%d" % self._seen


def record(key: str, session: str) -> UsageRecord:
    return usage_record(key, source="words", session=session)


class Words:
    source = "words"

    def files(self, root: Path) -> Iterator[str]:
        os.scandir(root).close()
        yield from map(str, root.rglob("*.txt"))
        yield from map(str, root.rglob("*.doc"))

    def elsewhere(self, root: Path, name: str) -> tuple[()]:
        return ()

    def is_whole(self, path: Path) -> bool:
        return path.suffix == ".doc"

    def begin(self, path: Path, state: bytes, root: Path) -> Numbers:
        return Numbers(path, state)


class Tree:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.places: dict[bytes, bytes] = {}

    def read(self, bytes_max: int = 1 << 30) -> Reading:
        """Read with a new reader, as after a restart."""
        reading = TreeReader(Words(), str(self.root)).read(self.places, bytes_max)
        self.places = places_after(self.places, reading.batch)
        return reading

    def words(self) -> list[tuple[str, str]]:
        return [(one.idem_key, one.session) for one in self.read().batch.records]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    return Tree(tmp_path / "tree")


def test_what_is_new_in_any_file_is_read_once_and_the_parser_goes_on(tree: Tree):
    (tree.root / "a.txt").write_text("one\n")
    (tree.root / "deep" / "b.txt").write_text("two\nthree\n")
    assert tree.words() == [("one", "a 1"), ("two", "b 1"), ("three", "b 2")]
    assert tree.words() == []
    with (tree.root / "deep" / "b.txt").open("a") as file:
        file.write("four\n")
    assert tree.words() == [("four", "b 3")]


def test_a_root_that_is_a_file_is_read_alone_whatever_it_is_called(tree: Tree):
    path = tree.root / "a.log"
    path.write_text("one\n")
    (tree.root / "b.txt").write_text("two\n")
    assert Tree(path).words() == [("one", "a 1")]


def test_a_tree_that_has_not_changed_gives_no_places_to_keep(tree: Tree):
    (tree.root / "a.txt").write_text("one\n")
    tree.read()
    reading = tree.read()
    assert (reading.batch.places, reading.more, reading.detail) == ({}, False, "ok")


def test_a_line_without_end_waits_and_is_told(tree: Tree):
    path = tree.root / "a.txt"
    path.write_text("one\ntw")
    reading = tree.read()
    assert [one.idem_key for one in reading.batch.records] == ["one"]
    assert reading.batch.diagnostics.partial_tail_bytes == 2
    assert tree.read().batch.diagnostics.partial_tail_bytes == 2
    path.write_text("one\ntwo\n")
    assert tree.words() == [("two", "a 2")]


def test_a_file_that_was_emptied_or_replaced_is_read_from_its_start(tree: Tree):
    path = tree.root / "a.txt"
    path.write_text("one\ntwo\n")
    tree.read()
    path.write_text("x\n")
    assert tree.words() == [("x", "a 1")]
    path.write_text("new\nlonger than it was\n")
    assert tree.words() == [("new", "a 1"), ("longer than it was", "a 2")]


def test_a_moved_file_gives_its_records_again_under_the_same_keys(tree: Tree):
    (tree.root / "a.txt").write_text("one\n")
    tree.read()
    (tree.root / "a.txt").rename(tree.root / "deep" / "a.txt")
    assert tree.words() == [("one", "a 1")]


def aged(path: Path, word: str, days: int) -> Path:
    path.write_text(f"{word}\n")
    os.utime(path, ns=(NEWEST_NS - days * DAY_NS,) * 2)
    return path


def test_places_of_files_that_went_long_ago_are_forgotten(tree: Tree):
    old, young, _ = (
        aged(tree.root / f"{word}.txt", word, days)
        for word, days in (("old", GONE_DAYS + 1), ("young", GONE_DAYS - 1), ("new", 0))
    )
    tree.read()
    old.unlink()
    young.unlink()
    assert list(tree.read().batch.places.values()) == [b""]
    assert tree.words() == []
    aged(old, "old", GONE_DAYS + 1)
    assert tree.words() == [("old", "old 1")]


def test_the_place_of_an_old_file_that_is_there_stays(tree: Tree):
    aged(tree.root / "old.txt", "old", 10 * GONE_DAYS)
    gone = aged(tree.root / "gone.txt", "gone", 1)
    aged(tree.root / "new.txt", "new", 0)
    tree.read()
    gone.unlink()
    assert tree.read().batch.places == {}


def test_no_place_is_forgotten_where_not_all_files_were_listed(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
):
    for number in range(4):
        aged(tree.root / f"{number}.txt", str(number), 2 * GONE_DAYS * number)
    tree.read()
    (tree.root / "3.txt").unlink()
    monkeypatch.setattr(tree_module, "FILES_MAX", 2)
    reading = tree.read()
    assert (reading.batch.places, "more than 2 files" in reading.detail) == ({}, True)
    shutil.move(tree.root, tree.root.with_name("elsewhere"))
    assert tree.read().batch.places == {}
    tree.root.mkdir()
    assert tree.read().batch.places == {}, "a tree that is empty, as before it is mounted"


def test_a_walk_of_many_readings_forgets_at_its_end_and_looks_again_when_there_is_more(tree: Tree):
    paths = [aged(tree.root / f"{n}.txt", str(n), 2 * GONE_DAYS) for n in range(3)]
    aged(tree.root / "new.txt", "new", 0)
    reader = TreeReader(Words(), str(tree.root))

    def walk() -> list[bytes]:
        forgotten, more = [], True
        while more:
            reading = reader.read(tree.places, 1)
            forgotten += [file for file, place in reading.batch.places.items() if not place]
            tree.places, more = places_after(tree.places, reading.batch), reading.more
        return forgotten

    assert walk() == []
    for left, path in enumerate(reversed(paths)):
        path.unlink()
        assert len(walk()) == 1
        assert len(tree.places) == len(paths) - left
        assert walk() == []


def test_a_budget_ends_a_reading_between_files_and_within_one(tree: Tree):
    (tree.root / "a.txt").write_text("one\n")
    lines = b"x" * 999 + b"\n"
    (tree.root / "b.txt").write_bytes(lines * (CHUNK_BYTES // 500))
    reader = TreeReader(Words(), str(tree.root))
    read, more = 0, True
    readings = 0
    while more:
        reading = reader.read(tree.places, 4)
        tree.places |= reading.batch.places
        read, more, readings = read + len(reading.batch.records), reading.more, readings + 1
    assert (read, readings) == (1 + CHUNK_BYTES // 500, 3)
    assert tree.words() == []


def test_a_line_longer_than_memory_is_skipped_and_told_once(tree: Tree):
    path = tree.root / "a.txt"
    path.write_bytes(b"one\n" + b"y" * (2 * CHUNK_BYTES))
    reading = tree.read()
    assert [one.idem_key for one in reading.batch.records] == ["one"]
    assert reading.batch.diagnostics.unparsable_lines == 1
    assert reading.remarks == (Remark(str(path), 4, Reason.UNPARSABLE),)
    with path.open("ab") as file:
        file.write(b"y\ntwo\n")
    reading = tree.read()
    assert [one.idem_key for one in reading.batch.records] == ["two"]
    assert reading.batch.diagnostics.unparsable_lines == 0


IMAGE = (
    b'{"type":"user","message":{"role":"user","content":[{"type":"image","source":{"data":"%b"}}]}}'
)
ANSWER = b'{"type":"assistant","x":"%b","message":{"id":"m","usage":{"output_tokens":1}}}'
COMPACTED = (
    b'{"type":"compacted","payload":{"replacement_history":[{"text":"%b \\"token_count\\""}]}}'
)
COUNTED = b'{"type":"event_msg","payload":{"x":"%b","type":"token_count","info":{}}}'


@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize(
    ("source", "line", "told"),
    [
        ("claude", IMAGE, 0),
        ("claude", ANSWER, 1),
        ("codex", COMPACTED, 0),
        ("codex", COUNTED, 1),
    ],
)
def test_a_line_longer_than_memory_is_told_if_it_may_be_usage(
    tmp_path: Path, source: str, line: bytes, told: int, chunks: int
):
    directory = tmp_path / {"claude": "p", "codex": "sessions"}[source]
    directory.mkdir()
    path = directory / "rollout-1.jsonl"
    mark = {"claude": MARKS, "codex": codex.MARKS}[source][0]
    short = b'{"about": %b}\n' % mark  # it is not in the line behind it
    for cut in range(28, 64, 4):  # what is read at a time ends before, within and behind the mark
        path.write_bytes(short + line % (b"y" * (chunks * CHUNK_BYTES - cut)) + b"\n" + short)
        reader = SOURCES[source].reader(str(tmp_path), None)
        assert told_of(reader, 1 << 30) == [Remark(str(path), len(short), Reason.UNPARSABLE)] * told
    reader = SOURCES[source].reader(str(tmp_path), None)
    assert told_of(reader, 1) == [Remark(str(path), len(short), Reason.UNPARSABLE)] * told


def told_of(reader: Reader, bytes_max: int) -> list[Remark]:
    remarks: list[Remark] = []
    places: dict[bytes, bytes] = {}
    more = True
    while more:
        reading = reader.read(places, bytes_max)
        places |= reading.batch.places
        remarks += reading.remarks
        more = reading.more
    return remarks


def test_a_document_is_read_whole_whenever_it_has_changed(tree: Tree):
    path = tree.root / "a.doc"
    path.write_text("one\n")
    assert tree.words() == [("one", "a 1")]
    path.write_text("one\ntwo")
    assert tree.words() == [("one", "a 1"), ("two", "a 2")]
    assert tree.words() == []
    with path.open("wb") as file:
        file.truncate(WHOLE_BYTES_MAX + 1)
    assert tree.read().batch.diagnostics.unparsable_lines == 1


def test_what_cannot_be_read_is_told_and_the_rest_is_read(tree: Tree):
    (tree.root / "a.txt").mkdir()
    os.mkfifo(tree.root / "b.txt")
    (tree.root / "c.txt").symlink_to("nowhere.txt")
    (tree.root / "d.txt").write_text("one\nbad\n")
    reading = tree.read()
    assert [one.idem_key for one in reading.batch.records] == ["one"]
    assert reading.batch.diagnostics.unparsable_lines == 1


def test_a_root_that_is_missing_or_vanishes_is_waited_for(tree: Tree):
    (tree.root / "a.txt").write_text("one\n")
    assert tree.words() == [("one", "a 1")]
    away = tree.root.rename(tree.root.with_name("away"))
    reading = tree.read()
    assert "does not exist yet" in reading.detail
    assert (reading.batch.records, reading.batch.places) == ((), {})
    away.rename(tree.root)
    assert tree.words() == []


def test_places_that_nobody_wrote_make_it_read_again(tree: Tree):
    (tree.root / "a.txt").write_text("one\n")
    tree.read()
    tree.places = dict.fromkeys(tree.places, b"\xff" * 99)
    assert tree.words() == [("one", "a 1")]
    tree.places = dict.fromkeys(tree.places, b"short")
    assert tree.words() == [("one", "a 1")]


def test_one_session_can_be_picked(tree: Tree):
    (tree.root / "a.txt").write_text("one\ntwo\n")
    reading = TreeReader(Words(), str(tree.root), "a 2").read({}, 1 << 20)
    assert [one.idem_key for one in reading.batch.records] == ["two"]
