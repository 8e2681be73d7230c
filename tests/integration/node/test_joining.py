"""Homes that follow an invite while its admitter has more callers than it lets in."""

import asyncio

import pytest
from integration.attacks.ports import finished_handshakes
from integration.rpc.enrolling import Desk, answering
from integration.rpc.fleet import Founded
from msgspec.structs import replace

from meshnode.client.home import Home
from meshnode.core.errors import ExhaustedError, UnreachableError
from meshnode.node.homes.joining import CROWDED_MAX, PAUSES_S, join
from meshnode.rpc import servers
from meshnode.rpc.enrolment import JOINS
from meshnode.rpc.servers import OF_JOINERS


class Crowded:
    """A desk with a turn for nobody, unless a test turns its clock; and homes that ask it."""

    def __init__(self, desk: Desk, address: str, folder) -> None:
        self.desk, self.address, self._folder, self._homes = desk, address, folder, 0

    async def joined(self, pause) -> dict:
        """Follow an invite to a new home."""
        invite = await self.desk.invite(self.address)
        self._homes += 1
        home = Home(self._folder / str(self._homes))
        return await asyncio.to_thread(join, home, invite.to_text(), pause=pause)


@pytest.fixture
async def crowded(database, tmp_path):
    mesh = Founded()
    desk = Desk(mesh, database)
    async with answering(desk.servicer(), desk.member.identity) as address:
        crowded = Crowded(desk, address, tmp_path)
        for _ in range(int(JOINS.of_source)):
            await crowded.joined(_never)
        yield crowded


def _never(pause_s: float) -> None:
    raise AssertionError(f"asked to wait {pause_s} s")


async def test_who_is_told_to_come_back_does_so_after_a_pause_of_its_own(crowded):
    pauses = []

    def pause(pause_s: float) -> None:
        pauses.append(pause_s)
        crowded.desk.clock.steady += pause_s

    for _ in range(3 * int(JOINS.of_source)):
        await crowded.joined(pause)
    assert all(PAUSES_S[0] <= one <= 2 * PAUSES_S[0] for one in pauses)
    assert len(set(pauses)) > 1


async def test_who_is_told_to_come_back_after_the_last_pause_too_is_refused(crowded):
    pauses = []
    with pytest.raises(ExhaustedError, match="too many calls from this address"):
        await crowded.joined(pauses.append)
    assert len(pauses) == len(PAUSES_S)
    assert pauses[-1] / pauses[0] == pytest.approx(PAUSES_S[-1] / PAUSES_S[0])


@pytest.fixture
async def full(database, tmp_path, monkeypatch):
    """A joiners' port that takes two connections."""
    monkeypatch.setattr(servers, "OF_JOINERS", replace(OF_JOINERS, connections_max=2))
    desk = Desk(Founded(), database)
    async with answering(desk.servicer(), desk.member.identity) as address:
        yield Crowded(desk, address, tmp_path)


async def test_who_finds_the_port_full_comes_again_and_is_let_in_when_others_have_gone(full):
    loop = asyncio.get_running_loop()
    async with finished_handshakes(full.address, 2) as strangers:
        pauses = []

        def pause(pause_s: float) -> None:
            pauses.append(pause_s)
            asyncio.run_coroutine_threadsafe(strangers.gone(), loop).result()

        joined = await full.joined(pause)
    assert joined["node_id"]
    assert 1 <= len(pauses) <= CROWDED_MAX


async def test_who_finds_the_port_full_again_and_again_is_told_that_nobody_answers(full):
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    pauses = []
    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        full.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(UnreachableError, match="the inviting node does not answer"):
            await full.joined(pauses.append)
    assert len(pauses) == CROWDED_MAX
