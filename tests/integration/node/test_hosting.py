"""What a node keeps of the sessions that it owns."""

import asyncio
import os
from random import Random
from types import SimpleNamespace

import pytest
from doubles import InBackground, ManualClock, Published
from owner import GENESIS, NODE

from meshnode.agents import pruning
from meshnode.agents.pruning import UNLISTED_KEPT_S
from meshnode.app.audit.alarms import Alarms
from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.app.settling import SETTLED_S
from meshnode.client.home import Home
from meshnode.core.ids import SessionId, session_id_of
from meshnode.core.packing import pack, unpack_map
from meshnode.core.sessions.sessions import SESSIONS, SessionRecord, State, session_to_row
from meshnode.node.sessions import hosting as hosting_module
from meshnode.node.sessions.hosting import Hosting
from meshnode.store.database import Database

pytestmark = pytest.mark.integration


@pytest.fixture
def ground(tmp_path):
    database = Database(tmp_path / "state.db")
    tables = SimpleNamespace(sessions=list)
    mesh = SimpleNamespace(self_id="node", tables=tables)
    yield SimpleNamespace(
        home=Home(tmp_path),
        database=database,
        world=SimpleNamespace(mesh=mesh, publish=None, on_regained=None),
        clock=ManualClock(),
        alarms=Alarms(ManualClock().wall_s, lambda *_: None),
        tasks=None,
        spawn=InBackground(),
        keep=InBackground(),
    )
    database.close()


async def test_a_clock_that_is_weeks_ahead_for_a_moment_removes_no_log(ground):
    hosting, clock = Hosting(ground), ground.clock
    log = hosting.directory_of(session_id_of("node", 1))
    log.mkdir(parents=True)
    os.utime(log, (clock.now_s, clock.now_s))
    clock.now_s += SETTLED_S
    for ahead_s in (2 * UNLISTED_KEPT_S, 0.0):
        clock.ahead_s = ahead_s
        assert await hosting.prune() == 0
    assert log.exists()
    clock.now_s += UNLISTED_KEPT_S
    assert await hosting.prune() == 1
    assert not log.exists()


async def test_pruning_begins_soon_and_goes_on_until_nothing_is_left_to_go(ground, monkeypatch):
    for name, pause_s in (("PRUNE_FIRST_S", 0.0), ("PRUNE_ON_S", 0.0), ("PRUNE_S", 3600.0)):
        monkeypatch.setattr(hosting_module, name, pause_s)
    monkeypatch.setattr(pruning, "UNLISTED_KEPT", 1)
    monkeypatch.setattr(pruning, "PRUNED_MAX", 2)
    hosting = Hosting(ground)
    hosting.sessions.restore([])
    for number in range(6):
        hosting.directory_of(session_id_of("node", number + 1)).mkdir(parents=True)
    goes, enough = [], asyncio.Event()

    async def prune():
        goes.append(await Hosting.prune(hosting))
        if not goes[-1]:
            enough.set()
        return goes[-1]

    monkeypatch.setattr(hosting, "prune", prune)
    pruning_on = asyncio.ensure_future(hosting._prune())
    async with asyncio.timeout(30):
        await enough.wait()
    assert goes == [2, 2, 1, 0]
    assert not pruning_on.done()
    pruning_on.cancel()


async def test_output_of_an_ended_session_goes_where_there_is_too_much(ground, monkeypatch):
    monkeypatch.setattr(pruning, "OUTPUT_BYTES_MAX", 1)
    rows = [
        SessionRecord(SessionId(session_id_of("node", number)), number, "a", state, 0.0, 0.0)
        for number, state in ((1, State.RUNNING), (2, State.CLOSED))
    ]
    ground.world.mesh.tables.sessions = lambda: [("node", row) for row in rows]
    hosting = Hosting(ground)
    logs = [hosting.directory_of(row.session_id) / "output.log" for row in rows]
    for log in logs:
        log.parent.mkdir(parents=True)
        log.write_text("words")
    assert await hosting.prune() == 1
    assert [log.exists() for log in logs] == [True, False]


async def test_sessions_that_the_feed_has_no_room_for_are_an_alarm_until_it_has(ground):
    untold, standing = Hosting(ground).sessions.untold, ground.alarms.standing
    for session_id in "ab":
        untold.has_no_room(session_id)
    (alarm,) = standing()
    assert (alarm.id, alarm.stops_writes, "(2 of them)" in alarm.detail) == (
        "sessions",
        False,
        True,
    )
    for session_id in "ab":
        assert standing()
        untold.has_room(session_id)
    assert not standing()
    for task in ground.spawn.tasks:
        task.cancel()


async def test_a_row_of_an_older_version_is_written_anew_without_arguments(ground):
    mesh, published = Mesh(GENESIS, Self(NODE, 1, Random(1))), Published()
    ground.world = SimpleNamespace(mesh=mesh, publish=published, on_regained=None)
    for number, more in enumerate(({"command": ["tool", "--key", "secret"]}, {})):
        session_id = session_id_of(mesh.self_id, number + 1)
        record = SessionRecord(session_id, 42, "a", State.CLOSED, 1.0, 1.0, ended_at_s=1.0)
        fields = unpack_map(session_to_row(record)) | more
        mesh.own.write(SESSIONS, session_id.encode(), pack(fields))
    mesh.own.flush(1.0)
    hosting = Hosting(ground)
    hosting.sessions.journal_generation = 42
    hosting.restore()
    await hosting.sessions.untold.tell_all()
    session_id = session_id_of(mesh.self_id, 1)
    row = session_to_row(hosting.sessions.get(session_id))
    assert published.rows == {(SESSIONS, session_id.encode()): row}
    assert b"secret" not in row
    for task in ground.spawn.tasks | ground.keep.tasks:
        task.cancel()
