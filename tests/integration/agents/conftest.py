"""Places for sockets, and sessions whose supervisors end with their test."""

import tempfile
from pathlib import Path

import pytest
from integration.agents.front import Supervised
from integration.agents.watched import Started
from integration.attacks.supervised import remove_group

from meshnode.agents import tree


@pytest.fixture
def short_path():
    with tempfile.TemporaryDirectory(prefix="mesh-") as directory:  # a socket's path is < 108 bytes
        yield Path(directory)


@pytest.fixture
def start(tmp_path, short_path):
    started = []

    def run(code, *options, prefix=(), grouped=True):
        mark = "-" if grouped else "~"  # no control group is called like that
        home = tmp_path / f"{short_path.name}{mark}{len(started)}"
        home.mkdir(mode=0o700)
        started.append(Started(home, short_path / str(len(started)), code, options, prefix))
        return started[-1]

    yield run
    for one in started:
        one.process.kill()
        one.process.wait()
        clock = iter(range(1000)).__next__
        tree.stop_tree(one.session_id, grace_s=0.0, force=True, clock=clock)
        remove_group(one.session_id)
        one.process.stdin.close()
        one.process.stdout.close()


@pytest.fixture
def supervise(tmp_path, short_path):
    started = []

    def start(*command, options=(), **streams):
        home = tmp_path / str(len(started))
        home.mkdir(mode=0o700)
        one = Supervised(home, short_path / home.name, command, options, **streams)
        started.append(one)
        return one

    yield start
    for one in started:
        one.end()
