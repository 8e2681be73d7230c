"""How often a place is dialled, whoever says that a member listens there, and how long that lasts.

Invariant: a node begins at most PER_S connections a second to one host and port, and HOST_PER_S to
one host, after a burst. So nobody makes a mesh hammer a third party by naming its address, however
many nodes are made up for it: on one host there may be many nodes, at one port there is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.core.pacing import Buckets

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshnode.core.ids import NodeId

PER_S, BURST = 1.0, 6
HOST_PER_S, HOST_BURST = 16.0, 96  # a whole fleet may live on one host
FAILED_MAX = 1024  # addresses that are remembered to have failed; the longest ago is forgotten
DIAL_TIMEOUT_S = 4.0  # of a dial; twice as long after each that took longer,
SILENT_TIMEOUT_S = 8.0  # as far as this where not even the machine answers in time,
STALLED_TIMEOUT_S = 16.0  # and this where it does: gRPC ends a connect after 20 s by itself
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


class Patience:
    """How long a dial of a member's address may take: longer after some that were given up.

    What a narrow link has room for, a few at once, is given up at once too, and begun anew: behind
    64 kbit/s seven nodes' handshakes, cut off after 4 s each, left no room for any. Where nothing
    answers a long dial would find a member late: between two SYNs of one that waits 8 s lie 4. So
    would several: of a member's addresses the first that is tried gets more time, and no other.
    """

    def __init__(self) -> None:
        self._longer_s: dict[tuple[NodeId, str], float] = {}  # the longest ago first

    def of(self, peer: NodeId, address: str, *, first: bool = True) -> float:
        """Return how long the next dial may take, in seconds; `first`: before all others."""
        return self._longer_s.get((peer, address), DIAL_TIMEOUT_S) if first else DIAL_TIMEOUT_S

    def linked(self, peer: NodeId) -> None:
        """Note that there is a link with a member: whatever kept it from answering is over."""
        for place in [place for place in self._longer_s if place[0] == peer]:
            del self._longer_s[place]

    def given_up(self, peer: NodeId, address: str, *, stalled: bool) -> None:
        """Note that a dial took too long; `stalled` if the machine takes connections meanwhile."""
        most_s = STALLED_TIMEOUT_S if stalled else SILENT_TIMEOUT_S
        longer_s = min(2 * self.of(peer, address), most_s)
        self._longer_s.pop((peer, address), None)
        self._longer_s[peer, address] = longer_s
        if len(self._longer_s) > FAILED_MAX:
            del self._longer_s[next(iter(self._longer_s))]


class Failures:
    """Which addresses led to no link when they were tried last.

    A member that moved says where, but its old addresses are known too, and each costs seconds.
    """

    def __init__(self) -> None:
        self._failed: dict[tuple[NodeId, str], None] = {}  # the longest ago first

    def failed(self, peer: NodeId, address: str) -> None:
        """Note that no link came of an address."""
        self.answered(peer, address)
        self._failed[peer, address] = None
        if len(self._failed) > FAILED_MAX:
            del self._failed[next(iter(self._failed))]

    def answered(self, peer: NodeId, address: str) -> None:
        """Note that a link came of an address."""
        self._failed.pop((peer, address), None)

    def ordered(self, peer: NodeId, addresses: Iterable[str]) -> list[str]:
        """Return a member's addresses as they are to be tried: as given, those that failed last."""
        known = dict.fromkeys(addresses)
        failed = [address for who, address in self._failed if who == peer and address in known]
        return [*(address for address in known if address not in failed), *failed]
