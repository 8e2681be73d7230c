"""Where a home's sockets are when its path is too long for them."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from meshnode.client.connection.connection import Connection
from meshnode.client.errors import NoNodeError
from meshnode.client.home import Home, make_run, read_plain
from meshnode.core.errors import ConflictError, NotPermittedError, UsageError
from meshnode.node.lock import HomeLock


@pytest.fixture
def home(tmp_path, monkeypatch) -> Home:
    for name in ("runtime", "other"):
        (tmp_path / name).mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    home = Home(tmp_path / ("l" * 90) / "home")
    home.path.mkdir(mode=0o700, parents=True)
    return home


def test_a_node_is_found_from_any_environment(home, tmp_path, monkeypatch):
    with HomeLock(home):
        chosen = home.run
        assert chosen.parent == tmp_path / "runtime"
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "other"))
        assert home.run == chosen
        monkeypatch.delenv("XDG_RUNTIME_DIR")
        assert home.run == chosen
        with pytest.raises(ConflictError), HomeLock(home):
            pass
    assert not list((tmp_path / "other").iterdir())


def test_a_place_that_is_gone_is_chosen_anew(home, tmp_path, monkeypatch):
    with HomeLock(home):
        gone = home.run
    shutil.rmtree(gone)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "other"))
    with HomeLock(home):
        assert home.run.parent == tmp_path / "other"
        monkeypatch.delenv("XDG_RUNTIME_DIR")
        assert home.run.parent == tmp_path / "other"


def test_where_sockets_cannot_be_put_outside_it_is_said_why_they_are_there(
    home, tmp_path, monkeypatch
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file" / "runtime"))
    with pytest.raises(NotPermittedError) as refused, HomeLock(home):
        pass
    assert str(tmp_path / "file") in refused.value.message
    assert "its path is too long for sockets" in refused.value.hint
    assert "XDG_RUNTIME_DIR" in refused.value.hint


def test_a_short_home_that_cannot_be_written_is_not_said_to_be_too_long():
    with tempfile.NamedTemporaryFile() as file:  # a test's own directory may be too long itself
        with pytest.raises(NotPermittedError) as refused:
            make_run(Home(Path(file.name) / "h"))  # which has its sockets in itself
        assert "too long" not in refused.value.hint


def test_a_node_that_left_no_word_is_found_as_before(home, tmp_path):
    assert home.run.parent == tmp_path / "runtime"
    assert not os.path.lexists(home.path / "run")


def test_a_copy_of_a_home_has_a_place_of_its_own(home, tmp_path):
    with HomeLock(home):
        copy = Home(home.path.with_name("copy"))
        shutil.copytree(home.path, copy.path, symlinks=True)
        copy.path.chmod(0o700)
        assert copy.run != home.run
        with HomeLock(copy):
            assert copy.run.parent == home.run.parent


def test_a_short_path_needs_no_link(tmp_path):
    home = Home(tmp_path / "h")
    home.path.mkdir(mode=0o700)
    with HomeLock(home):
        assert home.run == home.path / "run"
        assert not home.run.is_symlink()


def moved(home: Home, tmp_path) -> Home:
    """Move a home that was locked to a path that is short enough for sockets."""
    with HomeLock(home):
        assert (home.path / "run").is_symlink()
    return Home(home.path.rename(tmp_path / "h"))


def test_a_home_that_has_come_from_a_longer_path_has_its_sockets_within(home, tmp_path):
    short = moved(home, tmp_path)
    with pytest.raises(NoNodeError):  # of the one that may run where it was
        Connection(short).connected()
    with HomeLock(short):
        assert short.run == short.path / "run"
        assert not short.run.is_symlink()
        with pytest.raises(ConflictError, match="already runs"), HomeLock(short):
            pass


def test_a_home_that_was_moved_under_a_running_node_is_still_its(home, tmp_path):
    with HomeLock(home):
        short = Home(home.path.rename(tmp_path / "h"))
        with pytest.raises(ConflictError, match=f"pid {os.getpid()}"), HomeLock(short):
            pass
        assert short.run.is_symlink()


def test_a_link_that_we_have_not_left_is_refused(home, tmp_path):
    short = moved(home, tmp_path)
    (short.path / "run").unlink()
    (short.path / "run").symlink_to(tmp_path / "other")
    with pytest.raises(UsageError, match="is a link"), HomeLock(short):
        pass
    assert short.run.is_symlink()


def test_a_file_of_a_home_is_read_up_to_a_bound_and_never_waited_for(tmp_path):
    path = tmp_path / "roots.bin"
    path.write_bytes(b"1234")
    assert read_plain(path, 4) == b"1234"
    with pytest.raises(OSError, match="larger than 3 bytes"):
        read_plain(path, 3)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        read_plain(path)
    os.mkfifo(path)
    with pytest.raises(OSError, match="no plain file"):
        read_plain(path)
