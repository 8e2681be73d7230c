"""The agent's log where opening a file fails, or something has become of it."""

import os
import resource
import time
from contextlib import contextmanager

import pytest

from meshnode.agents.log import LOG_BYTES_MAX, Log

pytestmark = pytest.mark.integration

CHUNK = b"x" * (1 << 20)


@contextmanager
def no_more_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def full_log(directory):
    log = Log(directory, time.time)
    for _ in range(LOG_BYTES_MAX // len(CHUNK)):
        log.write(CHUNK)
    return log


def test_a_rotation_that_fails_loses_no_more_than_was_written_until_it_works(tmp_path):
    log = full_log(tmp_path)
    with no_more_files():
        log.write(b"lost\n")
        log.write(b"lost\n")
    log.write(b"kept\n")
    assert (tmp_path / "output.log").read_bytes() == b"kept\n"
    assert (tmp_path / "output.log.1").stat().st_size == LOG_BYTES_MAX


def test_a_log_that_somebody_took_away_begins_anew(tmp_path):
    log = full_log(tmp_path)
    (tmp_path / "output.log").unlink()
    log.write(b"kept\n")
    assert (tmp_path / "output.log").read_bytes() == b"kept\n"
