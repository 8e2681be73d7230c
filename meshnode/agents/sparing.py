"""Other sessions that a process of this one has started: they have supervisors of their own.

Invariant: nobody whom this session supervises decides who is spared with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.agents import tree
from meshnode.agents.clients import RequestError

if TYPE_CHECKING:
    from meshnode.agents.clients import Client, Reply

SPARED_MAX = 4096  # supervisors of other sessions below this one; more are refused


class Spared:
    """The supervisors of other sessions below `supervisor`, as its node tells it."""

    def __init__(self, supervisor: tree.Identity) -> None:
        self._supervisor = supervisor
        self._told: set[tree.Identity] = set()

    def alive(self) -> frozenset[tree.Identity]:
        """Return those that still are there."""
        self._told = {one for one in self._told if tree.is_alive(one)}
        return frozenset(self._told)

    def add(self, client: Client, head: Reply, request: Reply) -> None:
        """Learn of another session's supervisor in our tree; only the node may say so."""
        pid, ticks = request.get("pid"), request.get("start_ticks")
        if not isinstance(pid, int) or not isinstance(ticks, int):
            raise RequestError("spare needs pid and start_ticks, both integers")
        teller = tree.identity_of(client.pid)
        if teller is None or self._supervisor in tree.ancestors(teller):
            raise RequestError("what we supervise does not decide what is spared")
        if len(self._told) >= SPARED_MAX:
            raise RequestError(f"at most {SPARED_MAX} are spared")
        self._told.add(tree.Identity(pid, ticks))
        client.send({**head, "ok": True})
