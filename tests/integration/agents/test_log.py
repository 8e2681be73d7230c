"""The agent's log where opening a file fails, or something has become of it."""

import json
import os
import resource
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from integration.agents.front import PYTHON, Supervised

from meshnode.agents.log import LOG_BYTES_MAX, ROTATE_AGAIN_S, Log
from meshnode.agents.output import Begin, follow_log

pytestmark = pytest.mark.integration

CHUNK = b"x" * (1 << 20)
DESCRIPTORS_MAX = 64  # of a supervisor under test, which needs a dozen
# Fills its log, then writes more pieces than its supervisor may have descriptors.
WRITER = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
os.write(1, b"ready\\n")
signal.sigwait({signal.SIGUSR1})
os.write(1, b"x" * (17 << 20))
for _ in range(200):
    os.write(1, b"x" * 65536)
os.write(1, b"written\\n")
signal.pause()
"""


@contextmanager
def limited(what, to):
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (to, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))


def no_more_files():
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    return limited(resource.RLIMIT_NOFILE, free)


def no_room():
    """Files can be made and not written to, as on a full disk."""
    return limited(resource.RLIMIT_FSIZE, 0)


def descriptors(pid="self"):
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


class Full:
    """A log that the next piece rotates, and its clock, which is turned by hand."""

    def __init__(self, directory):
        self.directory, self.now_s = directory, 1000.0
        self.log = Log(directory, lambda: self.now_s)
        for _ in range(LOG_BYTES_MAX // len(CHUNK)):
            self.log.write(CHUNK)

    def later(self, chunk):
        """Write when a rotation that failed is tried again."""
        self.now_s += ROTATE_AGAIN_S
        self.log.write(chunk)


@pytest.fixture
def full(tmp_path):
    return Full(tmp_path)


def test_a_rotation_that_fails_loses_no_more_than_was_written_until_it_works(full):
    with no_more_files():
        full.log.write(b"lost\n")
        full.later(b"lost\n")
    full.later(b"kept\n")
    assert (full.directory / "output.log").read_bytes() == b"kept\n"
    assert (full.directory / "output.log.1").stat().st_size == LOG_BYTES_MAX


def test_a_log_that_somebody_took_away_begins_anew(full):
    (full.directory / "output.log").unlink()
    full.log.write(b"kept\n")
    assert (full.directory / "output.log").read_bytes() == b"kept\n"


def test_a_rotation_on_a_full_disk_keeps_no_file_open(full):
    before = descriptors()
    with no_room():
        for _ in range(9):
            full.later(b"lost\n")
    assert descriptors() == before
    full.later(b"kept\n")
    assert (full.directory / "output.log").read_bytes() == b"kept\n"


def test_a_rotation_that_failed_is_not_tried_again_with_every_piece(full):
    (full.directory / "output.log.1").mkdir()
    full.log.write(b"lost\n")
    (full.directory / "output.log.1").rmdir()
    full.log.write(b"lost\n")
    assert not (full.directory / "output.log.1").exists()
    full.later(b"kept\n")
    assert (full.directory / "output.log").read_bytes() == b"kept\n"


@pytest.mark.parametrize("name", ["output.log.1", "output.times.1"])
def test_a_rotation_that_fails_half_way_leaves_the_log_with_its_index(full, name):
    before = descriptors()
    (full.directory / name).mkdir()
    for _ in range(3):
        full.later(b"lost\n")
    assert descriptors() == before
    (full.directory / name).rmdir()
    begin = Begin(position=LOG_BYTES_MAX)
    reading = follow_log(full.directory, begin, ended=lambda: False, enough=lambda: True)
    assert json.loads(next(reading)) == {"position": LOG_BYTES_MAX, "lost": 0, "ended": False}


def test_an_agent_whose_log_cannot_be_rotated_is_still_killed(tmp_path, short_path):
    (tmp_path / "output.log.1").mkdir()
    one = Supervised(tmp_path, short_path / "0", (*PYTHON, WRITER), stderr=subprocess.DEVNULL)
    try:
        assert one.line() == b"ready\n"
        one.connect()
        agent = one.ask("info")["pid"]
        limits = (DESCRIPTORS_MAX, DESCRIPTORS_MAX)
        resource.prlimit(one.process.pid, resource.RLIMIT_NOFILE, limits)
        before = descriptors(one.process.pid)
        os.kill(agent, signal.SIGUSR1)
        assert one.line().endswith(b"written\n")
        assert descriptors(one.process.pid) == before
        reply = one.ask("kill", force=True)
        assert reply == {"id": 7, "ok": True, "found": 1, "gone": 1, "survivors": []}
        assert one.process.wait() == 128 + signal.SIGKILL
    finally:
        one.end()
