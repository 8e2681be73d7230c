"""What a node costs while nothing happens: memory and processor time, alone and among three."""

from __future__ import annotations

import time

import psutil
from report import Figure, Fleet, Node, table

IDLE_S = 15.0
SETTLE_S = 3.0
RSS_LIMIT_MIB = 72.0
PRIVATE_LIMIT_MIB = 40.0
CPU_LIMIT_PERCENT = 1.0


def main() -> None:
    """Measure and print."""
    fleet = Fleet()
    try:
        nodes = fleet.mesh("anna", "berta", "carl", flags=("--mdns",))
        time.sleep(SETTLE_S)
        before = [_cpu_s(node) for node in nodes]
        time.sleep(IDLE_S)
        spent = [_cpu_s(node) - b for node, b in zip(nodes, before, strict=True)]
        figures = []
        for node, cpu_s in zip(nodes, spent, strict=True):
            memory = psutil.Process(node.process.pid).memory_full_info()
            rss, private = memory.rss / 2**20, memory.uss / 2**20
            figures += [
                Figure(f"{node.name}: resident", rss, "MiB", RSS_LIMIT_MIB),
                Figure(f"{node.name}: private", private, "MiB", PRIVATE_LIMIT_MIB),
                Figure(f"{node.name}: processor", cpu_s / IDLE_S * 100, "%", CPU_LIMIT_PERCENT),
            ]
        table(f"Three idle nodes with mDNS, over {IDLE_S:g} s", figures)
    finally:
        fleet.close()


def _cpu_s(node: Node) -> float:
    times = psutil.Process(node.process.pid).cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    main()
