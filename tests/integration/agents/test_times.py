"""Positions and times of an agent's output, through rotations and under false indexes."""

import json
import os

import pytest

from meshnode.agents import times as module
from meshnode.agents.log import LOG_BYTES_MAX, Log
from meshnode.agents.output import Begin, follow_log, read_log
from meshnode.core.errors import RefusedError

pytestmark = pytest.mark.integration
CHUNK = b"x" * ((1 << 20) - 1) + b"\n"
CHUNKS = LOG_BYTES_MAX // len(CHUNK)


class Written:
    """A log whose clock is turned by hand."""

    def __init__(self, directory) -> None:
        self.directory = directory
        self.now_s = 1000.0
        self.log = Log(directory, lambda: self.now_s)

    def at(self, now_s: float, *chunks: bytes) -> None:
        self.now_s = now_s
        for chunk in chunks:
            self.log.write(chunk)

    def since(self, at_s: float) -> bytes:
        return b"".join(read_log(self.directory, Begin(since_s=at_s)))

    def follow(self, begin: Begin, *, ended: bool = False, turns: int = 999):
        left = iter(range(turns))
        return follow_log(
            self.directory,
            begin,
            ended=lambda: ended,
            enough=lambda: next(left, None) is None,
        )


@pytest.fixture
def written(tmp_path) -> Written:
    return Written(tmp_path)


def head_of(reading) -> dict:
    return json.loads(next(reading))


def test_output_is_found_by_its_time_to_a_second(written: Written):
    written.at(1000.0, b"one\n")
    written.at(1000.9, b"two\n")
    written.at(1060.0, b"three\n")
    assert written.since(900.0) == written.since(1001.0) == b"one\ntwo\nthree\n"
    assert written.since(1002.0) == written.since(1060.0) == b"three\n"
    assert written.since(1062.0) == b""


def test_output_is_found_by_its_time_across_a_rotation(written: Written):
    written.at(1000.0, b"old\n")
    written.at(1010.0, *[CHUNK] * CHUNKS)
    assert (written.directory / "output.log.1").exists()
    assert written.since(1005.0) == CHUNK * CHUNKS
    written.at(1020.0, b"new\n")
    assert written.since(1015.0) == b"new\n"


def test_a_clock_that_was_set_back_hides_nothing(written: Written):
    written.at(1000.0, b"one\n")
    written.at(500.0, b"two\n")
    assert written.since(999.0) == b"one\ntwo\n"


def test_old_times_are_told_less_finely_and_recent_ones_as_before(written, monkeypatch):
    monkeypatch.setattr(module, "SPANS_MAX", 16)
    for second in range(200):
        written.at(1000.0 + 2 * second, b"%03d\n" % second)
    size = (written.directory / "output.times").stat().st_size
    assert size <= module.INDEX_BYTES_MAX
    assert written.since(1000.0 + 2 * 199) == b"199\n"
    assert written.since(1000.0).startswith(b"000\n")
    late = written.since(1000.0 + 2 * 100)
    assert late.endswith(b"198\n199\n")
    assert b"100\n" in late


def test_followed_output_goes_on_through_rotations_byte_for_byte(written: Written):
    written.at(1000.0, b"one\n")
    reading = written.follow(Begin())
    assert head_of(reading) == {"position": 0, "lost": 0, "ended": False}
    assert next(reading) == b"one\n"
    told = []
    for number in range(20):
        written.at(1001.0, b"%02d\n" % number + CHUNK)
        while piece := next(reading):
            told.append(piece)
    told.extend(reading)
    wanted = b"".join(b"%02d\n" % number + CHUNK for number in range(20))
    is_same = b"".join(told) == wanted
    assert is_same


def test_what_was_rotated_away_unread_is_counted(written: Written):
    written.at(1000.0, b"one\n")
    written.at(1001.0, *[CHUNK] * (3 * CHUNKS))
    reading = written.follow(Begin(position=4))
    head = head_of(reading)
    assert head["lost"] == head["position"] - 4 > 0
    rest = b"".join(filter(None, reading))
    assert head["position"] + len(rest) == 4 + 3 * CHUNKS * len(CHUNK)


def test_output_is_followed_on_where_somebody_cuts_the_log(written: Written):
    written.at(1000.0, b"one\n")
    there, behind = written.follow(Begin()), written.follow(Begin())
    for reading in (there, behind):
        assert head_of(reading)["position"] == 0
        assert next(reading) == b"one\n"
    written.at(1001.0, b"two\n")
    assert next(filter(None, there)) == b"two\n"
    os.truncate(written.directory / "output.log", 0)  # as logrotate does with `copytruncate`
    assert next(there) == b""
    meanwhile = written.follow(Begin(position=8))
    assert head_of(meanwhile) == {"position": 8, "lost": 0, "ended": False}
    for number in range(3):
        written.at(1002.0, b"%04d" % number)
        assert next(filter(None, there)) == b"%04d" % number
    assert b"".join(meanwhile) == b"000000010002"
    assert list(behind) == [b""], "what is between is gone"
    assert head_of(written.follow(Begin(position=4))) == {
        "position": 8,
        "lost": 4,
        "ended": False,
    }
    assert written.since(900.0) == b"000000010002"


def test_a_cut_log_is_rotated_at_its_size_and_nothing_is_counted_twice(written: Written):
    written.at(1000.0, *[CHUNK] * (CHUNKS - 1))
    os.truncate(written.directory / "output.log", 100)
    written.at(1001.0, *[CHUNK] * (CHUNKS - 1))
    assert not (written.directory / "output.log.1").exists()
    written.at(1002.0, *[CHUNK] * 2)
    assert (written.directory / "output.log.1").exists()
    assert head_of(written.follow(Begin(tail_lines=0)))["position"] == 2 * CHUNKS * len(CHUNK)


def test_who_waits_for_more_reads_no_times(written: Written, monkeypatch):
    written.at(1000.0, b"one\n")
    told = []
    monkeypatch.setattr(
        "meshnode.agents.output.index_of", lambda raw: told.append(raw) or real(raw)
    )
    real = module.index_of
    for number in range(10):
        written.at(1002.0 + 2 * number, b"more\n")
    assert len(list(written.follow(Begin(), turns=2))) > 1
    assert {len(raw) for raw in told} == {module.HEAD_BYTES}
    assert written.since(1019.0) == b"more\n" * 2


def test_a_reading_of_what_has_ended_ends(written: Written):
    written.at(1000.0, b"one\ntwo\n")
    reading = written.follow(Begin(tail_lines=1), ended=True)
    assert head_of(reading) == {"position": 4, "lost": 0, "ended": True}
    assert list(reading) == [b"two\n"]


def test_a_reading_that_is_enough_ends_with_nothing_new(written: Written):
    assert list(written.follow(Begin(), turns=2))[1:] == [b"", b""]


def test_a_log_without_times_is_read_and_not_followed(tmp_path):
    (tmp_path / "output.log").write_bytes(b"of an older version\n")
    assert b"".join(read_log(tmp_path, Begin())) == b"of an older version\n"
    for reading in (
        read_log(tmp_path, Begin(since_s=1.0)),
        follow_log(tmp_path, Begin(), ended=lambda: True, enough=lambda: True),
    ):
        with pytest.raises(RefusedError, match="older version"):
            list(reading)


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"smtimes1",
        b"nonsense" * 9,
        b"smtimes1" + b"\xff" * 16,
        b"\x00" * 4096,
    ],
)
def test_a_false_index_is_refused_or_harmless(written: Written, index):
    written.at(1000.0, b"words\n")
    (written.directory / "output.times").write_bytes(index)
    assert b"".join(read_log(written.directory, Begin())) == b"words\n"
    with pytest.raises(RefusedError):
        written.since(1.0)


def test_a_position_beyond_the_end_waits_there(written: Written):
    written.at(1000.0, b"words\n")
    reading = written.follow(Begin(position=1 << 60), turns=1)
    assert head_of(reading)["position"] == 6
    assert list(reading) == [b""]
