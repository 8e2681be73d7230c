"""Processes that only pass news on, as a side: the floor under what ours can reach on a machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from serf import flooder
from serf.board import Board, Ears, Lines
from serf.flooder import ABOUT_BYTES, PUBLISH, SIGNATURE_BYTES
from serf.side import WORDS_CHARS_MAX, Item, end, free_ports

from meshnode.core.ids import NodeId
from meshnode.core.links.overlay import ring_neighbours

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

NEWS_BYTES = 614  # of the message in which a node of ours sends a session that was opened


class Flood:
    """Processes with the links that the rings of ours ask for; each item is signed by this one."""

    def __init__(self, names: Sequence[str], stack: ExitStack, *, verifies: bool = False) -> None:
        self.title = f"{len(names)} processes of a bare flood{', which verify' * verifies}"
        self.names = list(names)
        self.board = Board()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ears = Ears()
        self._ears.start()
        self._key = Ed25519PrivateKey.generate()
        self._verifies = verifies
        self._directory = Path(tempfile.mkdtemp(prefix="flood-"))
        stack.callback(self.close)
        ports = free_ports()
        self._ports = {name: next(ports) for name in names}
        self._channels: dict[str, grpc.Channel] = {}

    def start(self, name: str) -> None:
        """Start a process; of two neighbours the later one dials."""
        members = [NodeId(member) for member in self.names]
        linked = ring_neighbours(NodeId(name), members)
        ports = [self._ports[name], *(self._ports[peer] for peer in linked if peer < name)]
        words = [*map(str, ports), "--links", str(len(linked))]
        if self._verifies:
            words += ["--key", self._key.public_key().public_bytes_raw().hex()]
        with (self._directory / f"{name}.err").open("ab") as stderr:
            process = subprocess.Popen(
                [sys.executable, flooder.__file__, *words],
                stdin=subprocess.PIPE,  # which ends with this process, however that ends
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
            )
        self.processes[name] = process
        self._ears.listen(process.stdout, Lines(name, self.board).hear)

    def publish(self, name: str, number: int) -> Item:
        """Give one of them an item."""
        about = f"{number:0{ABOUT_BYTES}}"
        signed = about.encode().ljust(NEWS_BYTES - SIGNATURE_BYTES)
        payload = self._key.sign(signed) + signed
        channel = self._channel(name)
        grpc.channel_ready_future(channel).result()  # the connection is there
        sent_s = time.perf_counter()
        channel.unary_unary(PUBLISH)(payload)
        return Item(name, about, sent_s, time.perf_counter())

    def _channel(self, name: str) -> grpc.Channel:
        if name not in self._channels:
            self._channels[name] = grpc.insecure_channel(f"127.0.0.1:{self._ports[name]}")
        return self._channels[name]

    def last_words(self, name: str) -> str:
        """Read its stderr."""
        return (self._directory / f"{name}.err").read_text()[-WORDS_CHARS_MAX:]

    def close(self) -> None:
        """Kill."""
        for channel in self._channels.values():
            channel.close()
        end(self.processes.values())
        shutil.rmtree(self._directory, ignore_errors=True)
