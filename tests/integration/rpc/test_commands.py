"""Commands brought to their owner over real TLS, and the receipts that come back."""

import asyncio
import math
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
from integration.rpc.fleet import WAIT_S, now_s, serving

from meshnode.app.commands.commands import CommandDesk
from meshnode.app.commands.executing import Executor
from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.app.ports import Steered
from meshnode.app.sessions.registry import Registrar
from meshnode.app.sessions.sessions import OwnSessions
from meshnode.core.commands.commands import Command, Court, receipt_from_signed, sign_command
from meshnode.core.control.control import ControlSet
from meshnode.core.control.grants import Grant, SessionKey, grant
from meshnode.core.errors import (
    NoAnswerError,
    NotFoundError,
    NotPermittedError,
    StaleError,
    UnreachableError,
    UsageError,
)
from meshnode.core.ids import NodeId
from meshnode.core.keys import Key, Signed
from meshnode.core.sessions.sessions import SessionRecord, State
from meshnode.node.clock import SystemClock
from meshnode.node.homes.books import StoredJournal
from meshnode.rpc import commands
from meshnode.rpc.commands import CommandServicer, Courier
from meshnode.rpc.servers import members_server
from meshnode.store.database import Database
from meshnode.v1 import link_service_pb2_grpc as links_grpc

GENERATION = 77
EPOCH = 5
DEAD = "127.0.0.1:1"  # nobody listens on this port of the loopback


class Agents:
    """Notes what agents are told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str | None, str | None]] = []
        self.hangs = False
        self.asked = asyncio.Event()

    async def steer(self, session_id, command_id, steer):
        self.asked.set()
        if self.hangs:
            await asyncio.Event().wait()
        self.told.append((session_id, steer.direction, steer.message))
        return Steered(on_stdin=True, followed=False)


class Owner:
    """A node with one running session, and the operator who may command it."""

    def __init__(self, mesh, database: Database) -> None:
        self.mesh = mesh
        self.member = mesh.node()
        self.agents = Agents()
        self.published: list[tuple[str, bytes]] = []
        self.pieces = [b"one ", b"two ", b"three"]
        self.reads: list[tuple[str, int | None]] = []
        session = SessionRecord("s1", EPOCH, "coder", State.RUNNING, now_s(), now_s())
        sessions = OwnSessions(
            self._publish, self.agents, SystemClock(), mesh.chance, _no_place, _no_spawn
        )
        sessions.restore([session])
        court = Court(mesh.mesh_id, self.member.node_id, ControlSet(mesh.genesis), GENERATION)
        journal = StoredJournal(database)
        roster = Mesh(mesh.genesis, Self(self.member.key, 1, Random(1))).roster
        registrar = Registrar(roster, self._publish)
        desk = CommandDesk(
            court, self.member.key, sessions, Executor(sessions, registrar), journal, SystemClock()
        )
        self.servicer = CommandServicer(desk, self._read_log)

    async def _publish(self, table, key, value):
        self.published.append((table, key))

    def _read_log(self, command):
        self.reads.append((command.session, command.args.get("tail")))
        return iter(self.pieces)

    def command(self, action: str, session: str = "s1", **changes) -> Signed:
        """Sign a command with a session key of the root's."""
        mesh, at_s = self.mesh, int(now_s())
        key = Key.new(mesh.chance)
        actions = changes.pop("actions", ("steer", "kill", "register", "read_messages"))
        word = grant(
            mesh.root,
            Grant(
                mesh.mesh_id,
                mesh.root.public,
                key.public,
                actions,
                at_s - 60,
                at_s + 600,
                mesh.chance(16),
            ),
        )
        values = {
            "mesh": mesh.mesh_id,
            "command_id": mesh.chance(16),
            "node": self.member.node_id,
            "session": session,
            "epoch": EPOCH if session else GENERATION,
            "action": action,
            "issued_s": at_s,
            "expires_s": at_s + 60,
        }
        return sign_command(SessionKey(key, (word,)), Command(**values | changes))


def _no_place(session_id: str) -> tuple[Path, Path]:
    raise AssertionError


def _no_spawn(work) -> None:
    work.close()


@pytest.fixture
def owner(mesh, database):
    return Owner(mesh, database)


@asynccontextmanager
async def reachable(owner: Owner):
    server = await members_server(links_grpc.LinkServiceServicer(), owner.servicer)
    async with (
        serving(server, owner.member.identity.for_members) as address,
        asyncio.timeout(WAIT_S),
    ):
        yield address


@dataclass
class OtherWay:
    """What links would do: note what they are given, and answer with it."""

    linked: bool = False
    path: bool = False
    brought: list[Signed] = field(default_factory=list)

    def is_linked(self, owner: NodeId) -> bool:
        return self.linked

    def has_path(self, owner: NodeId) -> bool:
        return self.path

    async def submit(
        self, owner: NodeId, command: Signed, *, until_accepted: bool = False
    ) -> Signed:
        self.brought.append(command)
        return command

    async def read(self, owner: NodeId, command: Signed, timeout_s: float):
        assert timeout_s > 0
        self.brought.append(command)
        yield b"over links"


def courier(mesh, *addresses: str, links: OtherWay | None = None) -> Courier:
    return Courier(
        mesh.node().identity,
        lambda _: addresses,
        lambda _: "node anna (alive)",
        links or OtherWay(),
    )


def steering(owner: Owner, **changes) -> Signed:
    return owner.command("steer", args={"direction": "continue", "message": "hi"}, **changes)


async def test_a_receipt_comes_back_signed_by_the_owner(mesh, owner):
    command = steering(owner)
    async with reachable(owner) as address:
        signed = await courier(mesh, address).submit(owner.member.node_id, command, 10.0)
    receipt = receipt_from_signed(signed, owner.member.key.public)
    assert (receipt.command_hash, receipt.outcome) == (command.hash, "delivered")
    assert owner.agents.told == [("s1", "continue", "hi")]


async def test_the_same_command_again_gets_the_same_receipt_and_does_nothing(mesh, owner):
    command = steering(owner)
    async with reachable(owner) as address:
        first = await courier(mesh, address).submit(owner.member.node_id, command, 10.0)
        again = await courier(mesh, address).submit(owner.member.node_id, command, 10.0)
    assert first == again
    assert len(owner.agents.told) == 1


async def test_an_agent_is_registered_from_afar(mesh, owner):
    args = {"agent_id": "a", "specialization": "review", "attributes": {}}
    command = owner.command("register", session="", args=args)
    async with reachable(owner) as address:
        signed = await courier(mesh, address).submit(owner.member.node_id, command, 10.0)
    assert receipt_from_signed(signed, owner.member.key.public).outcome == "applied"
    assert [table for table, _ in owner.published] == ["registry"]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"epoch": EPOCH + 1}, StaleError),
        ({"session": "s2", "epoch": 1}, NotFoundError),
        ({"actions": ("kill",)}, NotPermittedError),
    ],
)
async def test_a_refusal_arrives_as_what_it_is(mesh, owner, changes, kind):
    async with reachable(owner) as address:
        with pytest.raises(kind):
            await courier(mesh, address).submit(
                owner.member.node_id, steering(owner, **changes), 10.0
            )
    assert owner.agents.told == []


async def test_the_next_address_is_tried_when_one_is_dead(mesh, owner):
    async with reachable(owner) as address:
        carrier = courier(mesh, DEAD, address)
        await carrier.submit(owner.member.node_id, steering(owner), 10.0)
    assert len(owner.agents.told) == 1


async def test_an_owner_that_cannot_be_reached_is_told_with_the_addresses_tried(mesh, owner):
    with pytest.raises(UnreachableError) as failure:
        await courier(mesh, DEAD, "127.0.0.1:2").submit(owner.member.node_id, steering(owner), 10.0)
    assert failure.value.message == (f"node anna (alive) cannot be reached ({DEAD}, 127.0.0.1:2)")


async def test_an_owner_without_an_address_is_told_as_such(mesh, owner):
    with pytest.raises(UnreachableError, match="no address is known"):
        await courier(mesh).submit(owner.member.node_id, steering(owner), 10.0)


async def test_another_node_at_the_address_never_sees_the_command(mesh, owner, tmp_path):
    database = Database(tmp_path / "other.db")
    try:
        other = Owner(mesh, database)
        async with reachable(other) as address:
            with pytest.raises(UnreachableError):
                await courier(mesh, address).submit(owner.member.node_id, steering(owner), 10.0)
        assert other.agents.told == []
    finally:
        database.close()


async def test_an_owner_that_hangs_is_unreachable_after_the_timeout(mesh, owner):
    owner.agents.hangs = True
    async with reachable(owner) as address:
        with pytest.raises(UnreachableError, match="did not answer") as failure:
            await courier(mesh, address).submit(owner.member.node_id, steering(owner), 0.5)
        await owner.agents.asked.wait()
    assert "node anna (alive)" in failure.value.message


async def test_a_listener_that_says_nothing_is_unreachable_and_the_connection_closed(mesh, owner):
    let_go = asyncio.Event()

    async def hold(reader, writer):
        await reader.read()
        writer.close()
        let_go.set()

    silent = await asyncio.start_server(hold, "127.0.0.1", 0)
    async with silent, asyncio.timeout(WAIT_S):
        port = silent.sockets[0].getsockname()[1]
        carrier = courier(mesh, f"127.0.0.1:{port}")
        with pytest.raises(UnreachableError, match="did not answer"):
            await carrier.submit(owner.member.node_id, steering(owner), 0.5)
        await let_go.wait()


async def test_output_is_read_in_pieces(mesh, owner):
    command = owner.command("read_messages", args={"tail": 3})
    async with reachable(owner) as address:
        output = courier(mesh, address).read_log(owner.member.node_id, command)
        assert [piece async for piece in output] == owner.pieces
    assert owner.reads == [("s1", 3)]


async def test_output_of_many_pieces_arrives_whole_and_in_order(mesh, owner):
    owner.pieces = [bytes([number % 256]) * 60_000 for number in range(100)]
    command = owner.command("read_messages")
    async with reachable(owner) as address:
        output = courier(mesh, address).read_log(owner.member.node_id, command)
        assert [piece async for piece in output] == owner.pieces
    assert owner.reads == [("s1", None)]


async def test_an_owner_that_stops_in_the_midst_of_its_output_is_not_waited_for(
    mesh, owner, monkeypatch
):
    monkeypatch.setattr(commands, "READ_LOG_TIMEOUT_S", 0.2)
    go_on = threading.Event()

    def stuck():
        yield b"one"
        go_on.wait()

    owner.pieces = stuck()
    async with reachable(owner) as address:
        command = owner.command("read_messages")
        output = courier(mesh, address).read_log(owner.member.node_id, command)
        try:
            with pytest.raises(NoAnswerError, match="did not answer in time"):
                assert [piece async for piece in output] == []
        finally:
            go_on.set()


async def test_a_reader_may_stop_early(mesh, owner):
    owner.pieces = [bytes(60_000)] * 100
    async with reachable(owner) as address:
        output = courier(mesh, address).read_log(
            owner.member.node_id, owner.command("read_messages")
        )
        assert await anext(output) == bytes(60_000)
        await output.aclose()
        again = courier(mesh, address).read_log(
            owner.member.node_id, owner.command("read_messages")
        )
        assert len([piece async for piece in again]) == 100


async def test_output_is_not_for_everybody(mesh, owner):
    command = owner.command("read_messages", actions=("kill",))
    async with reachable(owner) as address:
        output = courier(mesh, address).read_log(owner.member.node_id, command)
        with pytest.raises(NotPermittedError):
            await anext(output)
    assert owner.reads == []


async def test_a_command_for_a_neighbour_takes_the_link(mesh, owner):
    links, command = OtherWay(linked=True), steering(owner)
    answer = await courier(mesh, DEAD, links=links).submit(owner.member.node_id, command, 5.0)
    assert links.brought == [command]
    assert answer == command


async def test_an_owner_that_cannot_be_dialled_is_reached_over_links(mesh, owner):
    links, command = OtherWay(path=True), steering(owner)
    await courier(mesh, DEAD, links=links).submit(owner.member.node_id, command, 5.0)
    assert links.brought == [command]


async def test_output_of_an_owner_that_cannot_be_dialled_is_read_over_links(mesh, owner):
    links, command = OtherWay(path=True), owner.command("read_messages")
    output = courier(mesh, DEAD, links=links).read_log(owner.member.node_id, command)
    assert [piece async for piece in output] == [b"over links"]
    assert links.brought == [command]


async def test_output_without_any_way_to_its_owner_is_not_to_be_had(mesh, owner):
    output = courier(mesh, DEAD).read_log(owner.member.node_id, owner.command("read_messages"))
    with pytest.raises(UnreachableError, match="cannot be reached"):
        await anext(output)


async def test_an_owner_that_refuses_is_not_asked_again_over_links(mesh, owner):
    links = OtherWay(path=True)
    command = steering(owner, session="unknown")
    async with reachable(owner) as address:
        with pytest.raises(NotFoundError):
            await courier(mesh, address, links=links).submit(owner.member.node_id, command, 5.0)
    assert links.brought == []


async def test_a_time_that_is_no_number_is_refused(mesh, owner):
    bringer = commands.Bringer(mesh.node().node_id, None, courier(mesh, DEAD))
    with pytest.raises(UsageError, match="timeout_s"):
        await bringer.submit(owner.member.node_id, steering(owner), math.nan)
