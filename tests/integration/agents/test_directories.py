"""Being told at once of what changes in directories, also in some that are still to be made."""

import select
from pathlib import Path

import pytest

from meshnode.agents.directories import Directories

pytestmark = pytest.mark.integration


@pytest.fixture
def watched(tmp_path):
    watched = Directories([tmp_path / "a" / "sessions"], [tmp_path / "locks"])
    yield watched
    watched.close()


def told(watched):
    readable, _, _ = select.select([watched.fd], [], [], 0.0)
    return bool(readable) and watched.drain()


def test_a_file_is_told_of_from_when_its_directory_is_made_until_it_goes(watched, tmp_path):
    directory = tmp_path / "a" / "sessions"
    for one in (directory.parent, directory):
        one.mkdir()
        assert told(watched)
        watched.arm()
    file = directory / "1.json"
    for change in (lambda: file.write_text("{}"), lambda: file.write_text("[]"), file.unlink):
        change()
        assert told(watched)
        assert not told(watched)


def test_who_reads_what_changed_wakes_nobody(watched, tmp_path):
    directory = tmp_path / "a" / "sessions"
    directory.mkdir(parents=True)
    (directory / "1.json").write_text("{}")
    watched.arm()
    watched.drain()
    (directory / "1.json").read_text()
    assert list(directory.iterdir())
    assert not told(watched)


def test_who_takes_up_a_lock_that_was_left_is_told_of(watched, tmp_path):
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "1.lock").touch()
    watched.arm()
    watched.drain()
    assert list((tmp_path / "locks").iterdir())
    assert not told(watched), "listing it is no news"
    with (tmp_path / "locks" / "1.lock").open("a"):
        assert told(watched)


def test_without_a_watch_nothing_is_told(watched):
    watched.close()
    watched.close()
    watched.arm()
    assert watched.fd == -1


def test_of_a_parent_only_the_one_waited_for_is_told(watched, tmp_path):
    for name in ("b", "loc", "locks2"):
        (tmp_path / name).mkdir()
    assert not told(watched)
    (tmp_path / "locks").mkdir()
    assert told(watched)


def test_a_parent_is_watched_no_longer_than_it_is_waited_in(watched, tmp_path):
    assert watches(watched, tmp_path) == {tmp_path}
    (tmp_path / "a" / "sessions").mkdir(parents=True)
    (tmp_path / "locks").mkdir()
    watched.arm()
    assert watches(watched, tmp_path) == {tmp_path / "a" / "sessions", tmp_path / "locks"}
    watched.drain()
    (tmp_path / "a" / "sessions").rmdir()
    assert told(watched)
    watched.arm()
    assert watches(watched, tmp_path) == {tmp_path / "a", tmp_path / "locks"}
    assert not told(watched), "to end a watch is no news"
    (tmp_path / "a" / "sessions").mkdir()
    assert told(watched)


def test_a_directory_that_is_also_waited_in_tells_of_all(tmp_path):
    watched = Directories([tmp_path, tmp_path / "later"], [tmp_path / "locks"])
    (tmp_path / "1.json").write_text("{}")
    assert told(watched)
    watched.arm()
    (tmp_path / "1.json").write_text("[]")
    assert told(watched)
    watched.close()


def watches(watched, root):
    """Return which directories the kernel watches: by the inodes in proc(5)'s fdinfo."""
    lines = Path(f"/proc/self/fdinfo/{watched.fd}").read_text().splitlines()
    words = [line.split() for line in lines if line.startswith("inotify")]
    inodes = {int(line[2].removeprefix("ino:"), 16) for line in words}
    return {path for path in (root, *root.rglob("*")) if path.stat().st_ino in inodes}
