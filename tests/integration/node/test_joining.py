"""Homes that follow an invite while its admitter has more callers than it lets in."""

import asyncio

import pytest
from integration.rpc.enrolling import Desk, answering
from integration.rpc.fleet import Founded

from meshnode.client.home import Home
from meshnode.core.errors import ExhaustedError
from meshnode.node.joining import PAUSES_S, join
from meshnode.rpc.enrolment import JOINS


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
