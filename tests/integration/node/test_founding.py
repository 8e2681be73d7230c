"""An attempt to make a mesh that did not come to its end is in nobody's way."""

import os

import pytest

from meshnode.client.home import Home, make_private
from meshnode.client.keys.keyfiles import read_secret
from meshnode.core.errors import ConflictError, RefusedError, StorageError
from meshnode.core.keys import Key
from meshnode.node import lock
from meshnode.node.clock import SystemClock
from meshnode.node.homes import founding
from meshnode.node.homes.founding import init, read_genesis
from meshnode.node.lock import HomeLock

pytestmark = pytest.mark.integration


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "h")


@pytest.mark.parametrize("step", ["write_secret", "Database", "remember", "settle", "write_whole"])
def test_a_mesh_is_made_although_an_attempt_before_was_interrupted(home, monkeypatch, step):
    left = 0
    real = getattr(founding, step)

    def interrupted(*args, **options):
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        return real(*args, **options)

    monkeypatch.setattr(founding, step, interrupted)
    for number in range(6):
        left = number
        try:
            init(home, "mesh", "anna", None)
        except KeyboardInterrupt:
            assert not home.initialised
        else:
            break
    monkeypatch.undo()
    if not home.initialised:
        init(home, "mesh", "anna", None)
    assert read_genesis(home).root_keys == (Key(read_secret(home.root_key)).public,)
    with pytest.raises(ConflictError, match="belongs to a mesh already"):
        init(home, "mesh", "anna", None)


def test_nothing_is_made_in_a_home_that_another_process_changes(home):
    make_private(home.path)
    with HomeLock(home), pytest.raises(ConflictError, match=str(os.getpid())):
        init(home, "mesh", "anna", None)
    assert [one.name for one in home.path.iterdir()] == ["run"]


def test_a_lock_on_a_full_disk_is_told_in_a_sentence_and_let_go(home, monkeypatch):
    make_private(home.path)

    def full(*_args):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched:
        patched.setattr(lock.os, "pwrite", full)
        with pytest.raises(StorageError, match="cannot write"):
            HomeLock(home).__enter__()
    with HomeLock(home):
        assert home.lock.read_text().split()[0] == str(os.getpid())


def test_no_mesh_is_made_at_a_time_that_cannot_be(home, monkeypatch):
    """Its certificates would have expired once the clock is right."""
    with monkeypatch.context() as patched:
        patched.setattr(SystemClock, "wall_s", lambda _: 86_400.0)
        with pytest.raises(RefusedError, match="clock says 1970-01-02"):
            init(home, None, "anna", None)
    assert not home.initialised
    init(home, None, "anna", None)
    assert home.initialised
