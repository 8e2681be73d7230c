"""The HTTP front door: beside a bare FastAPI route with the same bytes, and what it weighs.

`bench_http.py [--sessions N]`: lists a page of 200 of N sessions (10,000 unless told), steers
through a node that does not own the agent, and compares the memory of a node with and without it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import cycle
from statistics import median, quantiles
from typing import TYPE_CHECKING, Self

import psutil
from report import Figure, Fleet, Node, table, wait_until

# isort: split
# Only now: `report` puts the tests' modules where Python looks.
from e2e.web import API, key_of
from replication.made import Makers

from meshnode.client.home import Home
from meshnode.client.mesh import MeshClient
from meshnode.client.targets.targets import Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SESSIONS = 10_000
PAGE = 200
KEYS = 8  # one may ask 500 times a second
LISTS = 1500
WARM_UP = 100
STEERS = 200
AGENT = "bench"
FLAGS = ("--no-mdns", "--http", "127.0.0.1:0")
ADDED_LIMIT_MIB = 45.0
STEER_LIMIT_MS = 12.0
LISTS_A_SECOND = 300.0
BARE = """
import sys, uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response
content = sys.stdin.buffer.read()
app = FastAPI()
@app.get("/alive")
async def alive(request: Request) -> Response:
    return Response(content, media_type="application/json")
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False, http="h11")
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    chosen = parser.parse_args()
    fleet = Fleet()
    try:
        asked, owner = fleet.mesh("asked", "owner", flags=FLAGS)
        table("What the front door weighs", weighed(asked, owner))
        owner.call("run", "--detach", "--agent-id", AGENT, "--", "sh", "-c", "cat >/dev/null")
        table("A steer over HTTP, of another node's agent", steered(asked))
        owner.call("kill", AGENT, "--force")  # a node that ends leaves its agents alive
        for node in (owner, asked):
            node.end()
        table(f"A page of {PAGE} of {chosen.sessions:,} sessions", listed(asked, chosen.sessions))
    finally:
        fleet.close()


def weighed(asked: Node, plain: Node) -> list[Figure]:
    """Compare a node that has served a little with one that has no front door."""
    plain.end()
    plain.up("--listen", "127.0.0.1:0", "--no-mdns")
    with Caller(asked, [key_of(asked)]) as caller:
        for path in ("/openapi.json", f"{API}/alive", f"{API}/nodes", f"{API}/cost"):
            caller.get(path)
    wait_until(lambda: set(asked.states().values()) == {"alive"})
    figures = []
    sizes = [psutil.Process(node.process.pid).memory_full_info() for node in (asked, plain)]
    for what, one in (("resident", "rss"), ("private", "uss")):
        served, bare = (getattr(size, one) / 2**20 for size in sizes)
        figures += [
            Figure(f"{what}, with HTTP", served, "MiB"),
            Figure(f"{what}, added by it", served - bare, "MiB", ADDED_LIMIT_MIB),
        ]
    return figures


def steered(asked: Node) -> list[Figure]:
    """Steer by HTTP and by the socket in turn, so that both meet the same noise."""
    wait_until(lambda: AGENT in asked.sessions(), "the session")
    by_http, by_socket = [], []
    with Caller(asked, [key_of(asked)]) as caller, MeshClient(Home(asked.home)) as client:
        for _ in range(WARM_UP // 5 + STEERS):
            begin = time.perf_counter()
            said = caller.post(f"{API}/steer", {"agent_id": AGENT, "direction": "north"})
            between = time.perf_counter()
            client.steer(Target(agent_id=AGENT), direction="north")
            by_http.append((between - begin) * 1000)
            by_socket.append((time.perf_counter() - between) * 1000)
            if said["outcome"] != "delivered":
                raise SystemExit(f"a steer was {said}")
    by_http, by_socket = by_http[WARM_UP // 5 :], by_socket[WARM_UP // 5 :]
    return [
        Figure(f"delivered, p50 of {len(by_http)}", median(by_http), "ms", STEER_LIMIT_MS),
        Figure("delivered, p99", quantiles(by_http, n=100)[98], "ms"),
        Figure("the same by the client over the socket, p50", median(by_socket), "ms"),
        Figure("ratio of the medians", median(by_http) / median(by_socket), "x"),
    ]


def listed(asked: Node, sessions: int) -> list[Figure]:
    """Ask for the same page again and again, of the node and of a route that has it ready."""
    home, nodes = Home(asked.home), 10
    each = sessions // nodes
    Makers(home).store(home, nodes, each + 1, each)
    asked.up()
    path = f"{API}/alive?filter=all&limit={PAGE}"
    with Caller(asked, [key_of(asked) for _ in range(KEYS)]) as caller:
        content = caller.get(path)
        if len(json.loads(content)["sessions"]) != PAGE:
            raise SystemExit("not the page that was asked for")
        ours = rates(caller, [path] * LISTS, asked.process.pid)
        others = [path]
        while len(others) < min(40, sessions // PAGE):
            others.append(f"{path}&next={json.loads(caller.get(others[-1]))['next']}")
        fresh = rates(caller, others, asked.process.pid)
    with bare_route(content) as (address, pid), Caller(address, [""]) as caller:
        theirs = rates(caller, ["/alive"] * LISTS, pid)
    return [
        Figure(f"pages a second of a core (>= {LISTS_A_SECOND:g})", ours[1], "/s"),
        Figure("the same bytes from a bare FastAPI route", theirs[1], "/s"),
        Figure("  the ratio, bare to ours", theirs[1] / ours[1], "x"),
        Figure("pages a second on the clock, one client", ours[0], "/s"),
        Figure("pages a second of a core, each made anew", fresh[1], "/s"),
        Figure("  on the clock, one client", fresh[0], "/s"),
        Figure("bytes of a page", len(content) / 1024, "KiB"),
    ]


def rates(caller: Caller, paths: Sequence[str], pid: int) -> tuple[float, float]:
    """Return answers a second, by the clock and by what the process used of a core."""
    _rate(caller, paths[:1] * WARM_UP)
    process = psutil.Process(pid)
    before = process.cpu_times()
    by_clock = _rate(caller, paths)
    after = process.cpu_times()
    used_s = after.user + after.system - before.user - before.system
    return by_clock, len(paths) / used_s


def _rate(caller: Caller, paths: Sequence[str]) -> float:
    begin = time.perf_counter()
    for path in paths:
        caller.get(path)
    return len(paths) / (time.perf_counter() - begin)


class Caller:
    """One client with one connection and several keys, in turn."""

    def __init__(self, asked: Node | str, keys: Sequence[str]) -> None:
        address = asked if isinstance(asked, str) else asked.ready["http"]
        self._plug = http.client.HTTPConnection(address, timeout=30)
        self._keys = cycle(keys)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._plug.close()

    def get(self, path: str) -> bytes:
        """Return what is answered."""
        return self._asked("GET", path, None)

    def post(self, path: str, body: dict[str, str]) -> dict[str, str]:
        """Send JSON; return what is answered."""
        return dict(json.loads(self._asked("POST", path, json.dumps(body))))

    def _asked(self, method: str, path: str, body: str | None) -> bytes:
        headers = {"Authorization": f"Bearer {next(self._keys)}"}
        self._plug.request(method, path, body, headers)
        with self._plug.getresponse() as answer:
            content = answer.read()
            if answer.status != http.client.OK:
                raise SystemExit(f"{path} was answered with {answer.status}: {content[:200]!r}")
            return content


@contextmanager
def bare_route(content: bytes) -> Iterator[tuple[str, int]]:
    """Serve these bytes with nothing before them; yields the address and the process id."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", BARE, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            if process.stdin is None:
                raise SystemExit("no pipe")
            process.stdin.write(content)
            process.stdin.close()
            wait_until(lambda: _is_open(port), "the bare route")
            yield f"127.0.0.1:{port}", process.pid
        finally:
            process.terminate()


def _is_open(port: int) -> bool:
    with socket.socket() as plug:
        return plug.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    main()
