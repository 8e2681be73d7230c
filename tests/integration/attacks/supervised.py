"""Agents under real supervisors, followed by what a node follows them with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from integration.agents import watched

import meshnode
from meshnode.agents import cgroup, tree

ROOT = str(Path(meshnode.__file__).parents[1])
NOW_S = 2_000_000_000.0
PATIENCE_S = 20.0
WAIT = "import os, signal\nos.write(1, b'%d\\n' % os.getpid())\nwhile True: signal.pause()\n"
WITHOUT_GROUPS = (
    "import sys\nfrom meshnode.agents import cgroup, supervise\n"
    "cgroup.create = lambda *_, **__: None\n"
    "sys.exit(supervise.main(sys.argv[1:]))"
)


def a_node():
    """Return a node that only remembers what it was told, at the time of these tests."""
    return watched.a_node(NOW_S)


class Session:
    """One session: its directory, its socket, its supervisor, and what its agent printed."""

    def __init__(self, home: Path, code: str, *, groups: bool = True) -> None:
        self.home, self.session_id = home, home.name
        self.socket = home.with_suffix(".sock")
        words = ["--directory", str(home), "--socket", str(self.socket), "--session-id", home.name]
        program = ["-m", "meshnode.agents.supervise"] if groups else ["-c", WITHOUT_GROUPS]
        self.command = [sys.executable, "-P", *program, *words]
        self.command += ["--detached", "--", sys.executable, "-I", "-S", "-u", "-c", code]
        path = {"PATH": os.environ["PATH"], "PYTHONPATH": ROOT}
        self.environment = path | {tree.MARK: home.name}
        self.process: subprocess.Popen | None = None

    @property
    def place(self) -> tuple[str, Path, Path]:
        return self.session_id, self.home, self.socket

    @property
    def state(self) -> dict:
        return json.loads((self.home / "state.json").read_bytes())

    def forge(self, **fields: object) -> None:
        (self.home / "state.json").write_text(json.dumps(self.state | fields))

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def pids(self, count: int) -> list[int]:
        """Wait for as many pids as the agent's processes shall print."""
        log = self.home / "output.log"

        def printed():
            words = log.read_bytes().split() if log.exists() else []
            return [int(word) for word in words] if len(words) >= count else None

        return until(printed)

    def clear(self) -> None:
        tree.stop_tree(self.session_id, grace_s=0.0, force=True, clock=time.monotonic)
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        remove_group(self.session_id)


def remove_group(session_id: str) -> None:
    """Remove the cgroup of a session whose supervisor a test has killed."""
    if (group := cgroup.create(session_id, apart=False)) is not None:
        group.remove()


def until(condition):
    give_up_at = time.monotonic() + PATIENCE_S
    while not (answer := condition()):
        assert time.monotonic() < give_up_at, "waited in vain"
        time.sleep(0.02)  # between real processes there is nothing else to wait on
    return answer


def alive(pids) -> list[int]:
    return [pid for pid in pids if tree.identity_of(pid) is not None]
