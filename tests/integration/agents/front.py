"""A supervisor in front of a test, as its caller sees it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from integration.attacks.supervised import remove_group

import meshnode
from meshnode.agents import tree

ROOT = str(Path(meshnode.__file__).parents[1])
PYTHON = (sys.executable, "-I", "-u", "-c")
ECHO = "import sys\nprint('ready', flush=True)\nfor line in sys.stdin: print('got', line, end='')\n"
WAIT = "import os, signal\nos.write(1, b'ready\\n')\nwhile True: signal.pause()\n"


class Supervised:
    """A supervisor as its caller sees it, and one client connection to it."""

    program = ("-m", "meshnode.agents.supervise")

    def __init__(self, home, socket_path, command, options=(), **streams):
        self.home = home
        self.session_id = f"{socket_path.parent.name}-{home.name}"
        self.socket = socket_path
        self.process = subprocess.Popen(  # our own code
            [
                *(sys.executable, "-P", *self.program),
                *("--directory", str(home), "--socket", str(self.socket)),
                *("--session-id", self.session_id, *options, "--", *command),
            ],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": ROOT, tree.MARK: self.session_id},
            start_new_session=True,
            **{
                "stdin": subprocess.PIPE,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                **streams,
            },
        )
        self.replies = None

    def connect(self):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(self.socket))
        self.replies = client.makefile("rwb")
        client.close()

    def write(self, line):
        self.replies.write(line + b"\n")
        self.replies.flush()

    def read(self):
        return json.loads(self.replies.readline())

    def ask(self, op, **fields):
        self.write(json.dumps({"id": 7, "op": op, **fields}).encode())
        return self.read()

    def line(self):
        return self.process.stdout.readline()

    def finish(self):
        if self.replies:
            self.replies.close()
        output, errors = self.process.communicate()
        return self.process.returncode, output, errors

    def state(self):
        return json.loads((self.home / "state.json").read_bytes())

    def end(self):
        if self.replies:
            self.replies.close()
        self.process.kill()
        self.process.wait()
        clock = iter(range(1000)).__next__
        tree.stop_tree(self.session_id, grace_s=0.0, force=True, clock=clock)
        remove_group(self.session_id)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                stream.close()


def python(supervise, code, *options, **streams):
    one = supervise(*PYTHON, code, options=options, **streams)
    if "ready" in code:
        assert one.line() == b"ready\n"
        one.connect()
    return one
