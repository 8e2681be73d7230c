"""Nodes of session-mesh as a side: enrolled beforehand, observed while they run."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

from report import PROGRAM, Fleet, Node
from serf.board import Board, Ears, Lines
from serf.observer import SITECUSTOMIZE
from serf.side import WORDS_CHARS_MAX, Item, end, free_ports

from meshnode.client.home import Home
from meshnode.client.mesh import MeshClient
from meshnode.client.targets.targets import NewSession

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack


class Ours:
    """Nodes of session-mesh, enrolled beforehand: joining is what happens when they start."""

    def __init__(self, names: Sequence[str], stack: ExitStack) -> None:
        self.title = f"{len(names)} nodes of session-mesh"
        self.names = list(names)
        self.board = Board()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ears = Ears()
        self._ears.start()
        self._stack = stack
        self._clients: dict[str, MeshClient] = {}
        self._fleet = Fleet()
        self._nodes: dict[str, Node] = {}
        stack.callback(self.close)
        self._observer = self._fleet.directory / "observer"
        self._observer.mkdir()
        (self._observer / "sitecustomize.py").write_text(SITECUSTOMIZE)
        ports = free_ports()
        self._addresses = {name: f"127.0.0.1:{next(ports)}" for name in names}
        self._enrol()

    def _enrol(self) -> None:
        first, *others = (self._fleet.node(name) for name in self.names)
        self._nodes = {node.name: node for node in (first, *others)}
        first.json("init", "--mesh", "bench", "--name", first.name)
        first.up("--listen", self._addresses[first.name], "--no-mdns")
        invite = first.json("invite", "--uses", str(len(others)), "--node-only")["invite"]
        for node in others:
            node.json("join", "-", "--name", node.name, stdin=invite)
        first.end()

    def start(self, name: str) -> None:
        """Start a node whose home knows the address of the first one only."""
        self.board.views[name] = set()
        self._drop_client(name)
        listen = ("--listen", self._addresses[name], "--no-mdns")
        node = self._nodes[name]
        with (self._fleet.directory / f"{name}.err").open("ab") as stderr:
            process = subprocess.Popen(
                [PROGRAM, "up", "-o", "json", *listen],
                env=node.environment | {"PYTHONPATH": str(self._observer)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
            )
        self.processes[name] = process
        self._ears.listen(process.stdout, Lines(name, self.board).hear)

    def publish(self, name: str, number: int) -> Item:
        """Open a session: signed, on disk, then sent."""
        client = self._client(name)
        client.status()  # the connection is there
        sent_s = time.perf_counter()
        session = client.open_session(NewSession(agent_id=f"bench-{number}"))
        return Item(name, session["session_id"], sent_s, time.perf_counter())

    def listed(self, name: str) -> set[str]:
        """Ask for the members."""
        nodes = self._client(name).nodes()["nodes"]
        return {node["name"] for node in nodes if node["state"] == "alive"}

    def _client(self, name: str) -> MeshClient:
        if name not in self._clients:
            self._clients[name] = MeshClient(Home(self._nodes[name].home)).__enter__()
        return self._clients[name]

    def _drop_client(self, name: str) -> None:
        client = self._clients.pop(name, None)
        if client is not None:
            client.__exit__()

    def last_words(self, name: str) -> str:
        """Read its stderr."""
        return (self._fleet.directory / f"{name}.err").read_text()[-WORDS_CHARS_MAX:]

    def close(self) -> None:
        """Kill: there is no agent that could outlive its node."""
        for name in list(self._clients):
            self._drop_client(name)
        end(self.processes.values())
        for node in self._nodes.values():
            if node.process is not None:
                end([node.process])
                node.process = None
        self._fleet.close()
