"""A file that is read without locks, and written meanwhile, is read again or refused."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from meshnode.core.errors import ConflictError, DamagedError
from meshnode.store import facts
from meshnode.store.database import Database
from meshnode.store.frozen import TRIES, read_home

pytestmark = pytest.mark.integration


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "state.db"
    write(path, b"old")
    return path


def write(path: Path, value: bytes) -> None:
    with closing(Database(path)) as database:
        database.run_now(facts.remember, {f"fact {one}": value * 1000 for one in range(50)})


def said(database: Database) -> set[bytes]:
    """Return the values of all facts, without their repetitions."""
    found = [database.run_now(facts.recall, f"fact {one}") for one in range(50)]
    return {one[:3] for one in found if one}


def written_while(
    path: Path, change: Callable[[int], None]
) -> tuple[list[int], Callable[[Database], set[bytes]]]:
    """Return how often was read, and a reading in whose middle somebody changes the file."""
    read: list[int] = []

    def reading(database: Database) -> set[bytes]:
        first = database.run_now(facts.recall, "fact 0") or b""
        read.append(len(read))
        change(read[-1])
        return {first[:3]} | said(database)

    return read, reading


def test_what_was_written_meanwhile_is_read_again_as_one_state(path):
    def change(time: int) -> None:
        if not time:
            write(path, b"new")

    read, reading = written_while(path, change)
    assert read_home(path, reading, checked=True) == {b"new"}
    assert len(read) == 2


def test_a_node_that_starts_meanwhile_is_read_with_its_log(path):
    nodes: list[Database] = []

    def change(time: int) -> None:
        if not time:
            nodes.append(Database(path))
        nodes[0].run_now(facts.remember, {"fact 1": b"log"})

    read, reading = written_while(path, change)
    assert b"log" in read_home(path, reading, checked=False)
    assert len(read) == 2
    nodes[0].close()


def test_what_goes_wrong_while_others_write_is_not_called_damage(path):
    def change(time: int) -> None:
        if not time:
            write(path, b"new")
            raise DamagedError("half of each state")

    _, reading = written_while(path, change)
    assert read_home(path, reading, checked=False) == {b"new"}


def test_a_file_that_nobody_writes_is_damaged_if_it_says_so(path):
    def change(_: int) -> None:
        raise DamagedError("half of a row")

    read, reading = written_while(path, change)
    with pytest.raises(DamagedError, match="half of a row"):
        read_home(path, reading, checked=False)
    assert len(read) == 1


def test_who_never_stops_writing_is_told(path):
    read, reading = written_while(path, lambda time: write(path, b"%03d" % time))
    with pytest.raises(ConflictError, match=r"somebody writes into .*state\.db"):
        read_home(path, reading, checked=False)
    assert len(read) == TRIES


def test_what_is_not_there_is_told_as_that(tmp_path):
    with pytest.raises(DamagedError, match="missing"):
        read_home(tmp_path / "state.db", said, checked=False)
