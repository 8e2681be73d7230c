"""What a command does that comes again, after a crash, a wipe or a step of the clock: nothing."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles import ManualClock, ScriptedAgents
from owner import KEY, NODE, SESSION, Disk, Owner, key_for

from meshnode.app.commands.lanes import EXECUTING_OF_SESSION_MAX
from meshnode.core.commands.commands import (
    KILL_LIFE_S,
    STEER_LIFE_S,
    command_from_signed,
    receipt_from_signed,
    sign_command,
)
from meshnode.core.errors import (
    ClockError,
    ConflictError,
    ExpiredError,
    NotAuthenticatedError,
    StaleError,
)
from meshnode.core.floor import SKEW_S
from meshnode.core.keys import Signed
from meshnode.core.sessions.sessions import SESSIONS, session_from_row
from meshnode.store.database import Database

HOUR_S = 3600


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "state.db")
    yield disk
    disk.database.close()


@pytest.fixture
def agents() -> ScriptedAgents:
    return ScriptedAgents()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def order(owner: Owner, action: str = "steer", **changes: object) -> Signed:
    return sign_command(KEY, owner.command(action, **changes))


def rename(disk: Disk, name: str, other: str) -> None:
    """Let the disk take nothing about commands, or again."""
    disk.database.run_now(
        lambda connection: connection.execute(f"ALTER TABLE {name} RENAME TO {other}")
    )


async def test_a_replay_now_gets_the_first_receipt(disk, agents, clock):
    owner = disk.start(agents, clock)
    signed = order(owner)
    first = await owner.desk.submit(signed, "")
    assert [await owner.desk.submit(signed, "relay") for _ in range(5)] == [first] * 5
    assert len(agents.steered) == 1


async def test_a_replay_after_a_restart_gets_the_first_receipt(disk, agents, clock):
    owner = disk.start(agents, clock)
    signed = order(owner)
    first = await owner.desk.submit(signed, "")
    disk.reopen()
    again = disk.start(agents, clock)
    assert await again.desk.submit(signed, "") == first
    assert len(agents.steered) == 1


async def test_a_replay_gets_the_first_receipt_also_where_the_disk_did_not_take_it(
    disk, agents, clock
):
    """Nor is it told that the node stopped, or that it takes nothing new: it was carried out."""
    agents.gate = asyncio.Event()
    owner = disk.start(agents, clock)
    signed = order(owner)
    first = asyncio.create_task(owner.desk.submit(signed, ""))
    await agents.reached.wait()
    rename(disk, "journal", "away")
    agents.gate.set()
    assert await owner.desk.submit(signed, "") == await first
    same_id = command_from_signed(signed).command_id
    other = order(owner, command_id=same_id, args={"message": "another"})
    with pytest.raises(ConflictError, match="another command was sent"):
        await owner.desk.submit(other, "")
    rename(disk, "away", "journal")
    assert await owner.desk.submit(signed, "") == await first
    assert (await owner.submit(order(owner))).outcome == "delivered"
    assert len(agents.steered) == 2
    disk.reopen()
    assert await disk.start(agents, clock).desk.submit(signed, "") == await first


async def test_an_expired_replay_is_answered_also_where_the_disk_did_not_take_its_receipt(
    disk, agents, clock
):
    agents.gate = asyncio.Event()
    owner = disk.start(agents, clock)
    signed = order(owner)
    first = asyncio.create_task(owner.desk.submit(signed, ""))
    await agents.reached.wait()
    rename(disk, "journal", "away")
    agents.gate.set()
    await first
    clock.now_s += HOUR_S
    assert await owner.desk.submit(signed, "") == await first


async def test_a_disk_that_is_put_back_7_minutes_after_its_copy_takes_nothing_twice(
    disk, agents, clock
):
    """Before, a steer of those minutes would be taken again: the copy has not heard of it."""
    await disk.start(agents, clock).submit(order(disk.owner))
    disk.reopen()  # so that all is in one file
    copy = disk.path.read_bytes()
    owner = disk.start(agents, clock)
    signed = order(owner, expires_s=int(clock.now_s) + STEER_LIFE_S)
    await owner.submit(signed)
    disk.wipe()
    disk.database.close()
    disk.path.write_bytes(copy)
    disk.database = Database(disk.path)
    clock.now_s += STEER_LIFE_S + SKEW_S + 1
    again = disk.start(agents, clock)
    assert again.generation == owner.generation
    with pytest.raises(ExpiredError):
        await again.submit(signed)
    assert len(agents.steered) == 2


async def test_a_hundred_at_once_on_a_real_disk_are_one_execution_with_one_receipt(
    disk, agents, clock
):
    owner = disk.start(agents, clock)
    agents.gate = asyncio.Event()
    signed = order(owner)
    waiting = [asyncio.ensure_future(owner.desk.submit(signed, "")) for _ in range(100)]
    await agents.reached.wait()
    agents.gate.set()
    assert len({receipt.hash for receipt in await asyncio.gather(*waiting)}) == 1
    assert len(agents.steered) == 1


async def test_the_same_id_with_other_words_is_a_conflict_also_after_a_restart(disk, agents, clock):
    owner = disk.start(agents, clock)
    await owner.desk.submit(order(owner, command_id=bytes(16)), "")
    other = order(owner, command_id=bytes(16), args={"message": "other"})
    disk.reopen()
    for run in (owner := disk.start(agents, clock), owner):
        with pytest.raises(ConflictError) as raised:
            await run.desk.submit(other, "")
        assert raised.value.exit_code == 7
    assert [message for _, _, message in agents.steered] == ["hello"]


async def test_what_expired_is_told_by_its_receipt_and_later_as_expired(disk, agents, clock):
    owner = disk.start(agents, clock)
    signed = order(owner)
    first = await owner.desk.submit(signed, "")
    clock.now_s += 60 + SKEW_S + 1
    assert await owner.desk.submit(signed, "") == first
    clock.now_s += SKEW_S
    await owner.desk.submit(order(owner), "")  # which makes the journal forget
    with pytest.raises(ExpiredError) as raised:
        await owner.desk.submit(signed, "")
    assert (raised.value.exit_code, raised.value.code) == (6, "expired")
    assert len(agents.steered) == 2


async def test_a_steer_that_expires_while_it_waits_for_its_turn_is_not_delivered(
    disk, agents, clock
):
    owner = disk.start(agents, clock)
    agents.gate = asyncio.Event()
    waiting = [asyncio.ensure_future(owner.submit(order(owner))) for _ in range(20)]
    await agents.reached.wait()
    accepted = await owner.submit(order(owner), until_accepted=True)  # and all before it
    assert accepted.outcome == "accepted"
    clock.now_s += 60 + SKEW_S + 1
    agents.gate.set()
    outcomes = Counter(receipt.outcome for receipt in await asyncio.gather(*waiting))
    assert outcomes == {"delivered": EXECUTING_OF_SESSION_MAX, "expired": 12}
    assert len(agents.steered) == EXECUTING_OF_SESSION_MAX


# a wiped journal


async def test_a_steer_from_before_a_wipe_is_stale_while_its_agent_lives_on(disk, agents, clock):
    owner = disk.start(agents, clock)
    signed, before = order(owner), owner.epoch
    await owner.desk.submit(signed, "")
    disk.wipe()
    again = disk.start(agents, clock)
    with pytest.raises(StaleError):
        await again.desk.submit(signed, "")
    assert len(agents.steered) == 1
    await asyncio.gather(*again.spawn.tasks)
    row = again.published.rows[SESSIONS, SESSION.session_id.encode()]
    assert row is not None
    assert session_from_row(row).session_epoch == again.epoch != before
    assert (await again.submit(order(again))).outcome == "delivered"


async def test_a_kill_from_before_a_wipe_is_stale_too(disk, agents, clock):
    signed = order(disk.start(agents, clock), "kill")
    disk.wipe()
    with pytest.raises(StaleError):
        await disk.start(agents, clock).desk.submit(signed, "")
    assert agents.kills == []


async def test_a_session_keeps_its_epoch_over_a_restart_with_its_journal(disk, agents, clock):
    before = disk.start(agents, clock).epoch
    disk.reopen()
    again = disk.start(agents, clock)
    assert again.epoch == before
    assert not again.published.rows


async def test_a_registration_from_before_a_wipe_is_stale(disk, agents, clock):
    owner = disk.start(agents, clock)
    args = {"agent_id": "a", "specialization": "b"}
    signed = sign_command(KEY, owner.command("register", args=args))
    assert (await owner.submit(signed)).outcome == "applied"
    disk.wipe()
    again = disk.start(agents, clock)
    with pytest.raises(StaleError):
        await again.desk.submit(signed, "")
    assert not again.published.rows


# crashes


async def crashed(disk: Disk, agents: ScriptedAgents, clock: ManualClock, action: str) -> Signed:
    """End a node while an agent is at it; returns the command."""
    owner = disk.start(agents, clock)
    agents.gate = asyncio.Event()
    signed = order(owner, action)
    waiting = asyncio.ensure_future(owner.desk.submit(signed, ""))
    await agents.reached.wait()
    await owner.crash()
    await asyncio.gather(waiting, return_exceptions=True)
    agents.gate = None
    disk.reopen()
    return signed


async def test_a_steer_that_a_crash_interrupted_is_indeterminate_and_never_sent_again(
    disk, agents, clock
):
    signed = await crashed(disk, agents, clock, "steer")
    owner = disk.start(agents, clock)
    receipts = [await owner.submit(signed) for _ in range(3)]
    assert [one.outcome for one in receipts] == ["indeterminate"] * 3
    disk.reopen()
    assert (await disk.start(agents, clock).submit(signed)) == receipts[0]
    assert agents.steered == []


async def test_a_kill_that_a_crash_interrupted_runs_again_once_and_is_answered(disk, agents, clock):
    signed = await crashed(disk, agents, clock, "kill")
    owner = disk.start(agents, clock)
    assert (await owner.submit(signed)).outcome == "applied"
    assert (await owner.submit(signed)).command_hash == signed.hash
    assert agents.kills == [SESSION.session_id]


async def test_a_duplicate_that_comes_while_a_kill_runs_again_waits_for_it(disk, agents, clock):
    signed = await crashed(disk, agents, clock, "kill")
    ready = asyncio.Event()
    owner = disk.start(agents, clock, ready)
    duplicate = asyncio.ensure_future(owner.desk.submit(signed, ""))
    await asyncio.sleep(0)
    assert not duplicate.done()
    ready.set()
    assert receipt_from_signed(await duplicate, NODE.public).outcome == "applied"
    assert agents.kills == [SESSION.session_id]


# clocks


async def test_an_hour_back_after_the_journal_has_forgotten_lets_nothing_be_replayed(
    disk, agents, clock
):
    owner = disk.start(agents, clock)
    signed = order(owner, expires_s=int(clock.now_s) + STEER_LIFE_S)
    await owner.desk.submit(signed, "")
    clock.now_s += HOUR_S
    await owner.desk.submit(order(owner), "")  # which makes the journal forget the first
    clock.now_s -= HOUR_S
    with pytest.raises(ClockError, match="behind what it has shown"):
        await owner.desk.submit(signed, "")
    disk.reopen()
    again = disk.start(agents, clock)
    with pytest.raises(ClockError):
        await again.desk.submit(signed, "")
    assert len(agents.steered) == 2


async def test_an_hour_back_at_once_still_tells_what_became_of_a_command(disk, agents, clock):
    owner = disk.start(agents, clock)
    signed = order(owner)
    first = await owner.desk.submit(signed, "")
    await owner.desk.tick()
    clock.now_s -= HOUR_S
    disk.reopen()
    again = disk.start(agents, clock)
    assert await again.desk.submit(signed, "") == first
    assert len(agents.steered) == 1


async def test_a_clock_at_1970_takes_no_steer_and_does_take_a_kill(disk, agents, clock):
    owner = disk.start(agents, clock)
    await owner.desk.tick()
    steer = order(owner)
    kill = order(owner, "kill", expires_s=int(clock.now_s) + KILL_LIFE_S // 2)
    clock.now_s = 0.0
    disk.reopen()
    again = disk.start(agents, clock)
    with pytest.raises(ClockError):
        await again.desk.submit(steer, "")
    assert agents.steered == []
    assert (await again.submit(kill)).outcome == "applied"


async def test_a_clock_at_1970_takes_no_kill_that_had_expired_before(disk, agents, clock):
    owner = disk.start(agents, clock)
    kill = order(owner, "kill")
    clock.now_s += HOUR_S
    await owner.desk.tick()
    clock.now_s = 0.0
    disk.reopen()
    with pytest.raises(ExpiredError):
        await disk.start(agents, clock).desk.submit(kill, "")
    assert agents.kills == []


async def test_a_clock_at_1970_takes_no_kill_by_a_key_that_had_expired_before(disk, agents, clock):
    owner = disk.start(agents, clock)
    command = owner.command("kill", expires_s=int(clock.now_s) + 2 * HOUR_S)
    signed = sign_command(key_for(expires_s=int(clock.now_s) + 60), command)
    clock.now_s += HOUR_S
    await owner.desk.tick()
    clock.now_s = 0.0
    with pytest.raises(NotAuthenticatedError, match="expired"):
        await owner.desk.submit(signed, "")
    assert agents.kills == []


async def test_a_clock_that_goes_back_by_less_than_the_skew_disturbs_nobody(disk, agents, clock):
    owner = disk.start(agents, clock)
    await owner.desk.submit(order(owner), "")
    clock.now_s -= SKEW_S
    assert (await owner.submit(order(owner))).outcome == "delivered"


async def test_a_kill_replayed_below_the_floor_finds_its_session_ended(disk, agents, clock):
    """It is taken, since its epoch matches; there is nothing left that it could do."""
    owner = disk.start(agents, clock)
    kill = order(owner, "kill")
    await owner.desk.submit(kill, "")
    record = owner.sessions.get(SESSION.session_id)
    assert record is not None
    assert record.ended
    clock.now_s += HOUR_S
    await owner.desk.submit(order(owner, "kill"), "")
    clock.now_s -= HOUR_S
    assert agents.kills == [SESSION.session_id]
    with pytest.raises(ExpiredError):
        await owner.desk.submit(kill, "")
    assert agents.kills == [SESSION.session_id]
