"""What is said about work that takes long, and to whom."""

import io

import pytest

from session_mesh import call as calls
from session_mesh.call import Call
from session_mesh.output.render import Streams
from session_mesh.views.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(calls, "wall_s", lambda: now[0])
    return now


def noted(clock, *, terminal: bool) -> tuple[Progress, io.StringIO]:
    streams = Streams(io.StringIO(), io.StringIO(), err_is_terminal=terminal)
    progress = Progress(Call(streams), 900)
    for done in range(1, 31):
        clock[0] += 0.1
        progress.note(done)
    return progress, streams.err


def test_a_terminal_hears_every_second_how_far_it_is(clock):
    _, err = noted(clock, terminal=True)
    lines = err.getvalue().splitlines()
    assert 2 <= len(lines) <= 3
    assert all(line.endswith("of 900 entries are registered") for line in lines)


def test_a_program_hears_nothing_until_it_goes_wrong(clock):
    progress, err = noted(clock, terminal=False)
    assert err.getvalue() == ""
    progress.stop()
    assert err.getvalue() == "30 of 900 entries are registered\n"
