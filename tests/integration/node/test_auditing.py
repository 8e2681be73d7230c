"""The head of the audit log gets out, also if there was no room for it at first."""

import asyncio
from random import Random
from types import SimpleNamespace

from doubles import ManualClock
from integration.rpc.fleet import WAIT_S, Founded

from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.core.commands.audit import head_from_row
from meshnode.core.errors import ExhaustedError
from meshnode.node.audit import auditing
from meshnode.node.audit.auditing import Auditing
from meshnode.store import audit


async def test_a_head_that_found_no_room_is_published_without_another_record(database, monkeypatch):
    monkeypatch.setattr(auditing, "FIRST_HEAD_S", 0.0)
    monkeypatch.setattr(auditing, "HEAD_PAUSE_S", 0.0)
    monkeypatch.setattr(auditing, "HEAD_PAUSE_A_MEMBER_S", 0.0)
    founded, tried, written = Founded(3), [], asyncio.Queue()
    key = founded.node().key
    mesh = Mesh(founded.genesis, Self(key, 1, Random(1)))

    def write(_table, _key, row, **_how) -> None:
        tried.append(row)
        if len(tried) == 1:
            raise ExhaustedError("the feed is full")
        written.put_nowait(row)

    world = SimpleNamespace(mesh=mesh, write=write)
    clock = ManualClock()
    book = Auditing(
        SimpleNamespace(world=world, clock=clock, database=database, key=key, alarms=None)
    )
    database.carry(book.rider)
    book.rider.put(audit.Noted(1, {"kind": "thing"}))
    await database.run(audit.write_waiting)
    book._arrived.set()
    publishing = asyncio.create_task(book._publish())
    async with asyncio.timeout(WAIT_S):
        head, _ = head_from_row(await written.get(), mesh.self_id)
    assert (head.seq, head.hash) == (book.rider.tail.seq, book.rider.tail.hash)
    await asyncio.sleep(0)
    assert len(tried) == 2
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
