"""How `logs` writes lines of a terminal."""

import io

import pytest

from session_mesh.commands.logs import _Text
from session_mesh.render import Streams


@pytest.mark.parametrize("size", [1, 2, 3, 5, 99])
def test_lines_of_a_terminal_end_as_lines_do_however_they_are_cut(size):
    raw = b"one\r\ntwo\r\r\n50%\rdone\n\xe6\xbc\xa2\r\n\xe6\xbc\r"
    out = io.StringIO()
    text = _Text(Streams(out, io.StringIO(), out_is_terminal=True), raw=False)
    for start in range(0, len(raw), size):
        text.write(raw[start : start + size])
    text.end()
    assert out.getvalue() == "one\ntwo\\u000d\n50%\\u000ddone\n\u6f22\n\ufffd\\u000d"
