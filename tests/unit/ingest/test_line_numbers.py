"""Lines by their offsets, of files as they are: plain, packed, cut short, gone, or no files."""

import gzip
import os
from pathlib import Path

import pytest

from meshnode.ingest import line_numbers
from meshnode.ingest.lenient import file_text
from meshnode.ingest.line_numbers import line_numbers as numbers_of

TEXT = b"one\n\nthree \xff\r\n" + b"x" * 100 + b"\nfive"
OFFSETS = {0: 1, 4: 2, 5: 3, 14: 4, 115: 5}


@pytest.mark.parametrize("name", ["a.log", "a.log.1.gz", os.fsdecode(b"\xff.log")])
def test_offsets_of_lines_are_their_numbers(tmp_path: Path, name: str, monkeypatch):
    monkeypatch.setattr(line_numbers, "PIECE_BYTES", 7)
    path = tmp_path / name
    path.write_bytes(gzip.compress(TEXT) if name.endswith(".gz") else TEXT)
    assert numbers_of(file_text(path), [115, *OFFSETS, 4]) == OFFSETS


def test_what_is_not_there_any_more_has_no_number(tmp_path: Path, monkeypatch):
    path = tmp_path / "a.log"
    assert numbers_of(str(path), [0, 4]) == {}
    path.write_bytes(TEXT[:8])
    assert numbers_of(str(path), OFFSETS) == {0: 1, 4: 2, 5: 3}
    (cut := tmp_path / "b.log.gz").write_bytes(gzip.compress(os.urandom(5000))[:-2500])
    assert numbers_of(str(cut), [0, 4999]) == {0: 1}
    os.mkfifo(tmp_path / "pipe")
    assert numbers_of(str(tmp_path / "pipe"), [0]) == {}
    monkeypatch.setattr(line_numbers, "READ_BYTES_MAX", 4)
    assert numbers_of(str(path), OFFSETS) == {0: 1, 4: 2}
