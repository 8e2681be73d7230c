"""Orders of a bearer: the session that is meant, a command signed with their key, its outcome.

Invariant: the node signs nothing here in its own name. The owner of the target verifies the
bearer's own rights, as if they had come themselves, and that they came through this node.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from meshnode.client.messages import to_plain
from meshnode.client.orders import COMMAND_ID_BYTES, outcome_of, sign_order
from meshnode.client.targets import (
    DELIVERY_TIMEOUT_S,
    Order,
    Selection,
    Target,
    has_ended,
    resolve,
)
from meshnode.client.wishes import GRACE_S, already_ended, check_lives, kill_args, order_to
from meshnode.core.errors import NotFoundError, StaleError
from meshnode.core.ids import NodeId
from meshnode.core.registry import place_of, specialist
from meshnode.rpc.local import list_sessions
from meshnode.v1 import local_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from meshnode.app.bearers import Bearer
    from meshnode.app.ports import Clock
    from meshnode.app.queries import Queries
    from meshnode.core.ids import Chance
    from meshnode.rpc.commands import Bringer

    Plain = dict[str, Any]

PAGE_MAX = 1000  # sessions that one name may fit


class Actor:
    """Orders what bearers want, of any node's sessions."""

    def __init__(
        self,
        queries: Queries,
        bringer: Bringer,
        journal_generation: int,
        clock: Clock,
        chance: Chance,
    ) -> None:
        self._queries = queries
        self._bringer = bringer
        self._journal_generation = journal_generation
        self._clock = clock
        self._chance = chance

    def find(self, target: Target) -> Plain:
        """Return the one session meant, by its whole id or agent id; raises a MeshError."""
        found = resolve(target, self._listed)
        if target.session_id not in {"", found["session_id"]}:  # prefixes are for people who type
            raise NotFoundError(f"no session {target.session_id!r}", "give the whole session id")
        return found

    async def steer(self, bearer: Bearer, target: Target, args: Plain) -> Plain:
        """Tell an agent something; returns the outcome that its owner signed."""

        async def once(session: Plain) -> Plain:
            check_lives(session)
            return await self._submit(bearer, order_to(session, "steer", args), DELIVERY_TIMEOUT_S)

        return await self._fresh(target, once)

    async def kill(self, bearer: Bearer, target: Target, *, force: bool) -> Plain:
        """End a session with its whole process tree; one that has ended is left alone."""
        args = kill_args(GRACE_S, force=force)
        timeout_s = DELIVERY_TIMEOUT_S + args["grace_s"]

        async def once(session: Plain) -> Plain:
            if has_ended(session):
                return already_ended(session)
            return await self._submit(bearer, order_to(session, "kill", args), timeout_s)

        return await self._fresh(target, once)

    async def register(
        self, bearer: Bearer, agent_id: str, specialization: str, attributes: dict[str, str]
    ) -> Plain:
        """Enter an agent into the registry, through the feed of this node."""
        args = asdict(specialist(agent_id, specialization, attributes))
        return await self._change_here(bearer, "register", args)

    async def unregister(self, bearer: Bearer, agent_id: str, specialization: str) -> Plain:
        """Take an agent out of the registry, whoever entered it."""
        args = asdict(place_of(agent_id, specialization))
        return await self._change_here(bearer, "unregister", args)

    async def _change_here(self, bearer: Bearer, action: str, args: Plain) -> Plain:
        here = self._queries.mesh.self_id
        order = Order(here, self._journal_generation, action, args=args)
        outcome = await self._submit(bearer, order, DELIVERY_TIMEOUT_S)
        return {name: args[name] for name in ("agent_id", "specialization")} | outcome

    async def _submit(self, bearer: Bearer, order: Order, timeout_s: float) -> Plain:
        command = sign_order(
            bearer.key,
            self._queries.mesh.genesis.mesh_id,
            order,
            self._chance(COMMAND_ID_BYTES),
            self._clock.wall_s(),
        )
        receipt = await self._bringer.submit(NodeId(order.node_id), command, timeout_s)
        return outcome_of(command, receipt)

    async def _fresh(self, target: Target, once: Callable[[Plain], Awaitable[Plain]]) -> Plain:
        """Act on a session; once more on what it is by then, if it has started anew meanwhile."""
        session = self.find(target)
        try:
            return await once(session)
        except StaleError:
            return await once(self.find(replace(target, session_id=session["session_id"])))

    def _listed(self, selection: Selection) -> list[Plain]:
        if selection == Selection():
            return []  # asked only for a hint at a typing error, which is no program's
        request = pb.ListSessionsRequest(**asdict(selection), limit=PAGE_MAX)
        return [to_plain(one) for one in list_sessions(self._queries, request).sessions]
