"""What a log was rotated into: its names, how many there may be, and that it is read once."""

import gzip
import os
from pathlib import Path

import pytest
from unit.ingest.rotating import Log, call

from meshnode.core.packing import pack, unpack
from meshnode.ingest.higress import HigressReader
from meshnode.ingest.rotated import FILES_MAX, files, owns
from meshnode.ingest.rotation import POSITION


@pytest.mark.parametrize(
    "name",
    [
        "access-2026-11-20T09-30-15.123.log",  # as Go's lumberjack renames
        "access-2026-11-20.log",
        "access-20261120.log",
        "access-20261120T0930.log",
        "access.log-2026-11-20T09-30-15.123",
        "access.log.2026-11-20T09:30:15Z",
        "access.log.7",
    ],
)
def test_a_log_is_read_on_under_whatever_date_it_is_kept(log: Log, name: str):
    log.write(call(1))
    assert log.keys() == ["r1"]
    log.write(call(2))
    log.reader.close()
    log.reader = HigressReader(str(log.path))  # nothing is held open
    dated = log.rename(name)
    log.write(call(3))
    assert log.keys() == ["r2", "r3"]
    assert owns([str(log.path)])(str(dated))
    packed = dated.with_name(f"{name}.gz")
    packed.write_bytes(gzip.compress(dated.read_bytes() + call(4)))
    dated.unlink()
    assert log.keys() == ["r4"]
    assert owns([str(log.path)])(str(packed))
    assert files(str(log.path)) == [packed, log.path]


@pytest.mark.parametrize(
    "name",
    ["access-2026.log", "access-2026-11-20-errors.log", "access-v20261120.log", "access2-1.log"],
)
def test_another_log_beside_it_is_no_part_of_it(log: Log, name: str):
    log.write(call(1))
    log.path.with_name(name).write_bytes(call(2))
    assert log.keys() == ["r1"]
    assert not owns([str(log.path)])(str(log.path.with_name(name)))


def test_the_position_stays_small_with_many_rotated_files(log: Log):
    for number in range(2 * FILES_MAX + 9):
        log.path.with_name(f"access.log.{number}").write_bytes(call(number))
    assert len(log.read().batch.records) == FILES_MAX
    assert len(log.places[POSITION]) < 128 * 2 * FILES_MAX


def test_rotated_files_that_are_too_many_are_told(log: Log):
    for number in range(FILES_MAX + 6):
        rotated = log.path.with_name(f"access.log-{number:04}")
        rotated.write_bytes(call(number))
        os.utime(rotated, (number, number))
    log.write(call(9999))
    reading = log.read()
    assert len(reading.batch.records) == FILES_MAX + 1
    assert reading.detail.startswith(f"6 older files that {log.path} was rotated into are ")
    log.path.with_name("access.log-0000").unlink()
    assert log.read().detail.startswith("5 older files")


def test_hourly_files_of_two_weeks_are_read(log: Log):
    for number in range(14 * 24):
        log.path.with_name(f"access.log-{number:04}").write_bytes(call(number))
    reading = log.read()
    assert (len(reading.batch.records), reading.more) == (14 * 24, False)


def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the names of files as they are opened."""
    names: list[str] = []
    usual = Path.open

    def noted(path: Path, *mode: str, **more: int):
        names.append(path.name)
        return usual(path, *mode, **more)

    monkeypatch.setattr(Path, "open", noted)
    return names


def test_what_was_rotated_and_read_to_its_end_is_not_opened_again(
    log: Log, monkeypatch: pytest.MonkeyPatch
):
    packed = log.path.with_name("access.log.2.gz")
    packed.write_bytes(gzip.compress(call(1) + call(2)))
    plain = log.path.with_name("access.log.1")
    plain.write_bytes(call(3))
    log.write(call(4))
    names = opened(monkeypatch)
    assert len(log.keys()) == 4
    assert sorted(names) == ["access.log", "access.log.1", "access.log.2.gz"]
    position = dict(log.places)
    for _ in range(2):
        names.clear()
        log.reader.close()
        log.reader = HigressReader(str(log.path))  # as the next call of `usage` makes one
        assert log.keys() == []
        assert names == ["access.log"]
    assert log.places == position
    with plain.open("ab") as late:
        late.write(call(5))
    assert log.keys() == ["r5"]
    packed.write_bytes(gzip.compress(call(1) + call(2) + call(6)))
    assert log.keys() == ["r6"]


def test_a_packed_log_that_is_read_in_pieces_is_read_to_its_end_by_the_next_reader(log: Log):
    log.path.with_name("access.log.1.gz").write_bytes(gzip.compress(call(1) + call(2) + call(3)))
    log.write(call(4))
    assert log.keys(len(call(1))) == ["r1"]
    log.reader.close()
    log.reader = HigressReader(str(log.path))
    assert log.keys() == ["r2", "r3", "r4"]


def test_a_position_of_an_older_version_is_read_on_from(log: Log):
    log.write(call(1))
    log.keys()
    log.rename("access.log.1")
    log.write(call(2))
    log.places = {POSITION: pack([values[:6] for values in unpack(log.places[POSITION])])}
    assert log.keys() == ["r2"]
