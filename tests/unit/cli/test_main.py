"""What of the command line is loaded first, and how its process ends."""

import gc
import subprocess
import sys

import pytest

from session_mesh.main import COLLECT_AT, main

AT_EXIT = """
import atexit, gc, sys
from session_mesh.main import main
atexit.register(lambda: print(gc.get_threshold()[0], gc.get_freeze_count() > len(sys.modules)))
sys.argv[1:] = {words}
sys.exit(main())
"""


@pytest.mark.parametrize("words", [["--version"], ["list", "--no-such-flag"]])
def test_a_process_that_ends_looks_for_no_garbage(tmp_path, words):
    command = [sys.executable, "-c", AT_EXIT.format(words=words)]
    environment = {"SESSION_MESH_HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == f"{COLLECT_AT} True", done.stderr


def test_who_calls_it_with_words_keeps_what_is_collected():
    threshold, frozen = gc.get_threshold(), gc.get_freeze_count()
    assert main(["--version"]) == 0
    assert gc.get_threshold() == threshold
    assert gc.get_freeze_count() <= frozen
