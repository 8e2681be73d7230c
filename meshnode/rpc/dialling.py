"""How often one place is dialled, whoever says that a member listens there.

Invariant: a node begins at most PER_S connections a second to one host and port, and HOST_PER_S to
one host, after a burst. So nobody makes a mesh hammer a third party by naming its address, however
many nodes are made up for it: on one host there may be many nodes, at one port there is one.
"""

from __future__ import annotations

from meshnode.core.pacing import Buckets

PER_S, BURST = 1.0, 6
HOST_PER_S, HOST_BURST = 16.0, 96  # a whole fleet may live on one host
TOO_OFTEN = "was dialled often enough lately"


class DialPace:
    """Remembers what was dialled. `now_s` is a steady clock in seconds."""

    def __init__(self) -> None:
        self._addresses: Buckets[str] = Buckets(PER_S, BURST)
        self._hosts: Buckets[str] = Buckets(HOST_PER_S, HOST_BURST)

    def allows(self, address: str, now_s: float) -> bool:
        """Whether this address (host:port) may be dialled now; if so, that counts."""
        host = address.rpartition(":")[0].strip("[]").lower()
        return self._addresses.take(address, now_s) and self._hosts.take(host, now_s)
