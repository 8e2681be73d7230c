"""Which process has locked a home, whatever became of the files beside it."""

import os
import shutil
import subprocess
import sys

import pytest

from meshnode.client import holding
from meshnode.client.connection.silence import explained
from meshnode.client.errors import NoNodeError
from meshnode.client.holding import holder_of, node_of, words_of
from meshnode.client.home import Home
from meshnode.node.lock import HomeLock


@pytest.fixture
def home(tmp_path) -> Home:
    home = Home(tmp_path / "home")
    home.path.mkdir(mode=0o700)
    return home


def test_a_home_is_held_by_who_has_locked_it_and_by_nobody_afterwards(home):
    assert (holder_of(home), node_of(home), words_of(home)) == (None, None, ("", ""))
    with HomeLock(home):
        assert (holder_of(home), node_of(home)) == (os.getpid(), os.getpid())
        assert words_of(home) == (str(os.getpid()), "up")
    assert (holder_of(home), node_of(home)) == (None, None)


def test_a_node_is_known_without_the_directory_of_its_lock(home):
    with HomeLock(home):
        shutil.rmtree(home.run)
        assert node_of(home) == os.getpid()
        error = explained(NoNodeError(), home)
        assert f"the node (pid {os.getpid()}) has no socket that answers" in error.message
        assert f"kill {os.getpid()}, then session-mesh up" in error.hint


def test_a_node_is_not_who_has_locked_a_new_file_and_found_the_home_held(home):
    with HomeLock(home):
        shutil.rmtree(home.run)
        home.run.mkdir(mode=0o700)
        lock = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(flush=True)"
        words = [sys.executable, "-c", f"{lock}; input()", str(home.lock)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            other.stdout.readline()
            assert node_of(home) == os.getpid()
            other.communicate(b"\n")


def test_a_verb_that_makes_a_home_a_member_is_no_node(home):
    with HomeLock(home, "join"):
        assert (holder_of(home), node_of(home)) == (os.getpid(), None)
        assert explained(NoNodeError(), home).pid is None


@pytest.mark.parametrize(
    "said", [None, "", "nonsense\n" * 9, "1: FLOCK ADVISORY WRITE x {} 0 EOF\n"]
)
def test_nobody_holds_a_home_where_the_kernel_does_not_say(home, tmp_path, monkeypatch, said):
    locks = tmp_path / "locks"
    if said is not None:
        found = home.path.stat()
        device = os.major(found.st_dev), os.minor(found.st_dev)
        locks.write_text(said.format(f"{device[0]:02x}:{device[1]:02x}:{found.st_ino}"))
    monkeypatch.setattr(holding, "LOCKS", str(locks))
    with HomeLock(home):
        assert node_of(home) is None
