"""One call of the command line."""

import subprocess
import sys

import pytest

LOADED = """
import os, sys
from session_mesh.call import Call
from session_mesh.output.render import Streams

class Look:
    def find_spec(self, name, path=None, target=None):
        if name == "grpc":
            print(os.environ.get("GRPC_VERBOSITY"))

sys.meta_path.insert(0, Look())
Call(Streams.of_process()).mesh()
print(os.environ.get("GRPC_VERBOSITY"))
"""


@pytest.mark.parametrize(("told", "level"), [(None, "NONE"), ("ERROR", "ERROR")])
def test_grpc_is_loaded_silent_unless_its_user_wants_it_and_nobody_inherits_that(told, level):
    environment = {} if told is None else {"GRPC_VERBOSITY": told}
    done = subprocess.run(
        [sys.executable, "-c", LOADED], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [level, str(told)]
