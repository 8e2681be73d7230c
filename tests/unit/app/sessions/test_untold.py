"""What a feed has no room for is published once it has, and told of until then."""

import asyncio

from owner import SESSION, Owner

from meshnode.app.sessions import untold
from meshnode.app.sessions.endings import Ended
from meshnode.core.errors import ExhaustedError
from meshnode.core.sessions.sessions import SESSIONS, State, session_from_row

KEY = SESSION.session_id.encode()
END = Ended(0, None, None, killed=False, at_s=5.0)
WAIT_S = 10


class Full:
    """A feed that takes no row while it is full; `taken` is set by each that it took."""

    def __init__(self, owner: Owner) -> None:
        self.is_full, self.taken, self.told = True, asyncio.Event(), []
        self._publish = owner.published
        owner.sessions.publish = self
        owner.sessions.untold.on_full = self.told.append

    async def __call__(self, table, key, value) -> None:
        if self.is_full:
            raise ExhaustedError("this node publishes as many bytes as the mesh allows")
        await self._publish(table, key, value)
        self.taken.set()

    def state(self) -> State:
        """What others see."""
        return session_from_row(self._publish.rows[SESSIONS, KEY]).state


async def test_an_end_that_has_no_room_is_published_as_soon_as_there_is_some(monkeypatch):
    monkeypatch.setattr(untold, "FULL_S", 0.0)
    owner = Owner()
    feed = Full(owner)
    await owner.sessions.ended(SESSION.session_id, END)
    assert (feed.told, owner.published.rows) == ([1], {})
    for _ in range(5):
        await asyncio.sleep(0)
    assert set(feed.told) == {1}, "it was tried again, in vain"
    feed.is_full = False
    async with asyncio.timeout(WAIT_S):
        await feed.taken.wait()
        await asyncio.gather(*owner.spawn.tasks)
    assert (feed.state(), feed.told[-1]) == (State.CLOSED, 0)


async def test_a_node_that_stops_tries_at_once_what_had_no_room():
    owner = Owner()
    feed = Full(owner)
    await owner.sessions.ended(SESSION.session_id, END)
    feed.is_full = False
    await owner.sessions.untold.tell_all()
    assert (feed.state(), feed.told) == (State.CLOSED, [1, 0])
    await owner.crash()


async def test_a_session_that_is_listed_no_more_needs_no_room():
    owner = Owner()
    feed = Full(owner)
    await owner.sessions.ended(SESSION.session_id, END)
    owner.sessions.restore([])
    await owner.sessions.untold.tell_all()
    assert feed.told == [1, 0]
    await owner.crash()


def asleep(owner: Owner) -> int:
    """Count the tasks that will publish something later."""
    return len([task for task in owner.spawn.tasks if not task.done()])


async def test_many_changes_that_have_no_room_are_tried_again_together(monkeypatch):
    monkeypatch.setattr(untold, "FULL_S", 0.0)
    owner = Owner()
    feed = Full(owner)
    for _ in range(50):
        await owner.sessions.keep(SESSION)
    assert asleep(owner) == 1
    for _ in range(5):
        await asyncio.sleep(0)
    assert asleep(owner) == 1, "it was tried again, in vain"
    feed.is_full = False
    async with asyncio.timeout(WAIT_S):
        await feed.taken.wait()
    await owner.crash()


async def test_a_count_waits_for_no_task_that_had_waited_for_room(monkeypatch):
    monkeypatch.setattr(untold, "FULL_S", 3600.0)
    owner = Owner()
    feed = Full(owner)
    await owner.sessions.keep(SESSION)
    feed.is_full = False
    await owner.sessions.keep(SESSION)
    feed.taken.clear()
    owner.sessions.untold.tell_later(SESSION.session_id)
    async with asyncio.timeout(WAIT_S):
        await feed.taken.wait()
    await owner.crash()
