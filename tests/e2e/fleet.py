"""A fleet of real nodes for tests: processes started, asked and stopped by command line."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from e2e.preloaded import begin, called

from meshnode.client.errors import MeshError, NoNodeError
from meshnode.client.home import Home
from meshnode.client.mesh import MeshClient
from meshnode.client.targets.targets import Selection
from meshnode.node.homes import founding, joining

PROGRAM = str(Path(sys.executable).with_name("session-mesh"))
PATIENCE_S = 20.0
CALL_S = 60.0
POLL_S = 0.05
POLL_S_MAX = 0.5
INVITE_S = 900


@dataclass
class Answer:
    """What one call of the command line gave."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def error(self):
        return json.loads(self.err.strip().splitlines()[-1])["error"]


@dataclass
class Node:
    """One home, and the node process on it while there is one."""

    home: Path
    name: str
    process: subprocess.Popen[str] | None = None
    ready: dict = field(default_factory=dict)
    flags: tuple[str, ...] = ()

    def call(self, *words: str, stdin: str = "", env: dict[str, str] | None = None) -> Answer:
        environment = self.environment | (env or {})
        argv = [PROGRAM, *map(os.fsdecode, words)]
        done = called(argv, environment, stdin, CALL_S)
        return Answer(*done) if done else self.start(*words, stdin=stdin, env=env)

    def start(self, *words: str, stdin: str = "", env: dict[str, str] | None = None) -> Answer:
        """Start the program itself, as a user does, where its start is what is tested."""
        done = subprocess.run(
            [PROGRAM, *words],
            input=stdin,
            env=self.environment | (env or {}),
            capture_output=True,
            text=True,
            timeout=CALL_S,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def json(self, *words: str, stdin: str = "", env: dict[str, str] | None = None):
        answer = self.call(*words, "-o", "json", stdin=stdin, env=env)
        assert answer.code == 0, f"{words} ended with {answer.code}: {answer.err}"
        return answer.json

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("SESSION_")}
        return kept | {"SESSION_MESH_HOME": str(self.home), "NO_COLOR": "1"}

    def up(self, *flags: str) -> None:
        self.begin(*flags)
        self.await_ready()

    def begin(self, *flags: str) -> None:
        self.flags = flags or self.flags
        with (self.home.parent / f"{self.name}.err").open("a") as stderr:
            self.process = subprocess.Popen(
                [PROGRAM, "up", "-o", "json", *self.flags],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )

    def await_ready(self) -> None:
        readable, _, _ = select.select([self.process.stdout], [], [], PATIENCE_S)
        line = self.process.stdout.readline() if readable else ""
        assert line, f"{self.name} did not come up: {self.stderr}"
        self.ready = json.loads(line)

    @property
    def stderr(self) -> str:
        return (self.home.parent / f"{self.name}.err").read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(PATIENCE_S)
        self.process.stdout.close()
        self.process = None
        return code

    def sessions(self, *flags: str) -> dict[str, dict]:
        """Return what `list` shows, by agent; with flags, by the command line itself."""
        if flags or self.process is None:
            listed = self.json("list", *flags)
        else:
            with self.client() as mesh:
                listed = mesh.list_sessions()
        return {session["agent_id"]: session for session in listed["sessions"]}

    def end_sessions(self) -> None:
        try:
            self._end_sessions()
        except NoNodeError:  # its socket is where its own environment says
            self.call("kill", "--all", "--node", self.ready["name"], "--force")

    def _end_sessions(self) -> None:
        with self.client() as mesh:
            for session in mesh.list_sessions(Selection(node=self.ready["name"]))["sessions"]:
                if session["can"]["kill"] != "none":
                    with suppress(MeshError):  # as one that obeys and never commands
                        mesh.kill(session, force=True)

    def states(self) -> dict[str, str]:
        """Return what `nodes` shows, by name."""
        if self.process is None:
            listed = self.json("nodes")
        else:
            with self.client() as mesh:
                listed = mesh.nodes()
        return {node["name"]: node["state"] for node in listed["nodes"]}

    def client(self) -> MeshClient:
        """Ask the running node as the command line does, without its start: for what is polled."""
        return MeshClient(Home(self.home))


class Fleet:
    """Nodes that share one mesh; everything started is ended at the end."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="sm-"))  # short: socket paths are limited
        self.nodes: list[Node] = []
        begin()  # what calls are forked from, before any of them is made on a host of its own

    def node(self, name: str) -> Node:
        node = Node(self.directory / name, name)
        self.nodes.append(node)
        return node

    def mesh(self, *names: str, flags: tuple[str, ...] = ("--no-mdns",)) -> list[Node]:
        """Found a mesh on the first node, let the others join, and wait until all see all."""
        nodes = [self.node(name) for name in names]
        first, *others = nodes
        founding.init(Home(first.home), "test", first.name, None)
        first.up("--listen", "127.0.0.1:0", *flags)
        for node in others:
            self._admit(first, node)
            node.begin("--listen", "127.0.0.1:0", *flags)
        for node in others:
            node.await_ready()
        alive = ["alive"] * len(nodes)  # looked at together: who is heard of last is not alive yet
        for node in nodes:
            wait_until(lambda node=node: [*node.states().values()] == alive, node.name)
        return nodes

    @staticmethod
    def _admit(host: Node, guest: Node) -> None:
        """Do what `invite` and `join` do, by what they call: their starts are what a mesh costs."""
        with host.client() as mesh:
            made = joining.invite(
                Home(host.home), mesh, joining.Inviting(INVITE_S, role="operator")
            )
        joining.join(Home(guest.home), made["invite"], node_name=guest.name)

    @staticmethod
    def join(host: Node, guest: Node, *flags: str) -> dict:
        invite = host.json("invite", *flags)["invite"]
        return guest.json("join", "-", "--name", guest.name, stdin=invite)

    def close(self) -> None:
        running = []
        for node in self.nodes:
            if node.process is not None and node.process.poll() is None:
                node.end_sessions()
                node.process.send_signal(signal.SIGTERM)
                running.append(node)
            elif node.process is not None:
                node.process.stdout.close()
            elif (node.home / "run" / "node.sock").exists():  # `run` has started one, detached
                node.call("down")
        for node in running:  # they were told all at once
            node.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def wait_until(condition, what: str = "it"):
    """Ask again until the answer is true; fail with the last one when patience ends."""
    give_up_at = time.monotonic() + PATIENCE_S
    pause_s = pauses_s()
    while not (answer := condition()):
        assert time.monotonic() < give_up_at, f"waited {PATIENCE_S} s for {what}: {answer!r}"
        time.sleep(next(pause_s))  # between two real processes there is nothing else to wait on
    return answer


def pauses_s():
    """Yield how long to wait between questions, longer each time: each keeps nodes busy."""
    pause_s = POLL_S
    while True:
        yield pause_s
        pause_s = min(pause_s * 1.3, POLL_S_MAX)
