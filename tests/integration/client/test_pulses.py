"""A node that says that it lives, then says nothing; and one that never said so."""

import json
from threading import enumerate as enumerate_threads

import pytest
from integration.client.service import session

from meshnode.client.connection import absence, pulses
from meshnode.client.connection.absence import ATTEMPT_S_MAX, GIVE_UP_S, NOTICED_S, Absence
from meshnode.client.errors import NoNodeError, SilentNodeError
from meshnode.client.records.output import Following, Span, read
from meshnode.client.targets.targets import Target

pytestmark = pytest.mark.integration
FOLLOWED = {"follow": True}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(pulses, "LOOK_S", 0.01)
    monkeypatch.setattr(pulses, "SILENT_S", 0.05)


@pytest.fixture
def builder(mesh, service):
    service.sessions = [session("builder")]
    return mesh.resolve(Target("builder"))


def head(position, *, ended=False):
    return json.dumps({"position": position, "lost": 0, "ended": ended}).encode() + b"\n"


def listeners():
    return [one for one in enumerate_threads() if one.name == "silence"]


def test_a_node_whose_pulses_cease_is_silent(mesh, service, builder):
    service.readings = [[b"", b"one", None]]
    pieces = read(mesh, builder, FOLLOWED)
    assert next(pieces) == b"one"
    with pytest.raises(SilentNodeError):
        next(pieces)


def test_a_node_that_has_no_pulse_is_waited_for(mesh, service, builder):
    service.hangs_s = 0.5
    service.readings = [[b"one", None, b"two"]]
    assert list(read(mesh, builder, FOLLOWED)) == [b"one", b"two"]


def test_who_takes_its_time_to_read_accuses_nobody(mesh, service, builder):
    service.readings = [[b"", b"one", b"two"]]
    pieces = read(mesh, builder, FOLLOWED)
    assert next(pieces) == b"one"
    (listener,) = listeners()
    listener.join(0.5)  # nobody asks for more meanwhile
    assert listener.is_alive()
    assert list(pieces) == [b"two"]


def test_output_is_followed_on_where_a_node_fell_silent(mesh, service, builder):
    service.readings = [
        [b"", head(0), b"one", None],
        [None],  # known to have a pulse, so it is not waited for either
        [b"", head(3, ended=True), b"", b"two"],
    ]
    told = []
    following = Following(mesh, builder, told.append, lambda _: None)
    assert [piece.output for piece in following.pieces(Span())] == [b"one", b"two"]


def test_attempts_count_as_absence_and_so_does_what_ended_a_stream(monkeypatch):
    now_s, told = [0.0], []

    def attempt():
        now_s[0] += 1000.0  # as a stream that went well for long

    monkeypatch.setattr(absence.clock, "steady_s", lambda: now_s[0])
    one = Absence(lambda _: None, told.append)
    one.notice(NoNodeError())
    one.wait()
    assert not told
    attempt()
    one.wait()
    assert not one.is_too_long
    one.end()
    one.notice(SilentNodeError("7", NOTICED_S))
    assert told == [True]
    for _ in range(int(GIVE_UP_S / ATTEMPT_S_MAX) + 1):
        one.wait()
        attempt()
    assert one.is_too_long
