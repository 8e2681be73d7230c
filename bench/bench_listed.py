"""From `open` on one node to being listed by the others: signed, on disk, sent, verified, shown."""

from __future__ import annotations

import time
from contextlib import ExitStack

from report import Figure, Fleet, spread, table

from meshnode.client.home import Home
from meshnode.client.mesh import MeshClient
from meshnode.client.targets.targets import NewSession, Selection

RUNS = 100
LIMIT_MS = 200.0
GIVE_UP_S = 5.0


def main() -> None:
    """Measure and print."""
    fleet = Fleet()
    try:
        nodes = fleet.mesh("anna", "berta", "carl")
        with ExitStack() as stack:
            clients = [stack.enter_context(MeshClient(Home(node.home))) for node in nodes]
            for client in clients:
                client.status()
            opened, listed = [], []
            for number in range(RUNS):
                begin = time.perf_counter()
                session = clients[0].open_session(NewSession(agent_id=f"bench-{number}"))
                opened.append((time.perf_counter() - begin) * 1000)
                for client in clients[1:]:
                    _wait(client, session["session_id"])
                listed.append((time.perf_counter() - begin) * 1000)
        table(
            "A session opened on one of three nodes, on loopback",
            [
                *spread("listed by both others", listed, "ms", LIMIT_MS),
                Figure("of which the open call itself, median", sorted(opened)[RUNS // 2], "ms"),
            ],
        )
    finally:
        fleet.close()


def _wait(client: MeshClient, session_id: str) -> None:
    selection = Selection(filter="all", session_id=session_id)
    give_up_at = time.perf_counter() + GIVE_UP_S
    while not client.list_sessions(selection)["sessions"]:
        if time.perf_counter() > give_up_at:
            raise SystemExit(f"{session_id} was not listed in {GIVE_UP_S} s")


if __name__ == "__main__":
    main()
