"""Packed logs in pieces: what they say, and how often they are unpacked."""

import gzip
import json
from pathlib import Path
from random import Random

import pytest

from meshnode.ingest import unpacking
from meshnode.ingest.higress import HigressReader
from meshnode.ingest.unpacking import KEPT_BYTES, Unpacked

WHOLE = b"the first line\n" + Random(1).randbytes(3 * KEPT_BYTES)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "access.log.1.gz"
    path.write_bytes(gzip.compress(WHOLE, 1))
    return path


def test_every_place_says_what_the_whole_file_says(packed: Path):
    chance, file = Random(2), Unpacked(packed.open("rb"))
    for _ in range(40):
        offset, size = chance.randrange(len(WHOLE) + 9), chance.randrange(1 << 17)
        file.seek(offset)
        assert file.read(size) == WHOLE[offset : offset + size]
        assert file.read(7) == WHOLE[offset:][size : size + 7]
        assert file.readline(1 << 20) == b"the first line\n"
    file.close()


def test_pieces_in_their_order_are_unpacked_once(packed: Path, monkeypatch: pytest.MonkeyPatch):
    unpacked = 0

    class Counting(gzip.GzipFile):
        def read(self, size: int | None = -1) -> bytes:
            nonlocal unpacked
            found = super().read(size)
            unpacked += len(found)
            return found

    monkeypatch.setattr(unpacking.gzip, "GzipFile", Counting)
    file, offset = Unpacked(packed.open("rb")), 0
    while offset < len(WHOLE):
        file.readline(1 << 20)
        file.seek(max(offset - 4096, 0))
        offset = max(offset - 4096, 0) + len(file.read(100_000))
    file.close()
    assert unpacked == len(WHOLE)


def test_a_broken_file_is_told_and_can_be_closed(tmp_path: Path):
    path = tmp_path / "broken.gz"
    path.write_bytes(gzip.compress(WHOLE, 1)[:99_999])
    file = Unpacked(path.open("rb"))
    with pytest.raises(EOFError):
        file.read(len(WHOLE))
    file.close()


def test_a_packed_log_is_read_on_piece_by_piece(tmp_path: Path):
    call = {"ai_log": json.dumps({"model": "gpt-4o", "input_token": 3})}
    calls = [
        call | {"request_id": f"r{number}", "start_time": "2026-11-20T09:30:15Z"}
        for number in range(10, 70)
    ]
    lines = [json.dumps(one).encode() + b"\n" for one in calls]
    (tmp_path / "access.log.1.gz").write_bytes(gzip.compress(b"".join(lines)))
    reader, places, keys = HigressReader(str(tmp_path / "access.log")), dict[bytes, bytes](), []
    more = True
    while more:
        reading = reader.read(places, 2 * len(lines[0]))
        assert len(reading.batch.records) <= 3
        keys += [record.idem_key for record in reading.batch.records]
        places, more = {**places, **reading.batch.places}, reading.more
    reader.close()
    assert keys == [f"higress:{one['request_id']}" for one in calls]
