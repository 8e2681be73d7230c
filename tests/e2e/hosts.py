"""Hosts for tests: network namespaces on a bridge of their own, and rules that break the network.

Invariant: nothing here touches the machine's own network: bridge, addresses and rules live inside
namespaces named after the process that made them. All of it is removed at the end, also after a
failure; what a killed run left behind is swept by the next.

Packets are dropped where they arrive, so a sender never learns of it.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Self

from e2e.fleet import Answer, Fleet, Node

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PREFIX = "smt"
NETWORK = "10.77.0."
HOSTS_MAX = 250
PORT = 7707
NAMESPACES = Path("/run/netns")
CLONE_NEWNET = 0x40000000  # sched.h
COMMAND_TIMEOUT_S = 30.0
CHAIN = "inet faults inbound"
_libc = ctypes.CDLL(None, use_errno=True)
_runs = count(1)


def obstacle() -> str | None:
    """Say in a sentence why hosts cannot be made here; None when they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool, package in (("ip", "iproute2"), ("nft", "nftables")):
        if shutil.which(tool) is None:
            return f"{tool} is missing; on Debian or Ubuntu: apt install {package}"
    try:
        with Hosts() as hosts:
            host = hosts.add()
            hosts.lose(1, host)
            hosts.refuse_inbound(host)
    except (AssertionError, OSError) as error:
        return f"network namespaces are not permitted here: {error}"
    return None


@dataclass(frozen=True)
class Host:
    """A namespace with an address of its own."""

    namespace: str
    address: str

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Let the processes that this thread starts meanwhile live on this host."""
        with Path("/proc/thread-self/ns/net").open() as outside:
            with (NAMESPACES / self.namespace).open() as there:
                _enter(there.fileno())
            try:
                yield
            finally:
                _enter(outside.fileno())

    def nft(self, *commands: str) -> str:
        words = ["ip", "netns", "exec", self.namespace, "nft", "--json", "; ".join(commands)]
        return _run(*words)


@dataclass
class Hosts:
    """All hosts of one test, joined by a bridge, and the faults between them."""

    run_name: str = field(default_factory=lambda: f"{PREFIX}-{os.getpid()}-{next(_runs)}")
    hosts: list[Host] = field(default_factory=list)
    _faulty: set[Host] = field(default_factory=set)

    @property
    def bridge(self) -> str:
        return f"{self.run_name}-0"

    def __enter__(self) -> Self:
        _sweep()
        try:
            _run("ip", "netns", "add", self.bridge)
            # Without snooping, multicast goes everywhere from the first packet on.
            self._ip(self.bridge, "link add bridge type bridge mcast_snooping 0")
            self._ip(self.bridge, "link set bridge up")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self) -> Host:
        """Make one more host."""
        number = len(self.hosts) + 1
        assert number <= HOSTS_MAX
        host = Host(f"{self.run_name}-{number}", f"{NETWORK}{number}")
        _run("ip", "netns", "add", host.namespace)
        self.hosts.append(host)
        veth = f"link add host{number} type veth peer name eth0 netns {host.namespace}"
        self._ip(self.bridge, veth, f"link set host{number} master bridge up")
        self._ip(
            host.namespace,
            "link set lo up",
            f"address add {host.address}/24 dev eth0",
            "link set eth0 up",
            "route add 224.0.0.0/4 dev eth0",
        )
        return host

    def run(self, host: Host, *argv: str) -> str:
        """Run a command on a host; returns what it printed."""
        return _run("ip", "netns", "exec", host.namespace, *argv)

    def cut(self, one: Host, other: Host) -> None:
        """Drop everything between two hosts, in silence."""
        self.cut_one_way(one, other)
        self.cut_one_way(other, one)

    def cut_one_way(self, sender: Host, receiver: Host) -> None:
        """Drop everything that one host sends to another."""
        self._drop(receiver, f"ip saddr {sender.address}")

    def partition(self, group: Iterable[Host], others: Iterable[Host]) -> None:
        """Drop everything between two groups."""
        sides = (list(group), list(others))
        for here, there in (sides, sides[::-1]):
            addresses = ", ".join(host.address for host in there)
            for host in here:
                self._drop(host, f"ip saddr {{ {addresses} }}")

    def lose(self, percent: int, *hosts: Host) -> None:
        """Drop a part of what arrives, at random; at all hosts unless some are named."""
        for host in hosts or self.hosts:
            self._drop(host, f"iif != lo numgen random mod 100 < {percent}")

    def refuse_inbound(self, host: Host) -> None:
        """Put a host behind a firewall that lets out everything, and in only the answers."""
        self._drop(host, "iif != lo ct state new")

    def heal(self) -> int:
        """Take all faults away; returns how many packets they have dropped."""
        dropped = self.dropped()
        for host in self._faulty:
            host.nft("delete table inet faults")
        self._faulty.clear()
        return dropped

    def dropped(self) -> int:
        """Return how many packets the faults of now have dropped."""
        packets = 0
        for host in self._faulty:
            listed = json.loads(host.nft(f"list chain {CHAIN}"))["nftables"]
            steps = [step for entry in listed for step in entry.get("rule", {}).get("expr", [])]
            packets += sum(step["counter"]["packets"] for step in steps if "counter" in step)
        return packets

    def close(self) -> None:
        """End all that still runs on the hosts, and remove them."""
        _remove([self.bridge, *(host.namespace for host in self.hosts)])

    def _drop(self, host: Host, match: str) -> None:
        self._faulty.add(host)
        host.nft(
            "add table inet faults",
            f"add chain {CHAIN} {{ type filter hook input priority 0; policy accept; }}",
            f"add rule {CHAIN} {match} counter drop",
        )

    @staticmethod
    def _ip(namespace: str, *commands: str) -> None:
        _run("ip", "-n", namespace, "-batch", "-", stdin="\n".join(commands))


@dataclass
class HostedNode(Node):
    """A node on a host of its own; whatever its command line does, it does there."""

    host: Host = field(kw_only=True)

    def call(self, *words: str, stdin: str = "", env: dict[str, str] | None = None) -> Answer:
        with self.host.inside():
            return super().call(*words, stdin=stdin, env=env)

    def up(self, *flags: str) -> None:
        with self.host.inside():
            super().up(*flags)


class HostedFleet(Fleet):
    """Nodes that share one network, and perhaps one mesh."""

    def __init__(self, hosts: Hosts) -> None:
        super().__init__()
        self.hosts = hosts

    def node(self, name: str) -> HostedNode:
        node = HostedNode(self.directory / name, name, host=self.hosts.add())
        self.nodes.append(node)
        return node

    def close(self) -> None:
        """End everything at once: a test that wants to see nodes end in order has done so."""
        self.hosts.close()
        for node in self.nodes:
            if node.process is not None:
                node.process.wait(COMMAND_TIMEOUT_S)
                node.process.stdout.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def _run(*argv: str, stdin: str = "") -> str:
    done = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()}"
    return done.stdout


def _sweep() -> None:
    """Remove what runs left behind that have no process any more."""
    names = [path.name for path in NAMESPACES.glob(f"{PREFIX}-*")]
    found = [(name, re.fullmatch(rf"{PREFIX}-(\d+)-\d+-\d+", name)) for name in names]
    _remove([name for name, run in found if run and not Path("/proc", run[1]).exists()])


def _remove(namespaces: Iterable[str]) -> None:
    for name in namespaces:
        if (NAMESPACES / name).exists():
            _end_all_in(name)
            with suppress(AssertionError):  # two may sweep at once
                _run("ip", "netns", "delete", name)


def _end_all_in(namespace: str) -> None:
    with suppress(AssertionError):
        for pid in _run("ip", "netns", "pids", namespace).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
