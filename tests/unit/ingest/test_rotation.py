"""A log that is rotated, copied, truncated and packed, of lines as Higress writes them."""

import gzip
import os
from codecs import BOM_UTF8
from pathlib import Path

import pytest
from unit.ingest.rotating import ALL, GOLDEN, Log, call

from meshnode.core.ledger.ledger import Diagnostics
from meshnode.ingest.higress import HigressReader
from meshnode.ingest.reading import LINE_BYTES_MAX
from meshnode.ingest.rotated import files
from meshnode.ingest.rotation import HEAD_BYTES, OPEN_FILES_MAX, POSITION


def test_only_what_is_new_is_read(log: Log):
    log.write(call(1), call(2))
    assert log.keys() == ["r1", "r2"]
    assert log.keys() == []
    log.write(call(3))
    assert log.keys() == ["r3"]


def test_a_mark_of_the_byte_order_costs_no_line(log: Log):
    log.write(BOM_UTF8, call(1), call(2))
    assert log.keys() == ["r1", "r2"]
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
    def refuse(*_: object, **__: object) -> None:
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


@pytest.mark.parametrize("begins", [b"", b"header\n"])
@pytest.mark.parametrize("parts", [ALL, len(call(1))])  # a part leaves the rest in a buffer
def test_a_log_that_was_emptied_in_place_and_then_renamed_is_read_as_it_is(
    log: Log, begins: bytes, parts: int
):
    log.write(begins, call(1), call(2), call(3))
    log.read(parts + len(begins))
    log.read()
    log.path.write_bytes(begins + call(4) + call(5) + call(6) + call(7))
    log.rename("elsewhere")
    log.write(begins + call(8))
    assert sorted(log.keys()) == ["r4", "r5", "r6", "r7", "r8"]
    assert log.keys() == []


def test_a_first_line_of_any_length_names_its_file(log: Log):
    for size in (HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + 1, LINE_BYTES_MAX + 1):
        log.path.write_bytes(b"x" * (size - 1) + b"\n" + call(size))
        assert log.keys() == [f"r{size}"]
        assert log.keys() == []
    log.path.write_bytes(b"x" * (HEAD_BYTES + 9))
    assert log.read().batch.diagnostics == Diagnostics(partial_tail_bytes=HEAD_BYTES + 9)


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


def test_a_packed_log_that_is_named_itself_is_unpacked(log: Log):
    packed = log.path.with_name("copy.log.gz")
    packed.write_bytes(gzip.compress(call(1) + call(2)))
    reader = HigressReader(str(packed))
    reading = reader.read({}, ALL)
    reader.close()
    assert (len(reading.batch.records), reading.detail) == (2, "ok")
    assert files(str(packed)) == [packed]


def test_what_is_packed_in_a_way_that_is_not_read_is_named(log: Log):
    log.path.write_bytes(call(1))
    for number, suffix in enumerate(("xz", "zst", "bz2"), 2):
        log.path.with_name(f"access.log.{number}.{suffix}").write_bytes(b"packed")
    reading = log.reader.read({}, ALL)
    assert len(reading.batch.records) == 1
    assert reading.detail.startswith("not read since it was packed: ")
    assert " and 2 more: unpack it" in reading.detail
    assert files(str(log.path)) == [log.path]


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
