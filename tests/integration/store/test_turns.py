"""Several processes that write into one database: each comes next soon, and none for ever."""

import fcntl
from contextlib import closing
from pathlib import Path

import pytest
from writing import written_without_pauses

from meshnode.store import facts
from meshnode.store.database import Database
from meshnode.store.turns import Turn

pytestmark = pytest.mark.integration


def remember(path: Path, key: str = "key") -> bytes | None:
    with closing(Database(path, patience_ms=50)) as database:
        database.run_now(facts.remember, {key: b"value"})
        return database.run_now(facts.recall, key)


def test_who_writes_without_pauses_lets_others_in(tmp_path: Path):
    path = tmp_path / "state.db"
    with written_without_pauses(path), closing(Database(path)) as database:
        for number in range(5):
            database.run_now(facts.remember, {f"key {number}": b"value"})
        assert database.run_now(facts.recall, "key 4") == b"value"


def test_a_turn_that_is_never_given_back_is_passed_over(tmp_path: Path):
    with (tmp_path / "state.db-turn").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        assert remember(tmp_path / "state.db") == b"value"


def test_where_there_is_no_room_for_turns_sqlite_alone_decides(tmp_path: Path):
    (tmp_path / "state.db-turn").mkdir()
    assert remember(tmp_path / "state.db") == b"value"


def test_a_turn_that_is_tried_is_free_or_not_and_nobody_waits(tmp_path: Path):
    turn = Turn(tmp_path / "turn", 0)
    with turn.tried() as first, turn.tried() as second:
        assert (first, second) == (True, False)
    with turn.tried() as again:
        assert again
    with Turn(tmp_path / "missing" / "turn", 0).tried() as nowhere:
        assert not nowhere
