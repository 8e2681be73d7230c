"""A side that is measured, and what all of them need: ports, patience, an end."""

from __future__ import annotations

import os
import signal
import socket
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Iterator

    from serf.board import Board

PATIENCE_S = 120.0
POLL_S = 0.02  # of this process asking itself; instants do not depend on it
WORDS_CHARS_MAX = 4000  # of what a process wrote before it ended unasked
PORTS = range(20000, 30000, 4)  # below the kernel's own; a node of ours enrols on the next one


@dataclass(frozen=True, slots=True)
class Item:
    """One published item of news."""

    owner: str
    about: str
    sent_s: float
    returned_s: float


class Side(Protocol):
    """How its members are started and told news: all that a flood can do."""

    title: str
    names: list[str]
    board: Board
    processes: dict[str, subprocess.Popen[bytes]]

    def start(self, name: str) -> None:
        """Start a member, the first of all or one that joins through it; does not wait."""

    def publish(self, name: str, number: int) -> Item:
        """Publish an item of news at one member."""

    def last_words(self, name: str) -> str:
        """Return the end of what a member wrote."""

    def close(self) -> None:
        """End everything."""


class Membership(Side, Protocol):
    """A side whose members see each other come and go."""

    def listed(self, name: str) -> set[str]:
        """Ask a member whom it lists as alive."""


def wait(condition: Callable[[], object], what: str, side: Side | None = None) -> None:
    """Wait until something holds; exits with a sentence if a member ends, or patience does."""
    give_up_at = time.perf_counter() + PATIENCE_S
    while not condition():
        for name, process in side.processes.items() if side else ():
            if process.poll() not in {None, -signal.SIGKILL}:
                raise SystemExit(f"{name} ended with {process.returncode}: {side.last_words(name)}")
        if time.perf_counter() > give_up_at:
            raise SystemExit(f"waited {PATIENCE_S:g} s for {what}")
        time.sleep(POLL_S)


def end(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Kill whatever still runs."""
    for process in processes:
        if process.poll() is None:
            process.kill()
    for process in processes:
        process.wait()


@cache  # one for all sides: a port is bound only once its member has started
def free_ports() -> Iterator[int]:
    """Yield ports that nobody listens on, over TCP or UDP."""
    for port in PORTS[os.getpid() % (len(PORTS) // 2) :]:  # two runs at once shall not meet
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield port
    raise SystemExit("there are no free ports")
