"""A node's socket with sessions behind it, each with its ticket, and what would notice a change."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from doubles import InBackground, ScriptedAgents
from viewing import Viewer

from meshnode.app.sessions.endings import Ended
from meshnode.app.sessions.inboxes import Inboxes, Received
from meshnode.app.sessions.opening import Opening
from meshnode.app.sessions.own_entries import OwnEntries
from meshnode.app.sessions.registry import Registrar
from meshnode.app.sessions.reporting import ReportDesk
from meshnode.app.sessions.sessions import OwnSessions
from meshnode.app.sessions.tickets import TicketDesk
from meshnode.client.home import make_private
from meshnode.client.inside import Inside
from meshnode.core.ledger.ledger import LEDGER
from meshnode.core.ledger.ledger_rows import key_to_row, value_to_row
from meshnode.node.configuration.pricing import LatePrices
from meshnode.node.sessions.inside import StoredReports, TicketFiles
from meshnode.rpc.inside import SessionServicer, TicketGate
from meshnode.rpc.local import LocalServicer
from meshnode.rpc.servers import local_server
from meshnode.store.database import Database
from meshnode.v1.event_service_pb2_grpc import EventServiceServicer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from meshnode.core.ledger.ledger import LedgerRow

WAIT_S = 20.0


class Untouched:
    """Parts of a node that nobody with a ticket may reach; notes who tries."""

    def __init__(self, queries: object) -> None:
        self.queries = queries
        self.touched: list[str] = []

    def __getattr__(self, name: str) -> object:
        self.touched.append(name)
        raise AttributeError(name)


@dataclass
class ScriptedInboxes:
    """Inboxes by session, and who asked for which."""

    steers: dict[str, list[Received]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    taken: list[tuple[str, int]] = field(default_factory=list)
    took: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(
        self, session_id: str, after: int | None, *, follow: bool
    ) -> AsyncIterator[Received]:
        self.asked.append(session_id)
        for steer in self.steers.get(session_id, []):
            if steer.position > (after or 0):
                yield steer
        if follow:
            await asyncio.Event().wait()

    async def take(self, session_id: str, position: int) -> None:
        self.taken.append((session_id, position))
        self.took.set()


class Inhabited:
    """One node with the parts that tickets reach, real but for the agents themselves."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "run" / "node.sock"
        make_private(self.socket.parent)
        self.viewer = Viewer()
        self.database = Database(directory / "state.db")
        self.agents = ScriptedAgents()
        self.inboxes = ScriptedInboxes()
        # Of their own: what waits for the node must not take the threads that the node waits for.
        self._clients = ThreadPoolExecutor(20)
        self._begin()

    def _begin(self) -> None:
        viewer = self.viewer
        self.sessions = OwnSessions(
            self._publish, self.agents, viewer.clock, os.urandom, self._place_of, _idle
        )
        files = TicketFiles(lambda session: self._place_of(session)[0])
        self.tickets = TicketDesk(self.sessions, files, viewer.clock, os.urandom)
        self.reports = ReportDesk(
            self.sessions,
            StoredReports(
                self.database,
                LatePrices(self.directory / "none.yaml", str),
                lambda: None,
                nullcontext,
            ),
            self._publish_rows,
            viewer.clock,
            InBackground(),
        )
        registrar = Registrar(viewer.mesh.roster, self._publish)
        self.parts = Untouched(viewer.queries)
        self.servicer = SessionServicer(
            self.tickets,
            viewer.queries,
            OwnEntries(registrar, viewer.mesh.roster.entries, viewer.mesh.self_id),
            self.reports,
            Inboxes(self.inboxes),
            lambda _: None,
        )

    def restart(self) -> None:
        """Forget all that is in memory, and take the sessions up from the feed."""
        self._begin()
        rows = self.viewer.mesh.tables.sessions()
        self.sessions.restore([one for owner, one in rows if owner == self.viewer.mesh.self_id])

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Inhabited]:
        server = await local_server(
            LocalServicer(self.parts),
            EventServiceServicer(),
            self.socket,
            [self.servicer],
            TicketGate(self.tickets),
        )
        await server.start()
        try:
            async with asyncio.timeout(WAIT_S):
                yield self
        finally:
            await server.stop(0)

    async def open(self, agent_id: str) -> tuple[str, str]:
        """Open a session; returns its id and its ticket."""
        record = await self.sessions.open(Opening(agent_id=agent_id))
        ticket = await self.tickets.issue(record.session_id)
        await self.sessions.started(record.session_id, 7)
        return record.session_id, ticket

    async def end(self, session_id: str) -> None:
        ended = Ended(0, None, None, killed=False, at_s=self.viewer.clock.wall_s())
        await self.sessions.ended(session_id, ended)

    def environment(self, ticket: str) -> dict[str, str]:
        return {"SESSION_MESH_TICKET": ticket, "SESSION_MESH_SOCKET": str(self.socket)}

    async def as_agent(self, ticket: str, act: Callable[[Inside], Any]) -> Any:
        """Do something as a process inside a session does it."""

        def acting() -> Any:
            with Inside(environment=self.environment(ticket), pause=shortly) as session:
                return act(session)

        return await asyncio.get_running_loop().run_in_executor(self._clients, acting)

    def ledger(self) -> list[LedgerRow]:
        """What is published about usage."""
        return [row for _, row in self.viewer.mesh.tables.ledger()]

    def registered(self) -> set[tuple[str, str]]:
        entries = [one.entry for _, one in self.viewer.mesh.roster.entries()]
        return {(one.agent_id, one.specialization) for one in entries}

    def close(self) -> None:
        self._clients.shutdown()
        self.database.close()

    async def _publish(self, table: str, key: bytes, value: bytes | None) -> None:
        self.viewer.put(0, table, key, value)

    def _publish_rows(self, rows: list[LedgerRow]) -> None:
        for key, value in rows:
            self.viewer.put(0, LEDGER, key_to_row(key), value_to_row(value))

    def _place_of(self, session_id: str) -> tuple[Path, Path]:
        directory = self.directory / "sessions" / session_id
        make_private(directory)
        return directory, self.directory / "run" / f"{session_id[:13]}.sock"


def _idle(work) -> None:
    work.close()


def inhabited() -> Iterator[Inhabited]:
    """Give a test a node of its own: a socket's path has 108 bytes, and tmp_path takes most."""
    with tempfile.TemporaryDirectory(prefix="sm-") as directory:
        node = Inhabited(Path(directory))
        yield node
        node.close()


async def refused(node: Inhabited, ticket: str, act, error) -> str:
    """Let an agent try something; returns the sentence that it gets."""
    with pytest.raises(error) as caught:
        await node.as_agent(ticket, act)
    assert ticket not in str(caught.value), "a ticket is never said"
    return caught.value.message


def unchanged(node: Inhabited) -> None:
    assert node.ledger() == []
    assert node.registered() == set()
    assert node.agents.steered == node.agents.kills == []
    assert node.parts.touched == []


def shortly(pause_s: float) -> None:
    """Pause for a tenth: who does not pause at all has given up before a node can be back."""
    time.sleep(pause_s / 10)
