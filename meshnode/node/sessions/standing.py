"""Standing kills of a node, put together: what it carries out, and what it lists.

Invariant: what became of an order is in the audit log, with the order's id and its signer's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.app.audit.auditing import Happening
from meshnode.app.commands.orders import Orders
from meshnode.app.commands.standing import StandingKills
from meshnode.core.ids import b32
from meshnode.core.keys import key_id_of
from meshnode.node.homes.books import StoredOrders
from meshnode.rpc.orders import OrderServicer
from meshnode.store import standing

if TYPE_CHECKING:
    from meshnode.app.audit.auditing import Auditor
    from meshnode.app.queries.queries import Queries
    from meshnode.app.sessions.done import Done
    from meshnode.core.commands.standing import Standing as Order
    from meshnode.core.sessions.sessions import SessionRecord
    from meshnode.node.ground import Ground
    from meshnode.node.sessions.hosting import Hosting


class Standing:
    """Orders that wait for what they mean."""

    def __init__(
        self, ground: Ground, hosting: Hosting, queries: Queries, auditor: Auditor
    ) -> None:
        self._ground = ground
        self._auditor = auditor
        self._agents_found = hosting.agents_found
        self._kills = StandingKills(
            ground.world.mesh,
            hosting.sessions,
            StoredOrders(ground.database),
            ground.clock,
            ground.spawn,
            self._tell,
        )
        self.servicer = OrderServicer(Orders(queries))
        # From the first link on: what comes before `start` may have its cancel right behind it.
        ground.world.on_entry.append(lambda _entry: self._kills.heard())

    def start(self) -> None:
        """Begin once all that the disk remembers is there."""
        self._kills.restore(self._ground.database.run_now(standing.done))
        self._ground.keep(self._kills.run(self._agents_found))

    def _tell(self, order: Order, session: SessionRecord | None, done: Done) -> None:
        told = Happening(
            "standing_kill",
            session.session_id if session else order.kill.session,
            session.agent_id if session else order.kill.agent,
            (session.owner or "") if session else "",
            command=b32(order.order_id),
            actor=key_id_of(order.issuer),
            action="kill",
            outcome=done.outcome,
            detail=done.detail,
        )
        if session is None:  # void: who has stolen a key may have left any number
            self._auditor.note_some(told)
        else:
            self._auditor.note(told)
