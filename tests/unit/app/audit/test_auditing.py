"""What happens at a node becomes records and lines, in words that are always the same."""

import pytest
from auditing import GENESIS, NODE, NODE_ID, OTHER, ROOT, SESSION, Desk, chance, granted
from msgspec.structs import replace

from meshnode.app.audit.alarms import Alarm, Alarms
from meshnode.app.audit.auditing import (
    ACCEPTED_MAX,
    FOLLOWED_S,
    GATES_MAX,
    JUMP_S,
    SHARES,
    WINDOW_S,
    Auditor,
    Gates,
    Happening,
)
from meshnode.client.keys.authority import BACKDATE_S, OWN_KEY_TTL_S
from meshnode.core.control.entries import Cancel, Forget, Revoke, StandingKill, sign_entry
from meshnode.core.control.grants import SessionKey
from meshnode.core.control.roles import Role
from meshnode.core.control.settings import Budget, Policy
from meshnode.core.errors import ConflictError, NotFoundError, RefusedError
from meshnode.core.feeds.headers import Header, sign_header
from meshnode.core.ids import b32
from meshnode.core.keys import Key, key_id_of
from meshnode.core.sessions.sessions import State

HEADER = sign_header(NODE, Header(GENESIS.mesh_id, NODE_ID, 2, 77, 4, 6, bytes(32), bytes(32), 1.0))


async def test_a_command_is_recorded_when_it_is_accepted_and_when_it_is_done():
    desk = Desk()
    key = granted()
    await desk.desk.submit(desk.order(key=key, command_id=bytes(16)), "n" * 52)
    accepted, executed = desk.records
    who = (key_id_of(ROOT.public), b32(bytes(16)), "steer", SESSION.session_id, "builder", "olga")
    for one in (accepted, executed):
        named = (one.actor, one.command, one.action, one.session, one.agent, one.owner)
        assert named == who
    assert accepted.detail == f"signed with {key_id_of(key.key.public)}, through nnnnnnnnnnnn"
    assert (executed.outcome, executed.duration_s) == ("delivered", 0.0)
    assert [one.kind for one in desk.lines] == [
        "command_accepted",
        "session_prompt",
        "command_executed",
    ]


async def test_an_accepted_command_waits_for_the_journal_and_the_outcome_for_its_end():
    """So both travel with transactions that are synced in any case."""
    desk = Desk()
    at = []
    begin, finish = desk.journal.begin, desk.journal.finish

    async def noting_begin(*args):
        at.append(("begin", desk.kinds()))
        return await begin(*args)

    async def noting_finish(*args):
        at.append(("finish", desk.kinds()[-1]))
        return await finish(*args)

    desk.journal.begin, desk.journal.finish = noting_begin, noting_finish
    await desk.desk.submit(desk.order(), "")
    assert at == [("begin", ["command_accepted"]), ("finish", "command_executed")]


async def test_refusals_of_a_proved_signer_name_the_key():
    desk = Desk()
    with pytest.raises(NotFoundError):
        await desk.desk.submit(desk.order(session="x" * 26), "")
    first = desk.order(command_id=bytes(16))
    await desk.desk.submit(first, "")
    with pytest.raises(ConflictError):
        await desk.desk.submit(desk.order(command_id=bytes(16), args={"message": "other"}), "")
    refused = [one for one in desk.records if one.kind == "command_refused"]
    assert [one.outcome for one in refused] == ["not_found", "conflict"]
    assert {one.actor for one in refused} == {key_id_of(ROOT.public)}


def test_reading_what_an_agent_wrote_is_recorded_by_reader():
    desk = Desk()
    desk.desk.judge_reading(desk.order("read_messages"), "")
    with pytest.raises(RefusedError):
        desk.desk.judge_reading(desk.order(), "")
    assert desk.kinds()[0] == "messages_read"
    assert desk.records[0].actor == key_id_of(ROOT.public)


def follow(desk, position=0, via="n" * 52, lives_s=OWN_KEY_TTL_S, action="read_messages", more=()):
    """Read on, with a key that was made now."""
    now_s, made = int(desk.clock.now_s), Key.new(chance)
    life = {"not_before_s": now_s - BACKDATE_S, "expires_s": now_s + lives_s}
    key = SessionKey(made, granted(subject=made.public, **life).chain)
    args = {"follow": True} | ({} if position is None else {"position": position})
    desk.desk.judge_reading(desk.order(action, key, args=args | dict(more)), via)


def test_who_goes_on_following_is_recorded_once_an_hour():
    desk = Desk()
    follow(desk, position=None)
    for number in range(100):
        follow(desk, number)
    assert desk.kinds() == ["messages_read"]
    desk.clock.now_s += FOLLOWED_S
    follow(desk, 100)
    follow(desk, 101)
    assert desk.kinds() == ["messages_read"] * 2
    follow(desk, position=None)
    assert desk.kinds() == ["messages_read"] * 3, "a reading that begins is always recorded"


@pytest.mark.parametrize(
    "other",
    [
        {"via": "m" * 52},
        {"lives_s": OWN_KEY_TTL_S + 1},
    ],
    ids=["through another node", "with a key that was handed on"],
)
def test_nobody_follows_unseen_behind_another(other):
    desk = Desk()
    follow(desk)
    follow(desk, **other)
    assert desk.kinds() == ["messages_read"] * 2


@pytest.mark.parametrize(
    "other",
    [
        {"action": "read_rounds", "more": {"session": "another"}},
        {"more": {"what": "rounds"}},
    ],
    ids=["the rounds of a log", "the rounds of the session"],
)
def test_only_output_is_followed_and_nothing_else_hides_behind_it(other):
    desk = Desk()
    follow(desk)
    for _ in range(2):
        follow(desk, **other)
    assert len(desk.kinds()) == 3


def test_who_was_not_recorded_for_want_of_a_share_is_not_known_as_a_follower():
    desk = Desk()
    for _ in range(SHARES["messages_read"]):
        follow(desk, position=None)
    other = "m" * 52
    follow(desk, position=None, via=other)  # one of too many
    desk.clock.now_s += WINDOW_S + 1
    desk.auditor.tick()
    follow(desk, via=other)
    assert desk.kinds().count("messages_read") > SHARES["messages_read"]
    assert other[:12] in desk.records[-1].detail


def test_a_session_is_recorded_from_its_beginning_to_its_end():
    desk = Desk()
    note = desk.auditor.session
    pending = replace(SESSION, state=State.PENDING)
    note(None, pending)
    note(pending, SESSION)
    note(SESSION, replace(SESSION, message_count=1))
    ended = replace(SESSION, ended_at_s=61.0, ended_by="387d", end_reason="finished")
    for state in (State.CLOSED, State.EXPIRED, State.FAILED, State.KILLED):
        note(SESSION, replace(ended, state=state))
    assert desk.kinds() == [
        "session_created",
        *(f"session_{state}" for state in ("closed", "expired", "failed", "killed")),
    ]
    closed = desk.records[1]
    assert (closed.actor, closed.detail, closed.duration_s) == ("387d", "finished", 60.0)
    assert desk.lines[1].kind == "session_prompt"


@pytest.mark.parametrize(
    ("body", "life_s", "kind", "detail"),
    [
        (Role(OTHER.public, "operator", "olga", ROOT.public, 5, None), None, "role_given", "olga"),
        (Revoke("key", OTHER.public, (NODE.public,)), None, "revoked", "1 survivors"),
        (Revoke("grant", bytes(16)), 60, "revoked", "grant 0000"),
        (StandingKill(agent="builder"), 60, "kill_ordered", "kill builder"),
        (Cancel(bytes(16)), 60, "order_cancelled", "order 0000"),
        (Policy("limits", {"max": 5}), None, "policy_set", "limits"),
        (Budget("team", None), None, "budget_set", "team"),
        (Forget(HEADER), None, "node_forgotten", NODE_ID),
    ],
)
def test_entries_of_the_control_set_are_recorded_by_issuer(body, life_s, kind, detail):
    desk = Desk()
    expires_s = None if life_s is None else 5 + life_s
    signed = sign_entry(ROOT, GENESIS.mesh_id, body, chance, issued_s=5, expires_s=expires_s)
    desk.auditor.entry(signed, GENESIS.mesh_id)
    (record,) = desk.records
    assert (record.kind, record.actor) == (kind, key_id_of(ROOT.public))
    assert detail in record.detail


def test_an_entry_of_a_newer_version_is_recorded_as_such():
    desk = Desk()
    value = {"mesh": GENESIS.mesh_id, "kind": "omen", "issuer": ROOT.public}
    desk.auditor.entry(ROOT.sign("control", value), GENESIS.mesh_id)
    desk.auditor.entry(ROOT.sign("control", {}), GENESIS.mesh_id)
    assert [(one.kind, one.detail) for one in desk.records] == [
        ("entry_taken", "of a newer version")
    ]


def test_alarms_are_recorded_when_they_begin_and_end_also_those_that_stood_before():
    desk = Desk()
    alarms = Alarms(lambda: 1.0, lambda _alarm, _raised: None)
    alarms.sound(Alarm("disk", "full", "make room"))
    alarms.tell_also(desk.auditor.alarm)
    alarms.sound(Alarm("disk", "still full", "make room"))
    alarms.clear("disk")
    assert [(one.kind, one.action) for one in desk.records] == [
        ("alarm_raised", "disk"),
        ("alarm_over", "disk"),
    ]


class Clock:
    """Two clocks that need not agree."""

    wall = 1_790_000_000.0
    steady = 5.0

    def wall_s(self) -> float:
        return self.wall

    def steady_s(self) -> float:
        return self.steady


def test_a_jump_of_the_clock_is_recorded_and_a_drift_is_not():
    clock, records = Clock(), []
    auditor = Auditor(clock, records.append, records.append)
    for wall_s in (1.0, 1.0 + JUMP_S - 0.1, 1.0):
        clock.wall, clock.steady = clock.wall + wall_s, clock.steady + 1.0
        auditor.tick()
    assert records == []
    clock.wall -= 3600
    auditor.tick()
    assert records[0].kind == "clock_jumped"
    assert "-3600 s" in records[0].detail


def test_what_was_counted_is_said_at_the_end_of_its_window_and_of_the_node():
    clock, records = Clock(), []
    auditor = Auditor(clock, records.append, lambda _line: None)
    for _ in range(3):
        auditor.admission("join_refused", b"", "wrong")
    clock.wall, clock.steady = clock.wall + WINDOW_S, clock.steady + WINDOW_S
    auditor.tick()
    auditor.admission("join_refused", b"", "wrong")
    auditor.admission("join_refused", b"", "wrong")
    auditor.close()
    assert [one.detail for one in records] == ["wrong", "2 more like it", "wrong", "1 more like it"]
    assert records[1].outcome == "counted"


def test_gates_are_bounded_whoever_comes():
    gates = Gates()
    for number in range(10 * GATES_MAX):
        gates.lets("command_refused", str(number), 20, 0.0)
    counted = gates.take_due(WINDOW_S)
    assert [one.actor for one in counted] == [""]
    held = int(counted[0].detail.split()[0])
    assert held == 9 * GATES_MAX - 20


async def test_the_ids_of_accepted_commands_are_bounded(monkeypatch):
    monkeypatch.setattr("meshnode.app.audit.auditing.ACCEPTED_MAX", 3)
    desk = Desk()
    for _ in range(10):
        desk.auditor.accepted(_command(desk), None, "")
    assert len(desk.auditor._accepted) == 3
    assert ACCEPTED_MAX > 1000


def _command(desk: Desk):
    return desk.court.judge(desk.order("register"), None, "", desk.clock.now_s)


def test_a_happening_has_no_field_for_what_was_said():
    assert not {"message", "direction", "args", "prompt"} & set(Happening.__slots__)
