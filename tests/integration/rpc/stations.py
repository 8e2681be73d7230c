"""A node's links on a port of its own, and a record of what they tell."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from integration.rpc.fleet import WAIT_S, Founded, Member, serving

from meshnode.core.feeds.heads import NOTHING
from meshnode.core.feeds.messages import Farewell, Members, Message
from meshnode.discovery.probes import accepts
from meshnode.rpc.links import Links, LinkServicer
from meshnode.rpc.servers import members_server
from meshnode.v1 import command_service_pb2_grpc as commands_grpc
from meshnode.wire.links import Introduction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    import grpc.aio

    from meshnode.core.feeds.headers import Header
    from meshnode.core.ids import NodeId


class Recorder:
    """Notes what links tell, and answers a farewell as a mesh does."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.links: Links | None = None
        self.stalled: bool | None = None  # what the last dial that failed made of the machine
        self.held = NOTHING
        self._changed = asyncio.Event()

    def linked(self, peer: NodeId, *, dialled: bool) -> None:
        self._note("linked", peer, dialled)

    def unlinked(self, peer: NodeId, reason: str) -> None:
        self._note("unlinked", peer, reason)

    def holds(self, header: Header) -> bool:
        return header.head <= self.held

    def dial_failed(self, peer: NodeId, reason: str, *, stalled: bool) -> None:
        self._note("dial_failed", peer, reason)
        self.stalled = stalled

    def learned(self, peer: NodeId, addresses: tuple[str, ...]) -> None:
        self._note("learned", peer, addresses)

    def received(self, peer: NodeId, message: Message) -> None:
        self._note("received", peer, message)
        if isinstance(message, Farewell) and self.links is not None:
            self.links.hang_up(peer, message.reason)

    def refused(self, peer: NodeId, reason: str) -> None:
        self._note("refused", peer, reason)

    def caught_up(self, peer: NodeId) -> None:
        self._note("caught_up", peer)

    def _note(self, *event: Any) -> None:
        self.events.append(event)
        self._changed.set()

    def all(self, kind: str) -> list[Any]:
        """Return the last part of every event of a kind."""
        return [event[-1] for event in self.events if event[0] == kind]

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait for events until something holds."""
        async with asyncio.timeout(WAIT_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    async def heard(self, kind: str, count: int = 1) -> Any:
        """Wait for so many events of a kind; returns the last part of the last one."""
        await self.until(lambda: len(self.all(kind)) >= count)
        return self.all(kind)[count - 1]


class Station:
    """One node's links, and its tasks: any exception that escapes one is kept."""

    def __init__(self, member: Member, mesh: Founded, boot: int = 1) -> None:
        self.member = member
        self.node_id = member.node_id
        self.heard = Recorder()
        self.address = ""
        self.server: grpc.aio.Server | None = None
        self.escaped: list[BaseException] = []
        self.tasks: set[asyncio.Task[None]] = set()
        introduction = Introduction(boot, ("192.0.2.1:1",))
        self.links = Links(self.node_id, mesh.mesh_id, introduction, self.heard, self.spawn)
        self.links.accepts = accepts
        self.heard.links = self.links

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.escaped.append(error)

    def dial(self, other: Station, *addresses: str) -> None:
        where = addresses or (other.address,)
        self.links.dial(other.node_id, where, self.member.identity)

    def send(self, other: Station, *counts: int) -> None:
        """Send messages that are neither coalesced nor urgent, and tell their number."""
        for count in counts:
            self.links.send(other.node_id, Members({other.node_id: (str(count),)}))

    def numbers(self) -> list[int]:
        """Return what `send` has told us."""
        told = [message for message in self.heard.all("received") if isinstance(message, Members)]
        return [int(address) for one in told for (address,) in one.addresses.values()]

    async def told(self, *counts: int) -> None:
        await self.heard.until(lambda: set(counts) <= set(self.numbers()))

    async def quiet(self) -> None:
        """Wait until no task of ours is left."""
        async with asyncio.timeout(WAIT_S):
            while self.tasks:
                await asyncio.wait(self.tasks)

    async def writing(self) -> None:
        """Wait until nothing waits in an outbox: what was sent is in gRPC's hands."""
        async with asyncio.timeout(WAIT_S):
            while any(link.outbox._bytes for link in self.links._links.values()):  # noqa: ASYNC110 - an outbox has no event
                await asyncio.sleep(0)  # an outbox has no event for its being empty

    @property
    def balance(self) -> int:
        """How many links there are, by what was told."""
        return len(self.heard.all("linked")) - len(self.heard.all("unlinked"))

    async def close(self) -> None:
        self.links.close()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@asynccontextmanager
async def station(mesh: Founded, member: Member, boot: int = 1) -> AsyncIterator[Station]:
    """Run a node's links on a port of its own; no exception may have escaped at the end."""
    made = Station(member, mesh, boot)
    server = await members_server(LinkServicer(made.links), commands_grpc.CommandServiceServicer())
    async with serving(server, member.identity.for_members) as made.address:
        made.server = server
        try:
            yield made
        finally:
            await made.close()
    assert made.escaped == [], made.escaped


async def link(one: Station, other: Station) -> None:
    one.dial(other)
    await one.heard.heard("linked")
    await other.heard.heard("linked")


async def flows(one: Station, other: Station, number: int) -> None:
    """Messages reach both."""
    one.send(other, number)
    other.send(one, number + 1)
    await other.told(number)
    await one.told(number + 1)
