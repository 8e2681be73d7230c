"""The states of a session, and its row."""

import math

import pytest
from msgspec.structs import replace

from meshnode.core.errors import ConflictError, PeerError
from meshnode.core.ids import SessionId
from meshnode.core.packing import pack, unpack_map
from meshnode.core.sessions.sessions import (
    NEXT,
    PHASE,
    TERMINAL,
    WORKING,
    SessionRecord,
    State,
    moved,
    session_from_row,
    session_to_row,
)

RECORD = SessionRecord(SessionId("s" * 26), 7, "agent", State.RUNNING, 10.0, 11.0)
FULL = SessionRecord(
    SessionId("s" * 26),
    (1 << 64) - 1,
    "agent",
    State.FAILED,
    10.0,
    11,
    "process",
    "title",
    "permission",
    ("docs", "code"),
    "owner",
    "project",
    "/tmp",
    4711,
    12.0,
    "exited with 3",
    3,
    "SIGTERM",
    "key",
    5,
    6,
    "model",
    {"team": "a"},
    "queue",
    "tree",
)
WAYS = {
    State.PENDING: WORKING | TERMINAL,
    State.SUSPENDED: WORKING | TERMINAL,
    **{state: WORKING | TERMINAL | {State.SUSPENDED} for state in WORKING},
}


@pytest.mark.parametrize("present", State)
@pytest.mark.parametrize("wanted", State)
def test_a_session_moves_only_as_the_table_says(present: State, wanted: State):
    record = replace(RECORD, state=present)
    if wanted in WAYS.get(present, ()):
        after = moved(record, wanted, 20.0, title="new")
        assert (after.state, after.last_activity_s, after.title) == (wanted, 20.0, "new")
        assert after.ended_at_s == (20.0 if wanted in TERMINAL else None)
        assert after.ended is (wanted in TERMINAL)
    else:
        with pytest.raises(ConflictError):
            moved(record, wanted, 20.0)


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_a_session_that_ended_stays_as_it_ended(state: State):
    assert state not in NEXT


def test_every_state_has_a_phase():
    assert set(PHASE) == set(State)


@pytest.mark.parametrize("record", [RECORD, FULL])
def test_a_row_comes_back_as_it_was(record: SessionRecord):
    assert session_from_row(session_to_row(record)) == record


def test_absent_fields_take_no_room():
    assert "title" not in unpack_map(session_to_row(RECORD))


def with_fields(**fields: object) -> bytes:
    return pack({**unpack_map(session_to_row(RECORD)), **fields})


def test_fields_of_another_version_are_passed_over():
    assert session_from_row(with_fields(mood="good", numbers=[1, {}], command=["sh"])) == RECORD


@pytest.mark.parametrize(
    "fields",
    [
        {"session_id": 5},
        {"session_id": b"bytes"},
        {"state": "dancing"},
        {"state": 1},
        {"session_epoch": "1"},
        {"session_epoch": True},
        {"session_epoch": -1},
        {"session_epoch": 1.0},
        {"created_at_s": "now"},
        {"created_at_s": math.nan},
        {"last_activity_s": math.inf},
        {"ended_at_s": -math.inf},
        {"last_activity_s": True},
        {"specializations": "docs"},
        {"specializations": [1]},
        {"orders": [b"killed"]},
        {"labels": []},
        {"pid": 1 << 63},
        {"pid": -1},
        {"exit_code": 1 << 31},
        {"message_count": -1},
        {"tool_calls": 1 << 63},
        {"title": None},
    ],
)
def test_a_field_of_a_wrong_type_or_size_is_refused(fields: dict):
    with pytest.raises(PeerError):
        session_from_row(with_fields(**fields))


@pytest.mark.parametrize("missing", ["session_id", "session_epoch", "state", "created_at_s"])
def test_a_row_without_a_field_that_it_needs_is_refused(missing: str):
    fields = unpack_map(session_to_row(RECORD))
    del fields[missing]
    with pytest.raises(PeerError):
        session_from_row(pack(fields))
