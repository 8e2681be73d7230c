"""A sender, a relay and an owner: real cores and frames in real bytes, and a relay that may lie."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

from doubles import (
    InBackground,
    ManualClock,
    MemoryJournal,
    Published,
    ScriptedAgents,
    nowhere,
)

from meshnode.app.commands.commands import CommandDesk
from meshnode.app.commands.executing import Executor
from meshnode.app.commands.relaying import Desk, Relaying
from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.app.sessions.readings import Readings
from meshnode.app.sessions.registry import Registrar
from meshnode.app.sessions.sessions import OwnSessions
from meshnode.core.commands.commands import Command, Court, sign_command
from meshnode.core.commands.envelopes import Correspondence
from meshnode.core.control.control import ControlSet
from meshnode.core.control.grants import Grant, SessionKey, grant
from meshnode.core.effects import Answered, Obey, Send
from meshnode.core.feeds.messages import Routed
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.ids import SessionId, node_id_of, short_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.membership.genesis import Genesis
from meshnode.core.membership.members import (
    LINKS,
    NODE,
    ONLY_ROW,
    LinksRecord,
    NodeRecord,
    links_to_row,
    node_to_row,
)
from meshnode.core.sealing import SealingKey
from meshnode.core.sessions.sessions import SessionRecord, State
from meshnode.wire.links import message_from_wire, message_to_wire

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator

    from meshnode.core.effects import Effect
    from meshnode.core.ids import NodeId

chance = Random(31).randbytes
ROOT = Key.new(chance)
GENESIS = Genesis((ROOT.public,), 1, "town", bytes(16))
GENERATION = 5
SESSION = SessionRecord(SessionId("s" * 26), 42, "agent", State.RUNNING, 1.0, 1.0)
SECRET = "the plan that nobody on the way may read"
OUTPUT = [b"first words of the agent ", b"more of them ", b"the last ones"]


class House:
    """One node: its mesh, what it sends and obeys, and an agent that notes what it is told."""

    def __init__(self, town: Town, number: int) -> None:
        self.town = town
        self.key = Key.new(chance)
        self.node_id = node_id_of(self.key.public)
        self.mesh = Mesh(GENESIS, Self(self.key, 1, Random(number)))
        self.agents, self.journal = ScriptedAgents(), MemoryJournal()
        sessions = OwnSessions(
            Published(), self.agents, town.clock, chance, nowhere, InBackground()
        )
        sessions.restore([SESSION])
        self.control = ControlSet(GENESIS)
        court = Court(GENESIS.mesh_id, self.node_id, self.control, GENERATION)
        executor = Executor(sessions, Registrar(self.mesh.roster, Published()))
        self.desk = CommandDesk(court, self.key, sessions, executor, self.journal, town.clock)
        self.reads = 0
        self.readings = Readings(
            self.desk.judge_reading, self.desk.recheck_reading, self._read, town.clock
        )
        letters = Correspondence(self.key, GENESIS.mesh_id, chance)
        desk = Desk(self.desk.submit, self.readings.piece)
        self.relaying = Relaying(self.mesh, letters, self.perform, desk, town.spawn)

    def _read(self, command: Command) -> Iterator[bytes]:
        assert (command.session, command.args) == (SESSION.session_id, {})
        self.reads += 1
        yield from OUTPUT

    def feed(self, neighbours: Iterable[NodeId]) -> OwnFeed:
        """Return what the others hear of this node."""
        feed = OwnFeed(self.key, GENESIS.mesh_id, GENESIS.limits, 1)
        sealing = SealingKey.of_node(self.key, GENESIS.mesh_id).public
        feed.write(NODE, ONLY_ROW, node_to_row(NodeRecord("n", sealing_key=sealing)))
        marks = frozenset(map(short_id_of, neighbours))
        feed.write(LINKS, ONLY_ROW, links_to_row(LinksRecord(marks)))
        feed.flush(1.0)
        return feed

    def perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(peer, Routed() as routed):
                    self.town.carry(self.node_id, peer, routed)
                case Obey(order, route):
                    self.relaying.obey(order, route)
                case Answered(reply):
                    self.relaying.answered(reply)
                case _:
                    self.town.others.append(effect)


class Town:
    """anna - rita - otto: anna commands what otto owns, and reaches him through rita only."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.frames: list[bytes] = []
        self.others: list[Effect] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.lie: Callable[[Routed], Routed | None] = lambda routed: routed
        self.anna, self.rita, self.otto, self.olga = (House(self, number) for number in range(4))
        self.houses = {one.node_id: one for one in (self.anna, self.rita, self.otto, self.olga)}
        spokes = (self.anna, self.otto, self.olga)
        for house in spokes:
            house.mesh.linked(self.rita.node_id, 0.0, dialled=True)
            self.rita.mesh.linked(house.node_id, 0.0, dialled=False)
        feeds = [house.feed([self.rita.node_id]) for house in spokes]
        feeds.append(self.rita.feed([house.node_id for house in spokes]))
        for house in self.houses.values():
            for feed in feeds:
                if feed.origin != house.node_id:
                    house.mesh.replication.replicas[feed.origin] = feed
            house.mesh.recall(1.0)

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def carry(self, source: NodeId, target: NodeId, routed: Routed) -> None:
        """Bring a frame over a link, in bytes; what rita sends on she may have changed."""
        sent: Routed | None = routed
        if source == self.rita.node_id:
            sent = self.lie(routed)
        if sent is not None:
            asyncio.get_running_loop().call_soon(self.deliver, source, target, sent)

    def carry_from_rita(self, routed: Routed) -> None:
        """Send what rita made up."""
        loop = asyncio.get_running_loop()
        loop.call_soon(self.deliver, self.rita.node_id, routed.route[routed.at], routed)

    def deliver(self, source: NodeId, target: NodeId, routed: Routed) -> None:
        """Hand a frame to a neighbour, as its link does."""
        frame = message_to_wire(routed)
        self.frames.append(frame.SerializeToString())
        message = message_from_wire(frame, GENESIS.mesh_id, lambda _: False)
        assert message is not None
        house = self.houses[target]
        house.perform(house.mesh.received(source, message, 2.0))

    def command(
        self, action: str = "steer", key: Key = ROOT, via: str = "", *, to: House | None = None
    ) -> Signed:
        """Sign a command for otto's session, or somebody else's."""
        now_s = int(self.clock.now_s)
        rights = ("steer", "read_messages")
        word = Grant(
            GENESIS.mesh_id, ROOT.public, key.public, rights, now_s, now_s + 600, bytes(16), via=via
        )
        return sign_command(
            SessionKey(key, (grant(ROOT, word),)),
            Command(
                mesh=GENESIS.mesh_id,
                command_id=chance(16),
                node=(to or self.otto).node_id,
                session=SESSION.session_id,
                epoch=SESSION.session_epoch,
                action=action,
                issued_s=now_s,
                expires_s=now_s + 60,
                args={"message": SECRET} if action == "steer" else {},
            ),
        )

    async def submit(self, command: Signed, seconds: float = 5.0) -> Signed:
        async with asyncio.timeout(seconds):
            return await self.anna.relaying.submit(self.otto.node_id, command)

    async def settled(self) -> None:
        """Let everything that is on its way arrive."""
        for _ in range(50):
            await asyncio.sleep(0)
        while self.tasks:
            await asyncio.wait(self.tasks)
            await asyncio.sleep(0)

    def nothing_happened(self) -> None:
        """Check that no agent was told anything, and nothing journalled."""
        for house in self.houses.values():
            assert house.agents.steered == []
            assert not house.journal.begun
            assert house.reads == 0
