import pytest

from meshnode.agents import log, output
from meshnode.agents.log import Log
from meshnode.agents.output import Begin, read_log

pytestmark = pytest.mark.integration


def write_log(directory, older, newest):
    if older is not None:
        (directory / "output.log.1").write_bytes(older)
    (directory / "output.log").write_bytes(newest)


@pytest.mark.parametrize(
    ("tail_lines", "text"),
    [
        (None, b"1\n2\n3 and more\n4\n"),
        (0, b""),
        (1, b"4\n"),
        (2, b"3 and more\n4\n"),
        (3, b"2\n3 and more\n4\n"),
        (99, b"1\n2\n3 and more\n4\n"),
    ],
)
def test_a_tail_counts_lines_across_a_rotation(tmp_path, tail_lines, text):
    write_log(tmp_path, b"1\n2\n3 and", b" more\n4\n")
    assert b"".join(read_log(tmp_path, Begin(tail_lines))) == text


def test_a_rotation_at_the_end_of_a_line_loses_no_line(tmp_path):
    write_log(tmp_path, b"1\n2\n", b"3\n4")
    assert b"".join(read_log(tmp_path, Begin(1))) == b"4"
    assert b"".join(read_log(tmp_path, Begin(2))) == b"3\n4"
    assert b"".join(read_log(tmp_path, Begin(3))) == b"2\n3\n4"


def test_a_long_log_comes_in_bounded_chunks(tmp_path):
    text = b"".join(b"line %06d\n" % number for number in range(50_000))
    write_log(tmp_path, None, text)
    chunks = list(read_log(tmp_path, Begin(None)))
    assert b"".join(chunks) == text
    assert max(map(len, chunks)) <= 64 << 10
    assert b"".join(read_log(tmp_path, Begin(20_000))) == text[-20_000 * 12 :]


def test_a_session_without_a_log_has_no_lines(tmp_path):
    assert list(read_log(tmp_path, Begin(10))) == []


@pytest.mark.parametrize("times", [1, 2, 3])
def test_what_is_rotated_while_it_is_opened_is_read_in_its_order(tmp_path, monkeypatch, times):
    monkeypatch.setattr(log, "LOG_BYTES_MAX", 8)
    open_, written = output._plain_file, Log(tmp_path, lambda: 1.0)
    for number in range(2):
        written.write(b"line %d\n" % number)

    def opening(path):
        file = open_(path)
        if opened := not rotated:
            rotated.append(path)
        for number in range(times * opened):
            written.write(b"line %d\n" % (2 + number))
        return file

    rotated = []
    monkeypatch.setattr(output, "_plain_file", opening)
    read = b"".join(read_log(tmp_path, Begin(None)))
    assert read == b"line %d\nline %d\n" % (times, times + 1)
