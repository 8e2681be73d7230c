"""`session-mesh list` as a whole process: what a user waits for, with 30 and with 250 sessions."""

from __future__ import annotations

import subprocess
import time

from report import PROGRAM, Figure, Fleet, Node, spread, table

from meshnode.client.home import Home
from meshnode.client.mesh import MeshClient
from meshnode.client.targets.targets import NewSession

RUNS = 15
LIMIT_S = 0.45


def main() -> None:
    """Measure and print."""
    fleet = Fleet()
    try:
        (anna,) = fleet.mesh("anna")
        figures = [Figure("python -c pass, the floor", _seconds(["python3", "-c", "pass"]), "s")]
        for sessions in (30, 250):
            _fill(anna, sessions)
            samples = [_seconds([PROGRAM, "list"], anna) for _ in range(RUNS)]
            figures += spread(f"list of {sessions} sessions", samples, "s", LIMIT_S)
        samples = [_seconds([PROGRAM, "list", "-o", "json"], anna) for _ in range(RUNS)]
        figures += spread("the same as JSON", samples, "s", LIMIT_S)
        table("session-mesh list, the whole process", figures)
    finally:
        fleet.close()


def _fill(node: Node, sessions: int) -> None:
    with MeshClient(Home(node.home)) as client:
        present = len(client.list_sessions()["sessions"])
        for number in range(present, sessions):
            client.open_session(NewSession(agent_id=f"agent-{number}", title="A bench session"))


def _seconds(words: list[str], node: Node | None = None) -> float:
    environment = None if node is None else node.environment
    begin = time.perf_counter()
    subprocess.run(words, env=environment, check=True, capture_output=True)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
