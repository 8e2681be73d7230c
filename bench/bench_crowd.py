"""What 800 connections that say nothing cost those who speak: a stranger's Hello, a member's call.

They are held on each port of a real node, and opened again as soon as it closes them.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import psutil
from report import Figure, Fleet, spread, table

from meshnode.app.diagnosis.observations import Attempt, Dial
from meshnode.client.home import Home
from meshnode.core.ids import NodeId
from meshnode.core.membership.certificates import from_pem
from meshnode.discovery.probes import certificate_at
from meshnode.node.clock import SystemClock, chance
from meshnode.node.homes.founding import device_key, read_genesis
from meshnode.rpc.probes import enter, hello
from meshnode.rpc.tls import Credentials, Identity

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from report import Node

SILENT = 800  # on each port
ASKED = 60
PAUSE_S = 0.15  # strangers may ask ten times a second
ANSWER_LIMIT_MS = 2000.0


def main() -> None:
    """Measure and print."""
    fleet = Fleet()
    try:
        anna, berta = fleet.mesh("anna", "berta")
        asyncio.run(measure(anna, berta))
    finally:
        fleet.close()


async def measure(anna: Node, berta: Node) -> None:
    """Ask anna, as a stranger and as berta, without the crowd and within it."""
    quiet = await ask(anna, berta)
    process = psutil.Process(anna.process.pid)
    crowd = Crowd([anna.ready["listen"], anna.ready["enrolment"]])
    async with asyncio.TaskGroup() as tasks:
        holding = [tasks.create_task(crowd.hold(address)) for address in crowd.places()]
        await crowd.full.wait()
        before, began_s = process.cpu_times(), time.perf_counter()
        crowded = await ask(anna, berta)
        spent, took_s = process.cpu_times(), time.perf_counter() - began_s
        for one in holding:
            one.cancel()
    share = (spent.user + spent.system - before.user - before.system) / took_s
    figures = []
    for when, (strangers, members) in (("nobody else", quiet), ("the crowd", crowded)):
        figures += spread(f"Hello, with {when}", strangers, "ms", ANSWER_LIMIT_MS)
        figures += spread(f"a member's call, with {when}", members, "ms", ANSWER_LIMIT_MS)
    figures += [
        Figure("connections opened again meanwhile", crowd.opened - 2 * SILENT, ""),
        Figure("processor of the node meanwhile", share * 100, "%"),
        Figure("its open files at the end", process.num_fds(), ""),
    ]
    table(f"{SILENT} silent connections on each port of a node", figures)


class Crowd:
    """Connections that say nothing, to several ports."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses
        self.full = asyncio.Event()
        self.opened = 0

    def places(self) -> list[str]:
        """Name the address of each connection."""
        return self._addresses * SILENT

    async def hold(self, address: str) -> None:
        """Hold one connection, again and again."""
        host, port = address.rsplit(":", 1)
        while True:
            reader, writer = await asyncio.open_connection(host, int(port))
            self.opened += 1
            if self.opened >= len(self.places()):
                self.full.set()
            try:
                await reader.read()
            except ConnectionError:
                pass
            finally:
                writer.close()


async def ask(anna: Node, berta: Node) -> tuple[list[float], list[float]]:
    """Return how long each Hello and each call of a member took, in ms; each dials anew."""
    home = Home(berta.home)
    genesis, chain = read_genesis(home), from_pem(home.certificates.read_bytes())
    identity = Identity(Credentials(device_key(home), genesis, chain, SystemClock().wall_s, chance))
    joiners, members = anna.ready["enrolment"], anna.ready["listen"]
    host, port = joiners.rsplit(":", 1)
    leaf = await certificate_at(host, int(port))
    attempt, peer = Attempt(joiners, Dial.CONNECTED), NodeId(anna.ready["node_id"])
    strangers, called = [], []
    for _ in range(ASKED):
        took_ms, greeted = await _timed(hello(attempt, joiners, leaf, SystemClock().wall_s))
        strangers.append(took_ms if greeted.greeting is not None else ANSWER_LIMIT_MS * 10)
        took_ms, entered = await _timed(enter(attempt, members, peer, identity))
        called.append(took_ms if entered.entered else ANSWER_LIMIT_MS * 10)
        await asyncio.sleep(PAUSE_S)
    return strangers, called


async def _timed(asked: Awaitable[Attempt]) -> tuple[float, Attempt]:
    began_s = time.perf_counter()
    answer = await asked
    return (time.perf_counter() - began_s) * 1000, answer


if __name__ == "__main__":
    main()
