"""Starting a node in the background, and giving up on one that says nothing."""

import gc
import os
import signal
import subprocess
import sys

import pytest

from meshnode.client.home import Home
from meshnode.core.errors import MeshError
from meshnode.node import main, serving
from meshnode.node.configuration.options import UpOptions


@pytest.mark.timeout(60)
def test_a_detached_node_that_is_not_ready_in_time_is_waited_for_no_longer(tmp_path, monkeypatch):
    said = tmp_path / "pid"
    python = tmp_path / "python"  # reads what it is told, as a node does, and then hangs
    python.write_text(f"#!/bin/sh\ncat > /dev/null\necho $$ > {said}\nexec sleep 600\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(main, "READY_WAIT_S", 1.0)
    with pytest.raises(MeshError, match="not ready") as gave_up:
        main.up_detached(Home(tmp_path / "home"), UpOptions())
    assert "session-mesh status" in gave_up.value.hint
    pid = int(said.read_text())
    os.kill(pid, signal.SIGKILL)  # it lived on
    os.waitpid(pid, 0)


def test_a_detached_node_that_ends_at_once_is_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(MeshError, match="did not come up"):
        main.up_detached(Home(tmp_path / "home"), UpOptions())


def test_a_node_in_front_looks_for_garbage_as_one_in_the_background_does(tmp_path, monkeypatch):
    thresholds = gc.get_threshold()
    asked = "import gc; print(gc.get_threshold()[0])"
    alone = subprocess.run([sys.executable, "-c", asked], capture_output=True, check=True)
    monkeypatch.setattr(serving, "serve", lambda *_, **__: gc.get_threshold()[0])
    try:
        gc.set_threshold(200_000)
        assert main.up(Home(tmp_path / "home"), UpOptions()) == int(alone.stdout)
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
