"""Supervisors started for tests, and a node that only remembers what it was told of them."""

import asyncio
import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import meshnode
from meshnode.agents import tree
from meshnode.agents.processes import ProcessAgents

ROOT = str(Path(meshnode.__file__).parents[1])
ECHO = "import sys\nfor line in sys.stdin: print('got', line, end='')\n"
WAIT = "import signal\nwhile True: signal.pause()\n"
STUBBORN = (
    "import os, signal\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork(): os._exit(0)\n"
    "else: os.wait()\n"
    "os.write(1, b'%d\\n' % os.getpid())\n"
) + WAIT
NOW_S = 1_000_000.0


def stopped(pid):
    one = tree.identity_of(pid)
    return one is not None and tree.is_stopped(one)


class Watcher:
    """A node that only remembers what it was told."""

    def __init__(self, tasks, now_s):
        self.started = asyncio.Queue()
        self.ended = asyncio.Queue()
        self.held = asyncio.Queue()
        self.agents = ProcessAgents(
            lambda *start: self.started.put_nowait(start),
            lambda *end: self.ended.put_nowait(end),
            lambda _, suspended: self.held.put_nowait(suspended),
            tasks=tasks,
            clock=lambda: now_s,
        )


@asynccontextmanager
async def a_node(now_s=NOW_S):
    async with asyncio.TaskGroup() as tasks:
        node = Watcher(tasks, now_s)
        try:
            yield node
        finally:
            await node.agents.close()


class Started:
    """A session whose supervisor was started, in the foreground so that we can read along."""

    def __init__(self, home, socket, code, options=(), prefix=()):
        self.home, self.session_id, self.socket = home, home.name, socket
        self.process = subprocess.Popen(  # our own code
            [
                *(*prefix, sys.executable, "-P", "-m", "meshnode.agents.supervise"),
                *("--directory", str(home), "--socket", str(self.socket)),
                *("--session-id", home.name, *options, "--"),
                *(sys.executable, "-I", "-u", "-c", code),
            ],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": ROOT, tree.MARK: home.name},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    @property
    def place(self):
        return self.session_id, self.home, self.socket

    def state(self):
        return json.loads((self.home / "state.json").read_bytes())

    async def line(self):
        return await asyncio.to_thread(self.process.stdout.readline)

    async def wait(self):
        return await asyncio.to_thread(self.process.wait)
