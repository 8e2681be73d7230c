"""The same rows spread and read by two nodes of ours and by Redis: pub/sub, and a hash.

Ours signs, syncs to disk, sends over mTLS, verifies, applies, and stores at the reader as well.
Redis keeps one hash in memory, and the reader hears of each group by pub/sub.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from random import Random
from statistics import median
from typing import TYPE_CHECKING

from redis import Redis
from report import Figure, wait_until

from meshnode.client.home import Home, make_private
from meshnode.node.configuration.told import NodeOptions
from meshnode.node.node import Node
from meshnode.store.database import Database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from report import Fleet

TABLE = "notes"
GROUP = 10  # rows written together
SINGLE = 200  # groups timed one by one
MANY = 1000  # groups written as fast as they are taken
PAGE = 200


def groups(count: int, seed: int) -> Iterator[dict[bytes, bytes]]:
    """Yield groups of rows of 100 bytes."""
    rng = Random(seed)
    for number in range(count):
        first = number * GROUP
        yield {b"row-%08d" % (first + place): rng.randbytes(100) for place in range(GROUP)}


def figures_of(title: str, single_s: list[float], many_s: float, page_s: float) -> list[Figure]:
    """Return what both sides are measured by."""
    return [
        Figure(f"{title}: ten rows, written to readable: median", median(single_s) * 1e3, "ms"),
        Figure(f"{title}: 10,000 rows in groups of ten", many_s, "s"),
        Figure(f"{title}: reading 200 rows", page_s * 1e6, "us"),
    ]


def of_redis(directory: Path) -> list[Figure]:
    """Measure Redis; it must be installed."""
    socket = str(directory / "redis.sock")
    words = ["redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--dir"]
    with subprocess.Popen([*words, str(directory)], stdout=subprocess.DEVNULL) as server:
        try:
            wait_until((directory / "redis.sock").exists)
            return _timed_redis(Redis(unix_socket_path=socket), Redis(unix_socket_path=socket))
        finally:
            server.terminate()


def _timed_redis(writer: Redis, reader: Redis) -> list[Figure]:
    heard = reader.pubsub(ignore_subscribe_messages=True)
    heard.subscribe(TABLE)
    heard.get_message(timeout=1.0)

    def write(rows: dict[bytes, bytes]) -> None:
        both = writer.pipeline(transaction=False)
        both.hset(TABLE, mapping=rows)
        both.publish(TABLE, b"".join(key + value for key, value in rows.items()))
        both.execute()

    def hear() -> None:
        while heard.get_message(timeout=5.0) is None:
            pass

    single_s = []
    for rows in groups(SINGLE, 1):
        began_s = time.perf_counter()
        write(rows)
        hear()
        single_s.append(time.perf_counter() - began_s)
    began_s = time.perf_counter()
    for rows in groups(MANY, 2):
        write(rows)
        hear()
    many_s = time.perf_counter() - began_s
    keys = [key for rows in groups(PAGE // GROUP, 2) for key in rows]
    began_s = time.perf_counter()
    found = reader.hmget(TABLE, keys)
    page_s = time.perf_counter() - began_s
    if None in found:
        raise ValueError("rows are missing")
    return figures_of("redis", single_s, many_s, page_s)


def of_ours(fleet: Fleet) -> list[Figure]:
    """Measure two nodes in one process, with real sockets, TLS and disks."""
    first, second = fleet.mesh("writer", "reader")
    for node in (second, first):
        node.end()
    return asyncio.run(_timed_ours(Home(first.home), Home(second.home)))


async def _timed_ours(writer_home: Home, reader_home: Home) -> list[Figure]:
    databases = [Database(home.database) for home in (writer_home, reader_home)]
    async with asyncio.TaskGroup() as tasks:
        options = NodeOptions("127.0.0.1:0", mdns=False)
        make_private(writer_home.sessions)
        writer = Node(writer_home, options, databases[0], tasks)
        told = await writer.start()
        seeded = NodeOptions("127.0.0.1:0", mdns=False, seeds=(str(told["listen"]),))
        reader = Node(reader_home, seeded, databases[1], tasks)
        await reader.start()
        figures = await _spread(writer, reader)
        for node in (reader, writer):
            node.ask_to_stop()
            await node.run()
    for database in databases:
        database.close()
    return figures


async def _spread(  # noqa: C901 - one measurement after the other
    writer: Node, reader: Node
) -> list[Figure]:
    mesh, origin = reader._mesh, writer._mesh.self_id  # noqa: SLF001 - rows of no verb
    world = writer._world  # noqa: SLF001 - rows of no verb

    def held() -> dict[bytes, object]:
        replica = mesh.replication.replicas.get(origin)
        return {} if replica is None else replica.rows.tables.get(TABLE, {})

    async def arrive(key: bytes) -> None:
        while key not in held():  # noqa: ASYNC110 - no event tells of a row
            await asyncio.sleep(0)

    async def write(rows: dict[bytes, bytes]) -> bytes:
        for key, value in rows.items():
            world.write(TABLE, key, value)
        return key

    await arrive(await write(next(groups(1, 3))))
    single_s = []
    for rows in groups(SINGLE, 1):
        await asyncio.sleep(0.02)  # a write of its own, not one of many
        began_s = time.perf_counter()
        await arrive(await write(rows))
        single_s.append(time.perf_counter() - began_s)
    began_s = time.perf_counter()
    for rows in groups(MANY, 2):
        last = await write(rows)
        await asyncio.sleep(0)
    await arrive(last)
    many_s = time.perf_counter() - began_s
    keys = [key for rows in groups(PAGE // GROUP, 2) for key in rows]
    began_s = time.perf_counter()
    found = [held()[key] for key in keys]
    page_s = time.perf_counter() - began_s
    if len(found) != PAGE:
        raise ValueError("rows are missing")
    return figures_of("ours", single_s, many_s, page_s)
