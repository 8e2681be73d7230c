"""Agents of serf as a side: each streams events and its log over its RPC port."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import msgpack
from serf.board import ALIVE, LOST, NEWS, READY, TOLD_LOST, Board, Ears, Notice
from serf.side import POLL_S, WORDS_CHARS_MAX, Item, end, free_ports, wait

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack


class Serf:
    """Agents of serf, in the profile for a local network, which is the default."""

    def __init__(self, names: Sequence[str], stack: ExitStack) -> None:
        self.title = f"{len(names)} agents of serf {_serf_version()}"
        self.names = list(names)
        self.board = Board()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ears = Ears()
        self._ears.start()
        self._directory = Path(tempfile.mkdtemp(prefix="serf-"))
        self._ports: dict[str, tuple[int, int]] = {}
        self._lines: dict[str, SerfLine] = {}
        stack.callback(self.close)
        ports = free_ports()
        self._ports = {name: (next(ports), next(ports)) for name in names}

    def start(self, name: str) -> None:
        """Start an agent, and follow it as soon as its RPC port is open."""
        self.board.views[name] = set()
        port, rpc_port = self._ports[name]
        joins = (
            () if name == self.names[0] else (f"-join=127.0.0.1:{self._ports[self.names[0]][0]}",)
        )
        with (self._directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [
                    "serf",
                    "agent",
                    f"-node={name}",
                    f"-bind=127.0.0.1:{port}",
                    f"-rpc-addr=127.0.0.1:{rpc_port}",
                    *joins,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        Thread(target=self._follow, args=(name, rpc_port), daemon=True).start()

    def _follow(self, name: str, rpc_port: int) -> None:
        process = self.processes[name]
        while process.poll() is None:
            with suppress(OSError):
                line = SerfLine(name, rpc_port, self.board)
                self._lines[name] = line
                self._ears.listen(line.socket, line.hear)
                line.begin()
                return
            time.sleep(POLL_S)

    def publish(self, name: str, number: int) -> Item:
        """Send a user event of the size that a session row has."""
        about = f"news-{number}"
        line = self._lines[name]
        sent_s = time.perf_counter()
        acked = line.ask("event", {"Name": about, "Payload": b"x" * 200, "Coalesce": False})
        wait(lambda: acked in line.answers, f"{name} to take an event")
        return Item(name, about, sent_s, line.answers[acked][0])

    def listed(self, name: str) -> set[str]:
        """Ask for the members."""
        line = self._lines[name]
        asked = line.ask("members", None)
        wait(lambda: asked in line.answers, f"{name} to list its members")
        members = line.answers[asked][1][b"Members"]
        return {member[b"Name"].decode() for member in members if member[b"Status"] == b"alive"}

    def last_words(self, name: str) -> str:
        """Read its log."""
        return (self._directory / f"{name}.log").read_text()[-WORDS_CHARS_MAX:]

    def close(self) -> None:
        """Kill."""
        end(self.processes.values())
        shutil.rmtree(self._directory, ignore_errors=True)


class SerfLine:
    """One connection to an agent's RPC port: its event stream, its log, and requests.

    The log says when the list of members changes; the event stream says so after a second or more,
    because agents gather such events (CoalescePeriod 3 s, QuiescentPeriod 1 s).
    """

    STREAM, MONITOR = 1, 2
    LOGGED = re.compile(r"serf: EventMember(Join|Failed|Leave): (\S+)")

    def __init__(self, name: str, port: int, board: Board) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answers: dict[int, tuple[float, Any]] = {}
        self._name = name
        self._board = board
        self._unpacker = msgpack.Unpacker(raw=True, strict_map_key=False)
        self._asked: dict[int, str] = {}
        self._head: dict[bytes, Any] | None = None  # whose body has not come yet
        self._seq = self.MONITOR

    def begin(self) -> None:
        """Shake hands and subscribe."""
        self._send(0, "handshake", {"Version": 1})
        self._send(self.STREAM, "stream", {"Type": "*"})
        self._send(self.MONITOR, "monitor", {"LogLevel": "INFO"})

    def ask(self, command: str, body: dict[str, Any] | None) -> int:
        """Send a request; its answer will be in `answers` under this number."""
        self._seq += 1
        self._send(self._seq, command, body)
        return self._seq

    def _send(self, seq: int, command: str, body: dict[str, Any] | None) -> None:
        self._asked[seq] = command
        parts = [{"Command": command, "Seq": seq}] + ([] if body is None else [body])
        self.socket.sendall(b"".join(msgpack.packb(part, use_bin_type=False) for part in parts))

    def hear(self, heard: bytes, at_s: float) -> None:
        """Take what the agent sends: heads, some of them with a body."""
        self._unpacker.feed(heard)
        for value in self._unpacker:
            if self._head is not None:
                seq, self._head = self._head[b"Seq"], None
                self._take(seq, value, at_s)
            elif value[b"Error"]:
                raise RuntimeError(f"serf: {self._asked[value[b'Seq']]}: {value[b'Error']!r}")
            elif self._has_body(value[b"Seq"]):
                self._head = value
            else:
                self._acknowledged(value[b"Seq"], at_s)

    def _has_body(self, seq: int) -> bool:
        return self._asked[seq] == "members" or (
            seq in {self.STREAM, self.MONITOR} and seq in self.answers
        )

    def _acknowledged(self, seq: int, at_s: float) -> None:
        self.answers[seq] = (at_s, None)
        if seq == self.MONITOR:
            self._post(READY, self._name, at_s)

    def _take(self, seq: int, body: dict[bytes, Any], at_s: float) -> None:
        if seq == self.MONITOR:
            logged = self.LOGGED.search(body[b"Log"].decode(errors="replace"))
            if logged is not None:
                self._post(ALIVE if logged[1] == "Join" else LOST, logged[2], at_s)
        elif seq != self.STREAM:
            self.answers[seq] = (at_s, body)
        elif body[b"Event"] == b"user":
            self._post(NEWS, body[b"Name"].decode(), at_s)
        elif body[b"Event"] == b"member-failed":
            for member in body[b"Members"]:
                self._post(TOLD_LOST, member[b"Name"].decode(), at_s)

    def _post(self, what: str, about: str, at_s: float) -> None:
        self._board.post(Notice(self._name, what, about, at_s, at_s))


def _serf_version() -> str:
    said = subprocess.run(["serf", "version"], capture_output=True, text=True, check=True).stdout
    return next(iter(said.split()), "?")
