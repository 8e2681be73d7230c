"""Thirty nodes beside thirty agents of serf: joining, news, a crash, a freeze, and doing nothing.

Both are the real programs with their defaults, on loopback, one after the other. What a member
notices is heard from itself: serf streams events and its log over its RPC port; a node of ours runs
with `observe` around its protocol core, which writes a line for each change it has taken.
Every instant is when this process heard of it, so both are measured with one ruler; for ours the
node's own instants are given too (perf_counter is one clock for all processes of a machine).

Invariant: whatever was started is ended, by the end, a failure, Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import random
import re
import selectors
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import IO, TYPE_CHECKING, Any, Protocol

import msgpack
import psutil
from report import PROGRAM, Figure, Fleet, Node, table

from meshnode.client.home import Home
from meshnode.client.mesh import MeshClient
from meshnode.client.targets import NewSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from meshnode.app.mesh import Mesh
    from meshnode.core.effects import Effect
    from meshnode.core.feed import Change

ITEMS = 30
CRASHES = 5
FREEZES = 5
IDLE_S = 30.0
SETTLE_S = 3.0
CALM_S = 0.4  # between two items, at most: serf gossips every 0.2 s, so the phase must vary
PATIENCE_S = 120.0
POLL_S = 0.02  # of this process asking itself; instants do not depend on it
NODES_MIN = 3
WORDS_CHARS_MAX = 4000  # of what a process wrote before it ended unasked
PORTS = range(20000, 30000, 4)  # below the kernel's own; a node of ours enrols on the next one

NEWS_MEDIAN_LIMIT_MS = 15.0
NEWS_LAST_LIMIT_MS = 60.0
CRASH_LIMIT_S = 1.5
FREEZE_LIMIT_S = 4.5

NO_SERF = 2
INTERRUPTED = 130

READY, ALIVE, LOST, TOLD_LOST, NEWS, STORED, ACKED = (
    "ready",
    "alive",
    "lost",
    "told_lost",
    "news",
    "stored",
    "acked",
)


@dataclass(frozen=True, slots=True)
class Notice:
    """One member noticed something: when we heard of it, and when it says that was."""

    watcher: str
    what: str
    about: str
    at_s: float
    own_at_s: float


@dataclass(frozen=True, slots=True)
class Item:
    """One published item of news."""

    owner: str
    about: str
    sent_s: float
    returned_s: float


class Board:
    """All notices so far, and whom each member sees alive."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self.views: dict[str, set[str]] = {}

    def post(self, notice: Notice) -> None:
        """Take a notice in."""
        view = self.views.setdefault(notice.watcher, set())
        if notice.what == ALIVE:
            view.add(notice.about)
        elif notice.what == LOST:
            view.discard(notice.about)
        self.notices.append(notice)

    def first(self, what: str, about: str, since_s: float = 0.0) -> dict[str, Notice]:
        """Return the first such notice of every member that gave one."""
        found: dict[str, Notice] = {}
        for notice in list(self.notices):
            if notice.what == what and notice.about == about and notice.at_s >= since_s:
                found.setdefault(notice.watcher, notice)
        return found


class Ears(Thread):
    """The one thread that reads what members tell; an instant is when their bytes were there."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._selector = selectors.DefaultSelector()

    def listen(
        self, source: socket.socket | IO[bytes], hear: Callable[[bytes, float], None]
    ) -> None:
        """Read a socket or pipe to its end, then close it; nobody else does."""
        self._selector.register(source, selectors.EVENT_READ, hear)

    def run(self) -> None:
        """Read for ever."""
        while True:
            for key, _ in self._selector.select():
                at_s = time.perf_counter()
                try:
                    heard = os.read(key.fd, 1 << 16)
                except OSError:  # reset: its process was killed
                    heard = b""
                if heard:
                    key.data(heard, at_s)
                else:
                    self._selector.unregister(key.fileobj)
                    key.fileobj.close()


class Side(Protocol):
    """One of the two: how its members are started, told news, and asked whom they see."""

    title: str
    names: list[str]
    board: Board
    processes: dict[str, subprocess.Popen[bytes]]

    def start(self, name: str) -> None:
        """Start a member, the first of all or one that joins through it; does not wait."""

    def publish(self, name: str, number: int) -> Item:
        """Publish an item of news at one member."""

    def listed(self, name: str) -> set[str]:
        """Ask a member whom it lists as alive."""

    def last_words(self, name: str) -> str:
        """Return the end of what a member wrote."""

    def close(self) -> None:
        """End everything."""


# ours


def observe() -> None:  # noqa: C901 - one small function a kind of notice
    """Let the core of the node in this process write to stdout what it takes in."""
    import json  # noqa: PLC0415 - this function is the whole of a module in the node's process
    import os  # noqa: PLC0415 - as above
    import time  # noqa: PLC0415 - as above

    from meshnode.app.mesh import STATES, Mesh  # noqa: PLC0415 - as above
    from meshnode.core.effects import Announce, Persist  # noqa: PLC0415 - as above
    from meshnode.core.sessions import SESSIONS  # noqa: PLC0415 - as above

    seen: set[str] = set()

    def tell(event: str, about: str) -> None:
        line = json.dumps({"event": event, "about": about, "at_s": time.perf_counter()}) + "\n"
        os.write(1, line.encode())

    def tell_rows(event: str, change: Change) -> None:
        for rows_of, key in change.rows:
            if rows_of == SESSIONS:
                tell(event, key.decode())

    def tell_states(mesh: Mesh) -> None:
        alive = set(mesh.liveness.alive)
        for event, peers in (("alive", alive - seen), ("lost", seen - alive)):
            for peer in peers:
                tell(event, mesh.tables.node(peer).name)
        seen.clear()
        seen.update(alive)

    def observed(method: Callable[..., list[Effect]]) -> Callable[..., list[Effect]]:
        def call(mesh: Mesh, *args: object) -> list[Effect]:
            effects = method(mesh, *args)
            for effect in effects:
                if isinstance(effect, Persist) and not effect.ours:
                    tell_rows("news", effect.change)
                elif isinstance(effect, Announce) and STATES in effect.tables:
                    tell_states(mesh)
            return effects

        return call

    persisted = Mesh.persisted

    def observed_persisted(mesh: Mesh, change: Change, now_s: float) -> list[Effect]:
        tell_rows("stored", change)
        return persisted(mesh, change, now_s)

    Mesh.start, Mesh.received, Mesh.woken = map(observed, (Mesh.start, Mesh.received, Mesh.woken))
    Mesh.persisted = observed_persisted


# Python runs a module of this name at every start; `up` becomes the node in a second program.
SITECUSTOMIZE = f"""from __future__ import annotations
import sys
{inspect.getsource(observe)}
if "session_mesh.becoming" in sys.orig_argv:
    observe()
"""


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
        ports = _free_ports()
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
        rest = b""

        def hear(heard: bytes, at_s: float) -> None:
            nonlocal rest
            *lines, rest = (rest + heard).split(b"\n")
            for line in lines:
                told = json.loads(line)
                own_s = told.get("at_s", at_s)
                about = told.get("about", name)
                self.board.post(Notice(name, told["event"], about, at_s, own_s))

        self._ears.listen(process.stdout, hear)

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
        _end(self.processes.values())
        for node in self._nodes.values():
            if node.process is not None:
                _end([node.process])
                node.process = None
        self._fleet.close()


# serf


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
        ports = _free_ports()
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
        _wait(lambda: acked in line.answers, f"{name} to take an event")
        return Item(name, about, sent_s, line.answers[acked][0])

    def listed(self, name: str) -> set[str]:
        """Ask for the members."""
        line = self._lines[name]
        asked = line.ask("members", None)
        _wait(lambda: asked in line.answers, f"{name} to list its members")
        members = line.answers[asked][1][b"Members"]
        return {member[b"Name"].decode() for member in members if member[b"Status"] == b"alive"}

    def last_words(self, name: str) -> str:
        """Read its log."""
        return (self._directory / f"{name}.log").read_text()[-WORDS_CHARS_MAX:]

    def close(self) -> None:
        """Kill."""
        _end(self.processes.values())
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


# what is measured


def measure(side: Side, chance: random.Random) -> list[Figure]:
    """Put one side through everything."""
    figures = _join(side)
    figures += _idle(side)
    figures += _news(side, chance)
    figures += _losses(side, chance, CRASHES, _crash, ("killed", CRASH_LIMIT_S))
    return figures + _losses(side, chance, FREEZES, _freeze, ("frozen", FREEZE_LIMIT_S))


def _join(side: Side) -> list[Figure]:
    began_s = time.perf_counter()
    first, *others = side.names
    side.start(first)
    _wait(lambda: side.board.first(READY, first), f"{first} to be ready")
    for name in others:
        side.start(name)
    started_s = time.perf_counter()
    _wait(lambda: _converged(side), "all to list all", side)
    together_s = max(n.at_s for n in side.board.notices if n.what == ALIVE)
    ready_s = max(n.at_s for n in side.board.notices if n.what == READY)
    _check_lists(side)
    return [
        Figure("all list all, after the first start", together_s - began_s, "s"),
        Figure("all list all, after the last start", together_s - started_s, "s"),
        Figure("all list all, after the last was ready", max(0.0, together_s - ready_s), "s"),
    ]


def _idle(side: Side) -> list[Figure]:
    time.sleep(SETTLE_S)
    processes = [psutil.Process(process.pid) for process in side.processes.values()]
    before_s, begun_s = sum(map(_cpu_s, processes)), time.perf_counter()
    time.sleep(IDLE_S)
    spent_s = sum(map(_cpu_s, processes)) - before_s
    percent = spent_s / (time.perf_counter() - begun_s) / len(processes) * 100
    memory = [process.memory_full_info() for process in processes]
    return [
        Figure("idle: processor, mean", percent, "%"),
        Figure("idle: resident, mean", statistics.mean(m.rss for m in memory) / 2**20, "MiB"),
        Figure("idle: private, mean", statistics.mean(m.uss for m in memory) / 2**20, "MiB"),
    ]


def _news(side: Side, chance: random.Random) -> list[Figure]:
    arrived = [_one_item(side, chance.choice(side.names), number) for number in range(ITEMS)]
    sent, returned, own, stored = zip(*arrived, strict=True)
    figures = [
        *_news_figures("news, from request", sent, NEWS_MEDIAN_LIMIT_MS, NEWS_LAST_LIMIT_MS),
        *_news_figures("news, from answer", returned),
    ]
    if None not in stored:
        figures += [
            Figure("of which request to the owner's disk, p50", statistics.median(stored), "ms"),
            *_news_figures("news, from request, by nodes' own clocks", own),
        ]
    return figures


def _one_item(
    side: Side, owner: str, number: int
) -> tuple[list[float], list[float], list[float], float | None]:
    """Return arrivals in ms after request and answer, own ones too, and when it was on disk."""
    time.sleep(CALM_S / 2 + CALM_S / 2 * (number % 7) / 7)
    item = side.publish(owner, number)
    others = set(side.names) - {owner}
    _wait(lambda: others <= side.board.first(NEWS, item.about).keys(), f"{item.about}", side)
    heard = side.board.first(NEWS, item.about)
    notices = [heard[name] for name in others]
    stored = side.board.first(STORED, item.about).get(owner)
    return (
        [(notice.at_s - item.sent_s) * 1000 for notice in notices],
        [(notice.at_s - item.returned_s) * 1000 for notice in notices],
        [(notice.own_at_s - item.sent_s) * 1000 for notice in notices],
        None if stored is None else (stored.own_at_s - item.sent_s) * 1000,
    )


def _news_figures(
    what: str,
    arrived_ms: Sequence[Sequence[float]],
    median_limit_ms: float | None = None,
    last_limit_ms: float | None = None,
) -> list[Figure]:
    every = [at_ms for item in arrived_ms for at_ms in item]
    lasts = [max(item) for item in arrived_ms]
    return [
        Figure(f"{what}: p50 of nodes", statistics.median(every), "ms", median_limit_ms),
        Figure(f"{what}: last node, p50", statistics.median(lasts), "ms"),
        Figure(f"{what}: last node, worst", max(lasts), "ms", last_limit_ms),
    ]


def _losses(
    side: Side,
    chance: random.Random,
    runs: int,
    lose: Callable[[Side, str], Callable[[], None]],
    named: tuple[str, float],
) -> list[Figure]:
    what, limit_s = named
    firsts: list[float] = []
    lasts: list[float] = []
    told: list[float] = []
    for _ in range(runs):
        victim = chance.choice(side.names[1:])  # the first is whom the others join through
        others = set(side.names) - {victim}
        time.sleep(SETTLE_S + chance.random())
        lost_s = time.perf_counter()
        regain = lose(side, victim)
        _wait_for(side, others, LOST, victim, lost_s)
        after = [n.at_s - lost_s for n in side.board.first(LOST, victim, lost_s).values()]
        firsts.append(min(after))
        lasts.append(max(after))
        if isinstance(side, Serf):
            _wait_for(side, others, TOLD_LOST, victim, lost_s)
            heard = side.board.first(TOLD_LOST, victim, lost_s)
            told.append(max(n.at_s for n in heard.values()) - lost_s)
        regain()
        _wait(lambda: _converged(side), f"{victim} to be back", side)
    figures = [
        Figure(f"{what}: first to notice, p50 of {runs}", statistics.median(firsts), "s"),
        Figure(f"{what}: last to notice, p50 of {runs}", statistics.median(lasts), "s"),
        Figure(f"{what}: last to notice, worst", max(lasts), "s", limit_s),
    ]
    if told:
        figures.append(Figure(f"{what}: last event told, p50", statistics.median(told), "s"))
    return figures


def _crash(side: Side, victim: str) -> Callable[[], None]:
    process = side.processes[victim]
    process.kill()

    def regain() -> None:
        process.wait()
        side.start(victim)

    return regain


def _freeze(side: Side, victim: str) -> Callable[[], None]:
    process = side.processes[victim]
    process.send_signal(signal.SIGSTOP)
    return lambda: process.send_signal(signal.SIGCONT)


def _wait_for(side: Side, watchers: set[str], what: str, about: str, since_s: float) -> None:
    _wait(
        lambda: watchers <= side.board.first(what, about, since_s).keys(),
        f"all to notice {about}",
        side,
    )


def _converged(side: Side) -> bool:
    everyone = set(side.names)
    return all(side.board.views.get(name) == everyone for name in side.names)


def _check_lists(side: Side) -> None:
    """What was heard must be what members answer when asked."""
    for name in side.names:
        listed = side.listed(name)
        if listed != set(side.names):
            raise SystemExit(f"{name} told us of {len(side.names)} and lists {len(listed)}")


def _wait(condition: Callable[[], object], what: str, side: Side | None = None) -> None:
    give_up_at = time.perf_counter() + PATIENCE_S
    while not condition():
        for name, process in side.processes.items() if side else ():
            if process.poll() not in {None, -signal.SIGKILL}:
                raise SystemExit(f"{name} ended with {process.returncode}: {side.last_words(name)}")
        if time.perf_counter() > give_up_at:
            raise SystemExit(f"waited {PATIENCE_S:g} s for {what}")
        time.sleep(POLL_S)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _free_ports() -> Iterator[int]:
    for port in PORTS[os.getpid() % (len(PORTS) // 2) :]:  # two runs at once shall not meet
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield port
    raise SystemExit("there are no free ports")


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.kill()
    for process in processes:
        process.wait()


def _serf_version() -> str:
    said = subprocess.run(["serf", "version"], capture_output=True, text=True, check=True).stdout
    return next(iter(said.split()), "?")


# what is printed


def _measured(make: Callable[[Sequence[str], ExitStack], Side], names: list[str]) -> list[Figure]:
    load_before = os.getloadavg()[0]
    with ExitStack() as stack:
        side = make(names, stack)
        figures = measure(side, random.Random(len(names)))  # noqa: S311 - who is next is no secret
        title = f"{side.title}; load {load_before:.1f} before, {os.getloadavg()[0]:.1f} at the end"
    if isinstance(side, Serf):
        figures = [replace(figure, at_most=None) for figure in figures]  # the limits are ours
    table(title, figures)
    return figures


def _beside(ours: Sequence[Figure], theirs: Sequence[Figure]) -> None:
    print(f"\n  {'side by side':<52} {'ours':>14} {'serf':>14}   serf / ours")
    known = {figure.what: figure for figure in theirs}
    for figure in ours:
        other = known.get(figure.what)
        if other is not None:
            ratio = f"{other.value / figure.value:.2g}" if figure.value > 0 else "-"
            shown = [f"{one.value:>9.4g} {one.unit:<4}" for one in (figure, other)]
            print(f"  {figure.what:<52} {' '.join(shown)} {ratio:>9}   {figure.verdict}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=30, help="how many, of each")
    parser.add_argument("--only", choices=["ours", "serf"], help="one side")
    chosen = parser.parse_args()
    if chosen.nodes < NODES_MIN:
        parser.error(f"at least {NODES_MIN} nodes")
    if chosen.only != "ours" and shutil.which("serf") is None:
        print(
            "bench_serf: serf is not installed: apt install serf, or --only ours", file=sys.stderr
        )
        sys.exit(NO_SERF)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names = [f"n{number:02}" for number in range(chosen.nodes)]
    try:
        ours = [] if chosen.only == "serf" else _measured(Ours, names)
        theirs = [] if chosen.only == "ours" else _measured(Serf, names)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    if ours and theirs:
        _beside(ours, theirs)


if __name__ == "__main__":
    main()
