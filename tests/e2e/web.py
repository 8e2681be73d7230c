"""Calling the HTTP front door of a node, as its users do."""

from __future__ import annotations

import json
import socket
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from e2e.fleet import wait_until

if TYPE_CHECKING:
    from e2e.fleet import Fleet, Node

HTTP = ("--http", "127.0.0.1:0")
PATIENCE_S = 20.0
API = "/api/session-mesh"


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def code(self) -> str:
        """Of a problem, which is what this must be."""
        assert self.headers["content-type"] == "application/problem+json", self
        assert self.json["status"] == self.status
        return self.json["code"]


@dataclass
class Door:
    """The front door of one node, and a key to it."""

    address: str
    key: str = ""

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        sent = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if raw is not None:
            sent = {"Content-Type": "application/json"} | sent
        asked = Request(f"http://{self.address}{path}", raw, sent, method=method)
        try:
            with urlopen(asked, timeout=PATIENCE_S) as answer:
                return _reply(answer)
        except HTTPError as refusal:
            with refusal:
                return _reply(refusal)

    def with_key(self, key: str) -> Door:
        return Door(self.address, key)

    def raw(self, sent: bytes, *, until_closed: bool = True) -> bytes:
        """Send bytes as they are; return all that comes until the other side closes."""
        with self.connected() as plug:
            plug.sendall(sent)
            if not until_closed:
                return plug.recv(1 << 16)
            return drained(plug)

    def connected(self) -> socket.socket:
        host, _, port = self.address.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE_S)


def drained(plug: socket.socket) -> bytes:
    received = b""
    while piece := plug.recv(1 << 16):
        received += piece
    return received


def _reply(answer: Any) -> Reply:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return Reply(answer.status, headers, answer.read())


def key_of(node: Node, *flags: str) -> str:
    return node.json("keys", "new", *flags)["key"]


def door_of(node: Node, *flags: str) -> Door:
    """Return a node's front door, with a key for all that its operator may."""
    return Door(node.ready["http"], key_of(node, *flags))


def gateways(fleet: Fleet, *names: str) -> list[Node]:
    return fleet.mesh(*names, flags=("--no-mdns", *HTTP))


def started(node: Node, agent: str, *flags: str, seen_by: Node | None = None) -> str:
    """Run an agent that says what it hears; return its session's id once it is seen."""
    command = ("sh", "-c", "while read -r line; do echo heard $line; done")
    assert node.call("run", "--detach", "--agent-id", agent, *flags, "--", *command).code == 0
    asked = seen_by or node
    wait_until(lambda: agent in asked.sessions(), agent)
    return asked.sessions()[agent]["session_id"]


def heard(node: Node, agent: str) -> list[str]:
    lines = node.call("logs", agent).out.splitlines()
    return [line.removeprefix("heard ") for line in lines if line.startswith("heard")]


def shell(script: str, node: Node, key: str) -> subprocess.CompletedProcess[str]:
    """Run a script as the seed's users do: with their key in the environment."""
    return subprocess.run(
        ["sh", "-c", script],
        env=node.environment | {"SESSION_API_KEY": key},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
