"""Close, suspend and resume: nobody stops, continues or ends an agent beyond what a key allows."""

import os
import signal
import subprocess
import sys

import pytest
from doubles import ScriptedAgents
from msgspec.structs import replace
from owner import GENESIS, KEY, NODE_ID, ROOT, SESSION, UNTIL_S, Owner, chance, key_for

from meshnode.agents import tree
from meshnode.agents.holding import HALT_S, Halt, Parting, let_go
from meshnode.core.commands.commands import Command, sign_command
from meshnode.core.control.entries import role_entry
from meshnode.core.control.grants import Grant, SessionKey, grant
from meshnode.core.control.roles import Role
from meshnode.core.errors import (
    ConflictError,
    MeshError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
    PeerError,
    RefusedError,
    StaleError,
)
from meshnode.core.keys import Key
from meshnode.core.sessions.sessions import State

pytestmark = pytest.mark.integration
ACTIONS = ("close", "suspend", "resume")


def untouched(owner):
    record = owner.sessions.get(SESSION.session_id)
    return record == SESSION and not (owner.published.rows or owner.agents.reached.is_set())


async def refused(owner, signed, error, via=""):
    with pytest.raises(error):
        await owner.desk.submit(signed, via)
    assert untouched(owner)
    assert not owner.journal.begun


@pytest.mark.parametrize(
    ("action", "allowed"),
    [
        ("suspend", ("steer",)),
        ("suspend", ("kill", "steer", "read", "register")),
        ("resume", ("steer", "kill")),
        ("close", ("steer", "suspend")),
        ("close", ("read", "read_messages", "open")),
        ("suspend", ()),
    ],
)
async def test_a_key_does_not_do_more_than_it_may(action, allowed):
    owner = Owner()
    await refused(owner, owner.order(action, key=key_for(actions=allowed)), NotPermittedError)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    "limits",
    [{"agents": ("other",)}, {"sessions": ("t" * 26,)}, {"nodes": ()}, {"specializations": ("x",)}],
)
async def test_a_key_for_others_does_not_reach_this_one(action, limits):
    owner = Owner()
    await refused(owner, owner.order(action, key=key_for(**limits)), NotPermittedError)


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_key_bound_to_a_gateway_is_refused_from_another(action):
    owner = Owner()
    signed = owner.order(action, key=key_for(via="g" * 52))
    await refused(owner, signed, NotPermittedError, via="h" * 52)


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_stranger_stops_nothing(action):
    owner = Owner()
    stranger = Key.new(chance)
    await refused(owner, owner.order(action, key=replace(KEY, key=stranger)), NotAuthenticatedError)


def command(action, **changes):
    now_s = int(Owner().clock.now_s)
    said = {
        "mesh": GENESIS.mesh_id,
        "command_id": chance(16),
        "node": NODE_ID,
        "session": SESSION.session_id,
        "epoch": SESSION.session_epoch,
        "action": action,
        "issued_s": now_s,
        "expires_s": now_s + 60,
    }
    return Command(**(said | changes))


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"epoch": SESSION.session_epoch + 1}, StaleError),
        ({"session": "t" * 26}, NotFoundError),
        ({"session": "", "epoch": 5}, PeerError),
        ({"node": "n" * 52}, PeerError),
        ({"mesh": "m" * 52}, NotAuthenticatedError),
        ({"expires_s": int(Owner().clock.now_s) + 86400}, RefusedError),
        ({"issued_s": 0, "expires_s": 100}, MeshError),
    ],
)
async def test_an_order_for_something_else_is_refused(action, changes, error):
    owner = Owner()
    await refused(owner, sign_command(KEY, command(action, **changes)), error)


async def test_a_suspension_that_is_replayed_after_a_resume_suspends_nothing():
    owner = Owner()
    once = owner.order("suspend")
    first = await owner.submit(once)
    await owner.submit(owner.order("resume"))
    assert await owner.submit(once) == first
    assert owner.sessions.get(SESSION.session_id).state is State.RUNNING
    assert owner.agents.suspended == set()


async def test_a_command_id_is_not_used_for_another_order():
    owner = Owner()
    await owner.submit(owner.order("resume", command_id=bytes(16)))
    with pytest.raises(ConflictError, match="same id"):
        await owner.desk.submit(owner.order("suspend", command_id=bytes(16)), "")
    assert owner.agents.suspended == set()
    assert owner.sessions.get(SESSION.session_id) == SESSION


@pytest.mark.parametrize("grace_s", [-1, 61, 1 << 40, "long", float("nan"), float("inf"), None])
async def test_a_close_with_a_huge_grace_asks_nobody(grace_s):
    owner = Owner()
    assert (await owner.submit(owner.order("close", grace_s=grace_s))).outcome == "refused"
    assert untouched(owner)


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_supervisor_that_refuses_changes_no_row(action):
    owner = Owner(ScriptedAgents(fault=RefusedError("it is being killed, and cannot be that")))
    assert (await owner.submit(owner.order(action))).outcome == "refused"
    assert owner.sessions.get(SESSION.session_id) == SESSION
    assert owner.published.rows == {}


@pytest.mark.parametrize("action", ["suspend", "resume"])
async def test_what_has_ended_is_not_brought_back(action):
    owner = Owner()
    ended = replace(SESSION, state=State.KILLED, ended_at_s=2.0)
    owner.sessions.restore([ended])
    assert (await owner.submit(owner.order(action))).outcome == "refused"
    assert owner.sessions.get(SESSION.session_id) == ended
    assert not owner.agents.reached.is_set()


@pytest.fixture
def bystander():
    """A process that has come to the pid of an agent that is gone."""
    code = "import signal\nwhile True: signal.pause()"
    with subprocess.Popen([sys.executable, "-I", "-c", code]) as process:
        there = tree.identity_of(process.pid)
        yield process, tree.Identity(process.pid, there.start_ticks - 1)
        process.kill()


def test_a_pid_that_was_reused_is_not_stopped_and_not_asked_to_end(bystander):
    process, gone = bystander
    halt = Halt("no-such-session", [gone], now_s=0.0)
    halted = next(filter(None, map(halt.step, (0.0, 0.1, HALT_S))))
    parting = Parting("no-such-session", [gone], now_s=0.0, grace_s=0.0)
    standing = parting.step(0.0) or parting.step(5.0)
    assert (halted.found, standing.found) == (0, 0)
    assert process.poll() is None
    assert not tree.is_stopped(tree.identity_of(process.pid))


def test_a_pid_that_was_reused_is_not_let_go_on(bystander):
    process, gone = bystander
    os.kill(process.pid, signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
    assert let_go("no-such-session", [gone]) == 0
    assert tree.is_stopped(tree.identity_of(process.pid))


async def test_an_observer_suspends_nothing():
    owner = Owner()
    oscar = Key.new(chance)
    role = Role(oscar.public, "observer", "", ROOT.public, 1, None)
    owner.control.add(role_entry(ROOT, GENESIS.mesh_id, role, chance), 0.0)
    stops = ("suspend", "kill")
    link = Grant(GENESIS.mesh_id, oscar.public, oscar.public, stops, 0, UNTIL_S, bytes(16))
    key = SessionKey(oscar, (grant(oscar, link),))
    for action in ACTIONS:
        await refused(owner, owner.order(action, key=key), NotPermittedError)
