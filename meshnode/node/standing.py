"""Standing kills of a node, put together: what it carries out, and what it lists.

Invariant: what became of an order is in the log, with the order's id and its signer's.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from meshnode.app.orders import Orders
from meshnode.app.standing import StandingKills
from meshnode.core.ids import b32
from meshnode.core.keys import key_id_of
from meshnode.node.books import StoredOrders
from meshnode.rpc.orders import serve_orders
from meshnode.store import standing

if TYPE_CHECKING:
    import grpc.aio

    from meshnode.app.queries import Queries
    from meshnode.app.sessions import Done
    from meshnode.core.standing import Due
    from meshnode.node.ground import Ground
    from meshnode.node.hosting import Hosting

_log = logging.getLogger("session_mesh.orders")


class Standing:
    """Orders that wait for what they mean."""

    def __init__(self, ground: Ground, hosting: Hosting, queries: Queries) -> None:
        self._ground = ground
        self._kills = StandingKills(
            ground.world.mesh,
            hosting.sessions,
            StoredOrders(ground.database),
            ground.clock,
            ground.spawn,
            _tell,
        )
        self._orders = Orders(queries)

    def serve(self, server: grpc.aio.Server) -> None:
        """Tell the user of this machine of orders; before the server starts."""
        serve_orders(self._orders, server)

    def start(self) -> None:
        """Begin once all that the disk remembers is there."""
        self._kills.restore(self._ground.database.run_now(standing.done))
        self._ground.world.on_entry = self._kills.heard
        self._ground.spawn(self._kills.run())


def _tell(one: Due, done: Done) -> None:
    fields = {
        "event": "standing_kill",
        "order": b32(one.standing.order_id),
        "session": one.session.session_id,
        "outcome": done.outcome,
        "by": key_id_of(one.standing.issuer),
    }
    _log.warning(
        "standing kill of %s: %s (%s)",
        one.session.agent_id,
        done.outcome,
        done.detail,
        extra={"fields": fields},
    )
