"""How fast rows join, apply and are read, and what they cost on the wire; Redis beside it.

--large adds the join of 1,000 feeds of 4,600 rows: several minutes, 10 GB of memory.
"""

from __future__ import annotations

import argparse
import os
import time
from random import Random
from statistics import median
from typing import TYPE_CHECKING

import psutil
from replication.made import SESSIONS_EACH, Makers
from replication.sides import of_ours, of_redis
from report import Figure, Fleet, Node, copied, table, wait_for_nodes

from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.app.queries.queries import Queries
from meshnode.app.queries.views import Selection
from meshnode.client.home import Home
from meshnode.core.control.control import ControlSet
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.reconcile import Replication
from meshnode.core.keys import Key
from meshnode.ingest.prices import PriceBook
from meshnode.node.clock import SystemClock
from meshnode.v1 import link_service_pb2 as pb
from meshnode.wire.links import message_from_wire, message_to_wire

if TYPE_CHECKING:
    from collections.abc import Callable

ORIGINS = 1000
ROWS_A_FLUSH = 10
FLUSHES = 3000
WRITERS = 100
PAGE_OF = 10_000
PATIENCE_S = 600.0


def main() -> None:
    """Measure and print."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="also 4,600 rows a feed")
    chosen = parser.parse_args()
    fleet = Fleet()
    try:
        home = initialised(fleet.node("maker"))
        figures = joined(fleet, "small", 50, 5.0)
        figures += applied(Makers(home))
        figures += paged(Makers(home))
        if chosen.large:
            figures += joined(fleet, "large", 4600, 90.0)
        table(f"Replication, {ORIGINS:,} origins", figures)
        table("The same rows spread by two of ours, and by Redis", spread(fleet))
    finally:
        fleet.close()


def spread(fleet: Fleet) -> list[Figure]:
    """Measure both sides and set them in proportion."""
    ours, theirs = of_ours(fleet), of_redis(fleet.directory)
    ratios = [
        Figure(f"ratio{one.what.removeprefix('ours')}", one.value / other.value, "x")
        for one, other in zip(ours, theirs, strict=True)
    ]
    return ours + theirs + ratios


def initialised(node: Node) -> Home:
    """Make a home with a mesh of its own."""
    node.json("init", "--mesh", "bench", "--name", node.name)
    return Home(node.home)


def joined(fleet: Fleet, name: str, rows: int, limit_s: float) -> list[Figure]:
    """Let a new node join one that holds feeds of 1,000 others, and time until it holds all."""
    wait_for_nodes(PATIENCE_S)  # one listens once it has read its disk
    relay, joiner = fleet.node(f"{name}-relay"), fleet.node(f"{name}-new")
    home = initialised(relay)
    size = Makers(home).store(home, ORIGINS, rows)
    began = time.perf_counter()
    relay.up("--no-mdns", "--listen", "127.0.0.1:0")
    until(lambda: known(relay) == ORIGINS + 1)
    ready_s = time.perf_counter() - began
    invite = relay.json("invite", "--node-only")["invite"]
    joiner.json("join", "-", "--name", joiner.name, stdin=invite)
    began = time.perf_counter()
    joiner.up("--no-mdns", "--listen", "127.0.0.1:0")
    answers: list[float] = []

    def is_whole() -> bool:
        at = time.perf_counter()
        held = known(joiner)
        answers.append(time.perf_counter() - at)
        return held >= ORIGINS + 2

    until(is_whole)
    took_s = time.perf_counter() - began
    memory = psutil.Process(joiner.process.pid).memory_info().rss / 2**20
    for node in (joiner, relay):
        node.end()
    what = f"{rows:,} rows each, {size / 2**20:.0f} MiB"
    return [
        Figure(f"cold join, {what}: whole after `up`", took_s, "s", limit_s),
        Figure("  its slowest answer meanwhile, a whole `nodes`", max(answers), "s"),
        Figure("  the joiner's memory then, resident", memory, "MiB"),
        Figure("  a start with all that on disk", ready_s, "s"),
    ]


def known(node: Node) -> int:
    """Count the members whose rows a node holds."""
    return int(node.start("nodes", "-o", "json").json["coverage"]["nodes_known"])


def until(is_so: Callable[[], bool]) -> None:
    """Poll until something is so."""
    end = time.perf_counter() + PATIENCE_S
    while not is_so():
        if time.perf_counter() > end:
            raise TimeoutError("not in time")
        time.sleep(0.05)


def applied(makers: Makers) -> list[Figure]:
    """Decode, verify and apply flushes of ten rows, as a node does; and weigh them."""
    rng = Random(5)
    writers = [makers.feed(number, 500) for number in range(WRITERS)]
    own = OwnFeed(Key.new(rng.randbytes), makers.genesis.mesh_id, makers.genesis.limits, 2)
    held = Replication(makers.genesis, own, ControlSet(makers.genesis))
    for writer in writers:
        held.restore(writer.header, copied(writer.rows))
    frames, payload = [], 0
    for number in range(FLUSHES):
        writer = writers[number % WRITERS]
        for place in range(ROWS_A_FLUSH):
            key = b"row-%08d" % ((number * 7 + place * 13) % 400)
            value = rng.randbytes(100)
            payload += len(key) + len(value)
            writer.write("notes", key, value)
        frames.append(message_to_wire(writer.flush(0.0).flush).SerializeToString())
    began_s = time.process_time()
    for frame in frames:
        message = message_from_wire(pb.Frame.FromString(frame), makers.genesis.mesh_id, held.holds)
        if not held.on_flush("peer", message, 0.0).changes:
            raise ValueError("a flush that was not applied")
    took_s = time.process_time() - began_s
    ratio = sum(map(len, frames)) / payload
    return [
        Figure("1,000 flushes of 10 rows verified and applied", took_s / FLUSHES * 1000, "s", 1.0),
        Figure("bytes on the wire for a byte of keys and values", ratio, "", 1.6),
    ]


def paged(makers: Makers) -> list[Figure]:
    """Ask a node that knows 10,000 sessions for a page, as its RPC does."""
    mesh = Mesh(makers.genesis, Self(Key.new(Random(6).randbytes), 1, Random(7)))
    for number in range(PAGE_OF // SESSIONS_EACH):
        feed = makers.feed(number, SESSIONS_EACH + 1)
        mesh.replication.restore(feed.header, feed.rows)
    clock = SystemClock()
    mesh.recall(clock.steady_s())
    queries = Queries(mesh, PriceBook(), clock)
    took_s = []
    for _ in range(20):
        began_s = time.perf_counter()
        page, following = queries.sessions(Selection(filter="all", limit=200))
        took_s.append(time.perf_counter() - began_s)
        if len(page) != 200 or not following:  # noqa: PLR2004 - as asked for
            raise ValueError("not the page that was asked for")
    first, *later = took_s
    return [
        Figure("a page of 200 of 10,000 sessions, inside the node", median(later) * 1000, "ms", 20),
        Figure("  the first", first * 1000, "ms"),
    ]


if __name__ == "__main__":
    main()
