"""Trees that somebody laid out to bring a reader down: each is read to its end, none raises."""

import json
import os
from pathlib import Path

import pytest

from meshnode.core.ledger.ledger import Batch, DiagnosticsKey, StoredReader
from meshnode.ingest.reading import Reading
from meshnode.ingest.sources import SOURCES
from meshnode.store import ledger
from meshnode.store.database import Database

pytestmark = pytest.mark.integration
DEEP = 1200  # directories in one another: more than Python calls


def claude_line(ident: str | None = "msg_1") -> bytes:
    usage = {"input_tokens": 10, "output_tokens": 5}
    message = {"id": ident, "model": "claude-opus-4-6", "usage": usage}
    said = {"type": "assistant", "timestamp": "2026-11-20T10:00:00Z", "message": message}
    return json.dumps(said).encode() + b"\n"


GEMINI = {"id": "g1", "timestamp": "2026-11-20T10:00:00Z", "tokens": {"input": 10, "output": 5}}
CODEX = {"input_tokens": 10, "output_tokens": 5}
LINES = {
    "claude": claude_line(),
    "gemini": json.dumps(GEMINI).encode() + b"\n",
    "codex": json.dumps(
        {
            "timestamp": "2026-11-20T10:00:00Z",
            "type": "event_msg",
            "payload": {"type": "token_count", "info": {"total_token_usage": CODEX}},
        }
    ).encode()
    + b"\n",
}
PLACES = {
    "claude": "project/{}.jsonl",
    "gemini": "project/chats/{}.jsonl",
    "codex": "sessions/rollout-{}.jsonl",
}
TREES = sorted(LINES)


def file_in(root: Path, source: str, name: str) -> Path:
    path = root / PLACES[source].format(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def read(source: str, root: Path) -> Reading:
    return SOURCES[source].reader(str(root), None).read({}, 1 << 30)


def nested(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    opened = os.open(directory, os.O_RDONLY)
    for _ in range(DEEP):
        os.mkdir("a", dir_fd=opened)
        below = os.open("a", os.O_RDONLY, dir_fd=opened)
        os.close(opened)
        opened = below
    os.close(opened)


def shallow(directory: Path) -> None:
    """Take a deep tree apart from its top, as what removes it afterwards may not be able to."""
    parked = directory.parent / "parked"
    while (directory / "a").exists():
        (directory / "a").rename(parked)
        directory.rmdir()
        parked.rename(directory)


@pytest.mark.parametrize("source", TREES)
def test_a_link_to_a_file_that_says_it_is_empty_and_is_not_ends(tmp_path: Path, source: str):
    file_in(tmp_path, source, "1").write_bytes(LINES[source])
    file_in(tmp_path, source, "2").symlink_to("/proc/version")
    assert len(read(source, tmp_path).batch.records) == 1


@pytest.mark.parametrize("source", TREES)
def test_a_file_older_than_1970_is_read_once(tmp_path: Path, source: str):
    path = file_in(tmp_path, source, "1")
    path.write_bytes(LINES[source])
    os.utime(path, (-1e9, -1e9))
    batch = read(source, tmp_path).batch
    assert len(batch.records) == 1
    again = SOURCES[source].reader(str(tmp_path), None).read(batch.places, 1 << 30)
    assert not again.batch.places


@pytest.mark.parametrize("source", TREES)
def test_what_a_file_with_a_name_of_any_bytes_says_is_kept(tmp_path: Path, source: str):
    path = file_in(tmp_path, source, os.fsdecode(b"a\xff\n\x1b[2J"))
    path.write_bytes(LINES[source].replace(b'"msg_1"', b"null") + b'{"output_tokens" "tokens"\n')
    reading = read(source, tmp_path)
    assert len(reading.batch.records) == 1
    json.dumps([one.file for one in reading.remarks], ensure_ascii=False).encode()
    kept(tmp_path, reading.batch)


@pytest.mark.parametrize("source", TREES)
def test_trees_in_directories_of_any_bytes_are_kept_and_told_apart(tmp_path: Path, source: str):
    keys = set()
    for name in (b"d\xff", b"d\xfe"):
        root = tmp_path / os.fsdecode(name)
        file_in(root, source, "1").write_bytes(LINES[source])
        batch = read(source, root).batch
        assert len(batch.records) == 1
        assert batch.path.encode() == os.fsencode(tmp_path) + b"/d\\x%x" % name[1]
        kept(tmp_path, batch)
        keys.add(batch.key)
    assert len(keys) == 2


def kept(home: Path, batch: Batch) -> StoredReader | None:
    database = Database(home / "node.db")
    try:
        database.run_now(ledger.commit, batch, 0)
        return database.run_now(ledger.load, DiagnosticsKey(batch.key.source, batch.key.path_hash))
    finally:
        database.close()


@pytest.mark.parametrize("source", TREES)
def test_directories_deeper_than_any_stack_hide_nothing_beside_them(tmp_path: Path, source: str):
    path = file_in(tmp_path, source, "1")
    path.write_bytes(LINES[source])
    deep = path.parent / "subagents"
    nested(deep)
    try:
        reading = read(source, tmp_path)
        assert (len(reading.batch.records), reading.detail) == (1, "ok")
    finally:
        shallow(deep)


@pytest.mark.parametrize("source", TREES)
def test_directories_that_link_to_themselves_are_not_gone_round(tmp_path: Path, source: str):
    path = file_in(tmp_path, source, "1")
    path.write_bytes(LINES[source])
    (path.parent / "subagents").symlink_to(path.parent)
    assert len({one.idem_key for one in read(source, tmp_path).batch.records}) == 1


@pytest.mark.parametrize("source", TREES)
def test_links_that_lead_nowhere_hide_nothing_beside_them(tmp_path: Path, source: str):
    for link in ("0", "2"):
        for directory in (tmp_path, file_in(tmp_path, source, "1").parent):
            (directory / link).symlink_to(link)
    file_in(tmp_path, source, "0").symlink_to("1")
    file_in(tmp_path, source, "1").write_bytes(LINES[source])
    records = read(source, tmp_path).batch.records
    assert {one.usage.output for one in records} == {5}
