"""Being told at once of what changes in directories, also in some that are still to be made."""

import select

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
