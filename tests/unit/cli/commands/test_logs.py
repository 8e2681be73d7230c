"""How `logs` writes lines of a terminal, and what it says of the end of a session."""

import io
import json
from dataclasses import dataclass, field

import pytest
from unit.cli.doubles import SESSION, Mesh

from meshnode.client import clock
from meshnode.client.errors import UnreachableError
from meshnode.client.records.output import Piece
from session_mesh.call import Call
from session_mesh.commands.logs import LINE_BYTES_MAX, _Documents, _Text
from session_mesh.output.render import Streams

RUNS = SESSION | {"end_reason": None}
ENDED = SESSION | {"state": "closed", "phase": "CLOSED", "end_reason": "closed by command"}


@dataclass
class Followed(Mesh):
    """A session that is followed, and how it is each time that it is looked at."""

    states: list[dict | BaseException] = field(default_factory=list)

    def follow_logs(self, session, span, absent):
        self.calls.append(("follow", session["session_id"], span, absent))
        yield Piece(0, b"words\n")

    def resolve(self, target):
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, BaseException):
            raise state
        return super().resolve(target) | state


@pytest.fixture
def followed(monkeypatch):
    mesh = Followed()
    monkeypatch.setattr(Call, "mesh", lambda _: mesh)
    monkeypatch.setattr(clock, "pause", lambda pause_s: mesh.calls.append(("pause", pause_s)))
    return mesh


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ([RUNS, ENDED], "it has ended: closed by command\n"),
        ([RUNS, RUNS, RUNS, ENDED], "it has ended: closed by command\n"),
        ([RUNS, ENDED | {"end_reason": None}], "it has ended: closed\n"),
        ([RUNS], "it has ended\n"),
        ([RUNS, UnreachableError("away")], "it has ended\n"),
    ],
    ids=["known", "known soon", "without a reason", "never known", "nobody answers"],
)
def test_of_an_end_is_said_what_is_known_and_that_it_is_one(run, followed, states, said):
    followed.states = states
    code, out, err = run("logs", "builder", "--follow")
    assert (code, out, err) == (0, "words\n", said)
    assert sum(pause_s for what, pause_s, *_ in followed.calls if what == "pause") <= 3.1


def test_with_quiet_nothing_is_said_of_an_end_and_nobody_waits_for_it(run, followed):
    followed.states = [RUNS]
    assert run("logs", "builder", "--follow", "-q") == (0, "words\n", "")
    assert [what for what, *_ in followed.calls] == ["resolve", "follow"]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 99])
def test_lines_of_a_terminal_end_as_lines_do_however_they_are_cut(size):
    raw = b"one\r\ntwo\r\r\n50%\rdone\n\xe6\xbc\xa2\r\n\xe6\xbc\r"
    out = io.StringIO()
    text = _Text(Streams(out, io.StringIO(), out_is_terminal=True), raw=False)
    for start in range(0, len(raw), size):
        text.write(raw[start : start + size])
    text.end()
    assert out.getvalue() == "one\ntwo\\u000d\n50%\\u000ddone\n\u6f22\n\ufffd\\u000d"


@pytest.mark.parametrize("character", ["a", "\xe9", "\u65e5", "\U0001f600"])
@pytest.mark.parametrize("before", ["", "-", "--", "---"])
@pytest.mark.parametrize("size", [LINE_BYTES_MAX - 1, LINE_BYTES_MAX, 1 << 20])
def test_a_long_line_in_several_documents_is_what_it_was(character, before, size):
    line = before + character * 100_000 + "\n"
    out, raw = io.StringIO(), line.encode()
    documents = _Documents(Streams(out, io.StringIO()))
    for start in range(0, len(raw), size):
        documents.write(raw[start : start + size], start)
    documents.end()
    said = [json.loads(one) for one in out.getvalue().splitlines()]
    assert "".join(one["output"] for one in said) == line
    sizes = [len(one["output"].encode()) for one in said]
    assert max(sizes) <= LINE_BYTES_MAX
    assert [one["position"] for one in said] == [sum(sizes[:n]) for n in range(len(sizes))]


def test_a_long_line_that_is_no_utf_8_is_cut_all_the_same():
    out = io.StringIO()
    documents = _Documents(Streams(out, io.StringIO()))
    documents.write(b"\x80" * (2 * LINE_BYTES_MAX))
    documents.end()
    said = [json.loads(one)["output"] for one in out.getvalue().splitlines()]
    assert said == ["\ufffd" * LINE_BYTES_MAX] * 2


def test_the_letters_that_tail_has_for_it_do_too(run, followed):
    followed.states = [ENDED]
    assert run("logs", "builder", "-f", "-n", "5")[0] == 0
    assert run("logs", "builder", "--follow", "--tail", "5")[0] == 0
    spans = [call[2] for call in followed.calls if call[0] == "follow"]
    assert [span.tail for span in spans] == [5, 5]
