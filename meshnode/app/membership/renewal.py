"""Keeping members: a node whose certificate is past half of its life gets a new one for its key.

Invariant: nothing is issued for a key that the caller has not proved to hold, for a node that is no
member here, or by a node that no present root lets admit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.core.errors import NotPermittedError, RefusedError
from meshnode.core.membership.certificates import issue_node_ca

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshnode.app.membership.admission import Admitter
    from meshnode.app.ports import Clock
    from meshnode.core.ids import Chance, NodeId

PAUSE_S = 60.0  # between two certificates for one node
REMEMBERED_MAX = 4096  # nodes that asked lately; more at once: the oldest may ask again


class RenewalDesk:
    """Answers members that ask for a new certificate."""

    def __init__(
        self,
        admitter: Admitter,
        is_member: Callable[[NodeId], bool],
        clock: Clock,
        chance: Chance,
    ) -> None:
        self._admitter = admitter
        self._is_member = is_member
        self._clock = clock
        self._chance = chance
        self._asked: dict[NodeId, float] = {}

    def renew(self, peer: NodeId) -> tuple[bytes, ...]:
        """Issue a certificate for a peer; raises a MeshError, having signed nothing.

        `peer`: whom TLS has proved to call.
        """
        certificate = self._admitter.certificate()
        if certificate is None:
            raise RefusedError("this node admits nobody", "ask a node that does")
        if not self._is_member(peer):
            raise NotPermittedError(
                "this node is no member of the mesh", "join again: session-mesh join -"
            )
        self._pace(peer)
        now_s = float(int(self._clock.wall_s()))
        issued = issue_node_ca(self._admitter.key, peer, now_s, self._chance)
        return (issued, certificate)

    def _pace(self, peer: NodeId) -> None:
        now_s = self._clock.steady_s()
        if now_s - self._asked.get(peer, -PAUSE_S) < PAUSE_S:
            raise RefusedError("it has got a certificate just now", "wait a minute")
        self._asked.pop(peer, None)
        while len(self._asked) >= REMEMBERED_MAX:
            del self._asked[next(iter(self._asked))]
        self._asked[peer] = now_s
