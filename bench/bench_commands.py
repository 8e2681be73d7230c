"""What a signed steer costs through another node, beside a bare mTLS call in the same run.

`bench_commands.py [--replays N [--seed S]]`: with N, also N commands doubled, reordered and
replayed across crashes of the node; 100,000 for the figure of record.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path
from random import Random
from statistics import median, quantiles
from typing import TYPE_CHECKING

from report import Figure, Fleet, Node, table, wait_until

# isort: split
# Only now: `report` puts the tests' modules, which the rest is made of, where Python looks.
from grpc_health.v1 import health_pb2, health_pb2_grpc
from owner import KEY, STRANGER, Owner, key_for
from sim.replays import simulate

from meshnode.client.home import Home
from meshnode.client.mesh import MeshClient
from meshnode.client.targets.targets import Delivery, Target
from meshnode.core.ids import NodeId
from meshnode.core.membership.certificates import from_pem
from meshnode.node.clock import SystemClock, chance
from meshnode.node.homes.founding import device_key, read_genesis
from meshnode.rpc.tls import Credentials, Identity
from meshnode.store import journal
from meshnode.store.database import Database

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc.aio

    from meshnode.core.control.grants import SessionKey

STEERS = 400
WARM_UP = 40
VERIFIED = 4000
AGENT = "bench"


def main() -> None:
    """Measure and print."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replays", type=int, default=0, help="how many commands to replay")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    fleet = Fleet()
    try:
        asked, owner = fleet.mesh("asked", "owner")
        owner.call("run", "--detach", "--agent-id", AGENT, "--", "sh", "-c", "cat >/dev/null")
        table("A steer through a node that does not own the session", steered(asked, owner))
    finally:
        fleet.close()
    table("Verified at the owner, one core", asyncio.run(verified()))
    if chosen.replays:
        report = simulate(chosen.seed, chosen.replays)
        print(f"\n{report}")
        for fault in report.faults[:20]:
            print(fault)
        table("Replays", [Figure("carried out twice, or told wrongly", len(report.faults), "", 0)])


def steered(asked: Node, owner: Node) -> list[Figure]:
    """Steer and call in turn, so that both meet the same noise."""
    with MeshClient(Home(asked.home)) as client, asyncio.Runner() as runner:
        wait_until(lambda: client.list_sessions()["sessions"], "the session")
        channel = runner.run(_channel(asked, owner))
        bare, whole = [], []
        for _ in range(WARM_UP + STEERS):
            bare.append(runner.run(_called(channel)))
            whole.append(_steered(client, Delivery()))
        accepted = [_steered(client, Delivery(wait="accepted")) for _ in range(STEERS // 4)]
        runner.run(channel.close())
    bare, whole = bare[WARM_UP:], whole[WARM_UP:]
    return [
        *_spread("a synced commit on this disk: a steer waits for two", _commits()),
        *_spread("a bare mTLS call to the owner", bare),
        *_spread("found, signed, journalled, delivered, receipt verified", whole, 8.0, 25.0),
        *_spread("the same, until it is accepted", accepted),
        Figure("ratio of the medians, steer to bare call", median(whole) / median(bare), "x"),
    ]


def _commits() -> list[float]:
    """Write as the journal does; times in ms."""
    took = []
    with tempfile.TemporaryDirectory() as directory:
        database = Database(Path(directory) / "state.db")
        for number in range(STEERS):
            begin = time.perf_counter()
            database.run_now(journal.raise_floor, float(number + 1))
            took.append((time.perf_counter() - begin) * 1000)
        database.close()
    return took


def _steered(client: MeshClient, delivery: Delivery) -> float:
    begin = time.perf_counter()
    said = client.steer(Target(agent_id=AGENT), message="north", delivery=delivery)
    took_s = time.perf_counter() - begin
    if said["outcome"] not in {"delivered", "accepted"}:
        raise SystemExit(f"a steer was {said['outcome']}: {said['detail']}")
    return took_s * 1000


async def _called(channel: grpc.aio.Channel) -> float:
    stub = health_pb2_grpc.HealthStub(channel)
    begin = time.perf_counter()
    await stub.Check(health_pb2.HealthCheckRequest())
    return (time.perf_counter() - begin) * 1000


async def _channel(asked: Node, owner: Node) -> grpc.aio.Channel:
    """Open what a member of the mesh calls another through."""
    home = Home(asked.home)
    chain = from_pem(home.certificates.read_bytes())
    clock = SystemClock()
    identity = Identity(
        Credentials(device_key(home), read_genesis(home), chain, clock.wall_s, chance)
    )
    return identity.channel(NodeId(owner.ready["node_id"]), owner.ready["listen"])


async def verified() -> list[Figure]:
    """Judge commands whose chain is cached, and whose chain is not; then all that a desk does."""
    owner = Owner()
    session = owner.sessions.get("s" * 26)
    fresh = [key_for(STRANGER, grant_id=Random(n).randbytes(16)) for n in range(VERIFIED // 4)]
    figures = []
    for name, keys, at_least in (
        ("with a cached chain", [KEY] * VERIFIED, 1500.0),
        ("with a chain never seen", fresh, 0.0),
    ):
        orders = [owner.order(key=key) for key in keys]
        begin = time.process_time()
        for signed in orders:
            owner.court.judge(signed, session, "", owner.clock.now_s)
        per_s = len(orders) / (time.process_time() - begin)
        figures.append(_at_least(f"verified a second, {name}", per_s, at_least))
    figures.append(_at_least("the whole desk a second, without a disk", await _desk(KEY), 0.0))
    return figures


async def _desk(key: SessionKey) -> float:
    owner = Owner()
    orders = [owner.order(key=key) for _ in range(1000)]
    begin = time.process_time()
    for signed in orders:
        await owner.desk.submit(signed, "")
    return len(orders) / (time.process_time() - begin)


def _at_least(what: str, value: float, least: float) -> Figure:
    """Print a rate with what it should be; `Figure` knows upper limits only."""
    verdict = "" if not least else f" (>= {least:,.0f}: {'ok' if value >= least else 'UNDER'})"
    return Figure(f"{what}{verdict}", value, "/s")


def _spread(
    what: str, values: Sequence[float], p50: float | None = None, p99: float | None = None
) -> list[Figure]:
    return [
        Figure(f"{what}, p50 of {len(values)}", median(values), "ms", p50),
        Figure(f"{what}, p99", quantiles(values, n=100)[98], "ms", p99),
    ]


if __name__ == "__main__":
    main()
