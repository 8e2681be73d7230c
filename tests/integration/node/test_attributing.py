"""Whose usage logs are: what goes wrong when that is looked for, and where it is looked for."""

import math
import time
from types import SimpleNamespace

import pytest

from meshnode.core.errors import StorageError
from meshnode.core.ledger.log_sessions import LogSession
from meshnode.ingest.reading import SourceConfig
from meshnode.node.sessions import attributing
from meshnode.node.sessions.attributing import Attributing
from meshnode.store import log_sessions
from meshnode.store.database import Database

pytestmark = pytest.mark.integration
OURS = "a" * 26
RECORD = SimpleNamespace(agent_id="reviewer", owner="olga", ended=False, ended_at_s=None)


class Looking:
    """Finds one log session, once it has failed as often as it is to."""

    failures = 2

    def __init__(self, claude, codex, is_ours, known):
        pass

    def look(self, now_s):
        if Looking.failures:
            Looking.failures -= 1
            raise AssertionError("whatever it is")
        return [(OURS, LogSession("claude", "log", now_s, math.inf))]


async def test_whatever_goes_wrong_is_told_once_and_looked_at_anew(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(attributing, "LogSessions", Looking)
    database = Database(tmp_path / "state.db")
    ground = SimpleNamespace(database=database, clock=SimpleNamespace(wall_s=time.time))
    looks = Attributing(ground, {OURS: RECORD}.get, [])
    for _ in range(3):
        await looks.look()
    assert len(caplog.records) == 1
    assert "whatever it is" in caplog.text
    assert list(await database.run(log_sessions.still_had)) == [("claude", "log")]
    database.close()


async def test_a_disk_that_takes_nothing_costs_no_more_memory_and_later_nothing(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(attributing, "LogSessions", Looking)
    monkeypatch.setattr(Looking, "failures", 0)
    database = Database(tmp_path / "state.db")
    ground = SimpleNamespace(database=database, clock=SimpleNamespace(wall_s=time.time))
    looks = Attributing(ground, {OURS: RECORD}.get, [])
    with monkeypatch.context() as full:
        full.setattr(log_sessions, "keep", _takes_nothing)
        sizes = []
        for _ in range(2 * attributing.UNKEPT_MAX):
            await looks.look()
            sizes.append(len(looks._unkept))
    assert max(sizes) == attributing.UNKEPT_MAX + 1
    await looks.look()
    assert list(await database.run(log_sessions.still_had)) == [("claude", "log")]
    database.close()


def _takes_nothing(_connection, _found):
    raise StorageError("the disk is full", "")


def test_a_user_without_a_home_has_no_usual_place(monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    ground = SimpleNamespace(database=None, clock=None)
    assert Attributing(ground, {}.get, [])


@pytest.mark.parametrize("given", ["", "projects"])
def test_a_usual_place_below_one_of_such_a_name_is_itself(tmp_path, monkeypatch, given):
    home = tmp_path / "projects" / "app" / ".claude"
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(home / given))
    assert places() == [home / "sessions"]
    (home / "projects").mkdir(parents=True)
    assert places() == [home / "sessions"]


def test_who_follows_one_project_looks_beside_all(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path))
    path = str(tmp_path / "other" / "projects" / "app")
    followed = SourceConfig(source="claude", path=path)
    assert places(followed) == [tmp_path / "sessions", tmp_path / "other" / "sessions"]


def places(*sources):
    return attributing._places("claude", sources)
