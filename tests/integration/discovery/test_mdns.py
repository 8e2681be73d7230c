"""mDNS on the loopback: who is heard, and what is made of nonsense."""

import asyncio
import socket
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from integration.rpc.fleet import WAIT_S
from zeroconf import IPVersion
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from meshnode.core.ids import NodeId, b32
from meshnode.discovery.hints import Announcement, Hint
from meshnode.discovery.mdns import ADDRESSES_MAX, SERVICE, Discovery

GROUP, PORT = "224.0.0.251", 5353
MESH = "m" * 52
NOWHERE = ["0.0.0.0", "255.255.255.255", "224.0.0.1", "240.0.0.1"]


def multicast_reaches_us() -> bool:
    """Whether the loopback carries multicast here; many containers do not."""
    try:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hearing,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as saying,
        ):
            here = socket.inet_aton("127.0.0.1")
            hearing.bind(("", 0))
            hearing.setsockopt(
                socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + here
            )
            hearing.settimeout(2.0)
            saying.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, here)
            saying.sendto(b"anybody?", (GROUP, hearing.getsockname()[1]))
            return hearing.recv(16) == b"anybody?"
    except OSError:
        return False


pytestmark = pytest.mark.skipif(
    not multicast_reaches_us(), reason="multicast on the loopback is not available here"
)


def an_id(number: int) -> NodeId:
    return NodeId(b32(bytes([number]) * 32))


def announcement(number: int, mesh_id: str = MESH, port: int = 7707) -> Announcement:
    return Announcement(an_id(number), mesh_id, ("127.0.0.1",), port, loopback_only=True)


class Ear:
    """Keeps hints, and lets a test wait for one."""

    def __init__(self) -> None:
        self.hints: list[Hint] = []
        self.escaped: list[BaseException] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self._heard = asyncio.Event()

    def take(self, hint: Hint) -> None:
        self.hints.append(hint)
        self._heard.set()

    def spawn(self, work) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.escaped.append(error)

    async def hears(self, node_id: NodeId) -> Hint:
        async with asyncio.timeout(WAIT_S):
            while True:
                for hint in self.hints:
                    if hint.node_id == node_id:
                        return hint
                self._heard.clear()
                await self._heard.wait()


@asynccontextmanager
async def discovering(about: Announcement):
    ear = Ear()
    discovery = Discovery(about, ear.take, ear.spawn)
    try:
        await discovery.run()
        yield ear
    finally:
        await discovery.close()
        await asyncio.gather(*ear.tasks, return_exceptions=True)
    assert ear.escaped == []


@pytest.fixture
async def shouting():
    """Yield a function that announces whatever it is given."""
    async with AsyncExitStack() as stack:
        zeroconf = AsyncZeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only)
        stack.push_async_callback(zeroconf.async_close)

        async def announce(name: str, properties: dict, **changes) -> None:
            values = {
                "port": 7707,
                "parsed_addresses": ["127.0.0.1"],
                "server": f"{name}.local.",
                "properties": properties,
            }
            info = AsyncServiceInfo(SERVICE, f"{name}.{SERVICE}", **values | changes)
            await zeroconf.async_register_service(info)

        yield announce


async def test_two_nodes_hear_each_other_and_not_themselves():
    async with (
        discovering(announcement(11, port=7711)) as one,
        discovering(announcement(12, port=7712)) as two,
    ):
        assert (await one.hears(an_id(12))).addresses == ("127.0.0.1:7712",)
        assert (await two.hears(an_id(11))).addresses == ("127.0.0.1:7711",)
        assert an_id(11) not in {hint.node_id for hint in one.hints}


async def test_a_node_of_another_mesh_is_heard_with_its_mesh():
    async with (
        discovering(announcement(21)) as ear,
        discovering(announcement(22, mesh_id="n" * 52)),
    ):
        assert (await ear.hears(an_id(22))).mesh_id == "n" * 52


async def test_announcements_that_make_no_sense_are_passed_over(shouting):
    async with discovering(announcement(31)) as ear:
        await asyncio.gather(
            shouting("nothing", {}),
            shouting("nobody", {"id": "not an id", "mesh": MESH}),
            shouting("binary", {"id": b"\xff\xfe\x00", "mesh": b"\xff"}),
            shouting("empty", {"id": None, "mesh": None}),
            shouting("noport", {"id": an_id(32), "mesh": MESH}, port=0),
            shouting("nomesh", {"id": an_id(34), "mesh": "\x1b[31m" + "m" * 47}),
            shouting("nomachine", {"id": an_id(35), "mesh": MESH}, parsed_addresses=NOWHERE),
            shouting("myself", {"id": an_id(31), "mesh": MESH}),
        )
        await shouting("sound", {"id": an_id(33), "mesh": MESH})
        await ear.hears(an_id(33))
        # Others on this machine may speak mDNS too: only what this test shouted counts.
        assert {hint.node_id for hint in ear.hints} & set(map(an_id, range(31, 40))) == {an_id(33)}


async def test_an_announcement_is_cut_to_what_a_hint_may_hold(shouting):
    addresses = [f"127.0.1.{number}" for number in range(20)]
    async with discovering(announcement(41)) as ear:
        await shouting("long", {"id": an_id(42), "mesh": MESH}, parsed_addresses=addresses, port=9)
        hint = await ear.hears(an_id(42))
    assert len(hint.addresses) == ADDRESSES_MAX
    assert all(address.endswith(":9") for address in hint.addresses)


async def test_closing_before_anything_was_begun_is_fine():
    ear = Ear()
    await Discovery(announcement(51), ear.take, ear.spawn).close()
