"""What somebody on the same network can do by shouting: names that it makes up, and no more."""

import asyncio
import socket
from contextlib import asynccontextmanager, suppress
from random import Random
from types import SimpleNamespace

import pytest
from integration.discovery.test_mdns import multicast_reaches_us
from integration.rpc.fleet import WAIT_S, Founded
from integration.rpc.stations import station
from zeroconf import DNSIncoming, DNSOutgoing, DNSPointer, ServiceStateChange

from meshnode.core.ids import NodeId, b32
from meshnode.core.links.overlay import STRANGERS_MAX, Overlay
from meshnode.discovery import mdns
from meshnode.discovery.hints import Announcement, Hint
from meshnode.discovery.mdns import CACHED_NAMES_MAX, CHANGES_BURST, SERVICE, WAITING_MAX, Discovery
from meshnode.discovery.multicast import GROUP, PORT, _listening
from meshnode.node.presence import finding as finding_module
from meshnode.node.presence.finding import CONTESTED, MDNS, OTHERS_MAX, Finding
from meshnode.rpc.dialling import BURST

MESH = "m" * 52
OTHERS = 1000  # announcements of others that a test may hear besides
ADDED = ServiceStateChange.Added


def an_id(number: int) -> NodeId:
    return NodeId(b32(number.to_bytes(32, "big")))


OURS = an_id(1)


class Shouted:
    """What zeroconf makes of one announcement, without a network."""

    def __init__(self, node_id: str, mesh_id: str = MESH, addresses=("192.0.2.1",), port=7707):
        self.properties = {b"id": node_id.encode(), b"mesh": mesh_id.encode()}
        self.port, self.name = port, f"somebody.{SERVICE}"
        self._addresses = list(addresses)

    def parsed_addresses(self, _version):
        return self._addresses


@asynccontextmanager
async def listening(monkeypatch):
    """Yield a Discovery that resolves names as a test says, the hints that came, and its tasks."""
    hints: list[Hint] = []
    tasks: list = []
    announcement = Announcement(OURS, MESH, ("127.0.0.1",), 7707, loopback_only=True)
    discovery = Discovery(announcement, hints.append, tasks.append)
    try:
        yield discovery, hints, tasks
    finally:
        for work in tasks:
            work.close()
        await discovery.close()


def shout(discovery: Discovery, name: str) -> None:
    discovery._on_change(None, SERVICE, f"{name}.{SERVICE}", ADDED)


async def test_ten_thousand_invented_names_wait_in_a_bounded_line(monkeypatch):
    async with listening(monkeypatch) as (discovery, hints, tasks):
        for number in range(10_000):
            shout(discovery, f"n{number}")
        assert len(tasks) <= mdns.RESOLVING_MAX
        assert len(discovery._waiting) == WAITING_MAX
        assert hints == []


async def test_who_was_heard_before_a_flood_is_looked_at_all_the_same(monkeypatch):
    async with listening(monkeypatch) as (discovery, _, tasks):
        for number in range(500):
            shout(discovery, f"n{number}")
        waiting = list(discovery._waiting)
        for number in range(10_000):
            shout(discovery, f"late{number}")
        assert list(discovery._waiting)[: len(waiting)] == waiting
        assert len(tasks) <= mdns.RESOLVING_MAX


async def test_names_that_wait_are_looked_at_at_their_pace(monkeypatch):
    monkeypatch.setattr(mdns, "LOOK_AGAIN_S", 0.01)
    async with listening(monkeypatch) as (discovery, _, tasks):
        looked: asyncio.Queue[str] = asyncio.Queue()

        async def resolve(_service: str, name: str) -> None:
            looked.put_nowait(name)
            discovery._resolving -= 1

        monkeypatch.setattr(discovery, "_resolve", resolve)
        monkeypatch.setattr(discovery, "_spawn", asyncio.ensure_future)
        for number in range(mdns.LOOKED_AT_BURST + 10):
            shout(discovery, f"n{number}")
        async with asyncio.timeout(WAIT_S):
            names = [await looked.get() for _ in range(mdns.LOOKED_AT_BURST + 10)]
        assert len(set(names)) == len(names)
        assert (discovery._waiting, discovery._timer, tasks) == ({}, None, [])


@pytest.mark.parametrize(
    "shouted",
    [
        Shouted(OURS, addresses=["192.0.2.66"]),
        Shouted(an_id(2), addresses=["224.0.0.1", "255.255.255.255", "0.0.0.0"]),
        Shouted(an_id(2), port=0),
    ],
    ids=["our own id from elsewhere", "addresses of everybody", "no port"],
)
async def test_an_announcement_that_is_of_no_use_is_no_hint(monkeypatch, shouted):
    async with listening(monkeypatch) as (discovery, hints, _):
        discovery._take(shouted)
        assert hints == []


@pytest.mark.parametrize(
    "shouted",
    [
        Shouted("\x1b]0;owned\x07" + "a" * 45),
        Shouted(an_id(2), "\x1b[2J" + "m" * 48),
        Shouted(an_id(2), "m" * 51),
        Shouted(an_id(2), ""),
        Shouted("a" * 52),
    ],
    ids=["escapes for an id", "escapes for a mesh", "no mesh id", "no mesh", "no node id"],
)
async def test_escape_sequences_and_nonsense_go_no_further(monkeypatch, shouted, caplog):
    async with listening(monkeypatch) as (discovery, hints, _):
        with pytest.raises(Exception, match="not"):
            discovery._take(shouted)
        assert hints == []
        assert "\x1b" not in caplog.text


async def test_a_pointer_to_a_name_of_another_service_harms_nothing(monkeypatch):
    async with listening(monkeypatch) as (discovery, hints, tasks):
        for name in ("evil._http._tcp.local.", "evil.local.", f"\x1b[2J.{SERVICE}x", SERVICE):
            discovery._on_change(None, SERVICE, name, ADDED)
        async with asyncio.timeout(WAIT_S):
            while tasks:
                await tasks.pop()
        assert (hints, discovery._resolving) == ([], 0)


async def test_a_network_on_which_too_much_is_shouted_is_noticed(monkeypatch):
    async with listening(monkeypatch) as (discovery, _, _tasks):
        cache = discovery._zeroconf.zeroconf.cache
        assert not discovery.is_crowded
        cache.async_add_records(
            [
                DNSPointer(f"n{number}.local.", 12, 1, 4500, "x.local.")
                for number in range(CACHED_NAMES_MAX + 1)
            ]
        )
        assert discovery.is_crowded


async def test_names_without_end_under_one_name_are_too_much_as_well(monkeypatch):
    """Our own service is one name, whatever is pointed to from there: each costs the browser."""
    monkeypatch.setattr(mdns, "CHANGES_S", 1e-6)  # however long a slow machine takes for them all
    async with listening(monkeypatch) as (discovery, _, _tasks):
        await discovery.run()
        records = discovery._zeroconf.zeroconf.record_manager
        for packet in range(CHANGES_BURST // 30 + 2):
            # What others on this machine announce meanwhile is heard, and counts as well.
            assert not discovery.is_crowded or packet * 30 > CHANGES_BURST - OTHERS
            out = DNSOutgoing(0x8400)  # as somebody's answer, nobody having asked
            for number in range(30):
                name = f"x{packet}-{number}.{SERVICE}"
                out.add_answer_at_time(DNSPointer(SERVICE, 12, 1, 4500, name), 0)
            for data in out.packets():
                records.async_updates_from_response(DNSIncoming(data, ("127.0.0.1", 5353)))
            await asyncio.sleep(0)
        assert len(discovery._zeroconf.zeroconf.cache.cache) < CACHED_NAMES_MAX
        assert discovery.is_crowded


class Crowded:
    """A Discovery that is shouted down before it runs, or says that it does."""

    def __init__(self, announcement: Announcement, *, is_crowded: bool, runs: asyncio.Event):
        self.announcement, self.is_crowded, self.closed = announcement, is_crowded, False
        self._runs = runs

    async def run(self) -> bool:
        self._runs.set()
        return True

    async def close(self) -> None:
        self.closed = True


async def test_a_node_that_is_shouted_down_falls_silent_and_listens_again(monkeypatch):
    made: list[Crowded] = []
    tasks: list[asyncio.Task[None]] = []
    runs = asyncio.Event()

    def discovery(announcement: Announcement, _on_hint, _spawn) -> Crowded:
        made.append(Crowded(announcement, is_crowded=len(made) < 2, runs=runs))
        return made[-1]

    monkeypatch.setattr(mdns, "Discovery", discovery)
    monkeypatch.setattr(finding_module, "QUIET_S", 0.01)
    finding = Finding(_world(), lambda work: tasks.append(asyncio.create_task(work)))
    finding.listen(Announcement(OURS, MESH, ("127.0.0.1",), 7707, loopback_only=True))
    async with asyncio.timeout(WAIT_S):
        await runs.wait()
    assert finding.mdns == "on"
    assert [one.closed for one in made] == [True, True, False]
    tasks[0].cancel()
    with suppress(asyncio.CancelledError):
        await tasks[0]


def _named_in(packet: bytes) -> list[str]:
    """Return the names that somebody who probes would take."""
    asked = DNSIncoming(packet)
    if not asked.is_query() or not asked.num_authorities:
        return []
    named = (one for one in asked.answers() if isinstance(one, DNSPointer))
    return [one.alias for one in named if one.alias.startswith(OURS[:16])]


async def _claim_each_name() -> None:
    """Answer each probe of ours that the name is taken, as a stranger can."""
    loop = asyncio.get_running_loop()
    with _listening(("127.0.0.1",)) as ear:
        ear.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        while True:
            for name in _named_in(await loop.sock_recv(ear, 9000)):
                await asyncio.sleep(0.05)  # as late as it may: so it is never too much that is said
                out = DNSOutgoing(0x8400)
                out.add_answer_at_time(DNSPointer(SERVICE, 12, 1, 4500, name), 0)
                for data in out.packets():
                    await loop.sock_sendto(ear, data, (GROUP, PORT))


@pytest.mark.skipif(
    not multicast_reaches_us(), reason="multicast on the loopback is not available here"
)
async def test_who_claims_each_name_that_a_node_tries_keeps_it_from_speaking_not_from_hearing(
    monkeypatch,
):
    monkeypatch.setattr(mdns, "REGISTER_S", 2.0)
    monkeypatch.setattr(finding_module, "QUIET_S", 0.01)
    claiming = asyncio.create_task(_claim_each_name())
    tasks: list[asyncio.Task[None]] = []
    world = _world()
    finding = Finding(world, lambda work: tasks.append(asyncio.create_task(work)))
    finding.listen(Announcement(OURS, MESH, ("127.0.0.1",), 7707, loopback_only=True))
    other = NodeId(b32(b"o" * 32))  # who begins otherwise than we do
    about = Announcement(other, MESH, ("127.0.0.1",), 7708, loopback_only=True)
    speaking = Discovery(about, _unheard, lambda work: tasks.append(asyncio.create_task(work)))
    await _until(lambda: finding.mdns == CONTESTED)
    assert await speaking.run()
    await _until(lambda: other in world.hints)
    claiming.cancel()
    await _until(lambda: finding.mdns == "on")
    await asyncio.gather(finding.close(), speaking.close())
    for task in tasks:
        task.cancel()
    await asyncio.gather(claiming, *tasks, return_exceptions=True)


def _unheard(_hint: Hint) -> None:
    pass


async def _until(condition) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - what a node says of itself is no event
            await asyncio.sleep(0.01)


def _world():
    troubles: dict[str, str] = {}
    hints: list = []
    genesis = SimpleNamespace(mesh_id=MESH)
    return SimpleNamespace(
        mesh=SimpleNamespace(genesis=genesis, self_id=OURS),
        troubles=troubles,
        hints=hints,
        trouble=troubles.__setitem__,
        hint=lambda node_id, addresses: hints.append(node_id),
    )


async def test_strangers_of_other_meshes_do_not_push_out_what_the_user_must_know():
    world = _world()
    finding = Finding(world, lambda _: None)
    world.trouble("anna", "does not answer")
    for number in range(1000):
        finding._on_mdns(
            Hint(an_id(number + 2), "n" * 52, (f"192.0.2.{number % 250}:{number}",), f"n{number}")
        )
    assert world.troubles["anna"] == "does not answer"
    assert set(world.troubles) == {"anna", MDNS}
    assert f"{OTHERS_MAX} nodes of another mesh" in world.troubles[MDNS]
    assert world.hints == []


@pytest.fixture(scope="module")
def mesh() -> Founded:
    return Founded(8)


async def test_invented_nodes_do_not_make_a_node_hammer_a_third_party(mesh):
    connections = 0

    async def count(_reader, writer) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    victim = await asyncio.start_server(count, "127.0.0.1", 0)
    address = f"127.0.0.1:{victim.sockets[0].getsockname()[1]}"
    async with victim, station(mesh, mesh.node()) as node, asyncio.timeout(WAIT_S):
        for number in range(60):
            node.links.dial(an_id(number + 2), (address, address), node.member.identity)
        await node.heard.heard("dial_failed", 60)
        told = node.heard.all("dial_failed")
    assert connections <= BURST + WAIT_S
    assert sum("often enough lately" in reason for reason in told) >= 60 - BURST - WAIT_S
    assert node.balance == 0


def test_hints_about_invented_nodes_stay_bounded_where_members_are_chosen():
    overlay = Overlay(OURS, Random(1), set())
    overlay.learn(an_id(5), ("192.0.2.5:1",), 0.0, said=True)
    for number in range(10_000):
        overlay.learn(an_id(number + 10), ("198.51.100.1:7707",), 1.0)
    assert len(overlay._heard) == STRANGERS_MAX
    assert len(overlay._attempts) <= STRANGERS_MAX + 1
    assert overlay.addresses_of(an_id(5)) == ("192.0.2.5:1",)
