"""Commands that travel over links: to a neighbour at once, to others along a route.

Invariant: every command sent is answered, by its owner, by a relay, or by the deadline; at most
ORDERS_MAX wait at a time, and as many from others are judged at a time. A command id is executed at
most once whatever way it came (app/commands.py), so sending it again is safe.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from meshnode.core.errors import MeshError, RefusedError, UnreachableError, error_of
from meshnode.core.messages import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from meshnode.app.mesh import Mesh
    from meshnode.core.effects import Effect
    from meshnode.core.ids import NodeId
    from meshnode.core.keys import Signed
    from meshnode.core.messages import Order

ORDERS_MAX = 256  # more: RefusedError to whoever sends one


class Judge(Protocol):
    """Where a command that came over links is judged and executed."""

    async def __call__(self, signed: Signed, via: str, *, until_accepted: bool = False) -> Signed:
        """Return a receipt; raises a MeshError."""


class Relaying:
    """Sends commands over links, and answers those that come over them."""

    def __init__(
        self,
        mesh: Mesh,
        perform: Callable[[Iterable[Effect]], None],
        judge: Judge,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._mesh = mesh
        self._perform = perform
        self._judge = judge
        self._spawn = spawn
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._judging = 0

    def is_linked(self, owner: NodeId) -> bool:
        """Whether there is a link with this node."""
        return owner in self._mesh.overlay.links

    def has_path(self, owner: NodeId) -> bool:
        """Whether links lead to this node."""
        return owner in self._mesh.liveness.graph.reached

    async def submit(
        self, owner: NodeId, command: Signed, *, until_accepted: bool = False
    ) -> Signed:
        """Deliver a command; returns the receipt, raises what the owner said.

        It waits for as long as the caller does.
        """
        if len(self._waiting) >= ORDERS_MAX:
            raise RefusedError(f"{ORDERS_MAX} commands wait for an answer", "try again")
        number, effects = self._mesh.neighbours.order(owner, command, until_accepted=until_accepted)
        if not effects:
            raise UnreachableError("no path of links leads there", "session-mesh nodes --links")
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self._perform(effects)
            reply = await answer
        finally:
            del self._waiting[number]
        if reply.receipt is None:
            raise error_of(dict(zip(("code", "message", "hint"), reply.error, strict=True)))
        return reply.receipt

    def answered(self, reply: Reply) -> None:
        """Take an answer; one that nobody waits for any more is dropped."""
        answer = self._waiting.get(reply.number)
        if answer is not None and not answer.done():
            answer.set_result(reply)

    def obey(self, order: Order, via: NodeId, route: tuple[NodeId, ...]) -> None:
        """Judge a command in the background, and answer it."""
        if self._judging >= ORDERS_MAX:
            busy = ("refused", f"{ORDERS_MAX} commands are being judged", "try again")
            self._perform(self._mesh.answer(route, Reply(order.number, None, busy)))
            return
        self._judging += 1
        self._spawn(self._obey(order, via, route))

    async def _obey(self, order: Order, via: NodeId, route: tuple[NodeId, ...]) -> None:
        try:
            receipt = await self._judge(order.command, via, until_accepted=order.until_accepted)
            reply = Reply(order.number, receipt)
        except MeshError as error:
            reply = Reply(order.number, None, (error.code, error.message, error.hint))
        finally:
            self._judging -= 1
        self._perform(self._mesh.answer(route, reply))
