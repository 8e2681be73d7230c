"""What too many commands do to those of others: nothing."""

import asyncio

import pytest
from doubles import MemoryJournal
from integration.attacks.desk import refused, resigned
from msgspec.structs import replace
from owner import (
    KEY,
    NODE,
    SESSION,
    STRANGER,
    Owner,
    chance,
    key_for,
)

from meshnode.app.commands.lanes import EXECUTING_OF_SESSION_MAX, OF_SESSION_MAX
from meshnode.app.commands.quotas import Allowance, Quota
from meshnode.core.commands.commands import (
    COMMAND,
    receipt_from_signed,
    sign_command,
)
from meshnode.core.control.grants import (
    SessionKey,
    grant,
    grant_from_signed,
)
from meshnode.core.errors import (
    ExhaustedError,
    NotAuthenticatedError,
    PeerError,
)
from meshnode.core.ids import SessionId
from meshnode.core.keys import Key, Signed

NOW_S = 1_790_000_000


@pytest.fixture
def owner() -> Owner:
    return Owner()


async def test_a_signer_over_its_quota_is_told_when_to_come_again_and_others_are_served():
    owner = Owner()
    stolen = key_for(STRANGER)
    owner.desk.of_signer = Quota(Allowance(burst=3, per_s=0.5), "this signer")
    for _ in range(3):
        await owner.submit(owner.order(key=stolen))
    before = list(owner.agents.steered)
    with pytest.raises(ExhaustedError) as raised:
        await owner.submit(owner.order(key=beneath(stolen)))
    assert raised.value.hint == "try again in 2.00 s"
    assert owner.agents.steered == before
    assert (await owner.submit(owner.order())).outcome == "delivered", "the operator goes on"
    owner.clock.now_s += 2
    assert (await owner.submit(owner.order(key=beneath(stolen)))).outcome == "delivered"


def beneath(key: SessionKey) -> SessionKey:
    """Make a key that nobody has seen yet, as its holder can at will."""
    child = Key.new(chance)
    link = replace(
        grant_from_signed(key.chain[-1]),
        issuer=key.key.public,
        subject=child.public,
        depth=len(key.chain),
        parent=key.chain[-1].hash,
    )
    return SessionKey(child, (*key.chain, grant(key.key, link)))


async def test_one_session_that_hangs_holds_up_its_own_commands_only(owner: Owner):
    other = replace(SESSION, session_id=SessionId("t" * 26))
    owner.sessions.restore([SESSION, other])
    owner.agents.gate = asyncio.Event()
    for action in ("steer", "kill"):
        waiting = [
            asyncio.ensure_future(owner.desk.submit(owner.order(action), ""))
            for _ in range(OF_SESSION_MAX)
        ]
        await asyncio.sleep(0)
        with pytest.raises(ExhaustedError, match="to this session"):
            await owner.desk.submit(owner.order(action), "")
        elsewhere = sign_command(KEY, owner.command(action, session=other.session_id))
        waiting.append(asyncio.ensure_future(owner.desk.submit(elsewhere, "")))
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(owner.memory.executing) == EXECUTING_OF_SESSION_MAX + 1
        owner.agents.gate.set()
        await asyncio.gather(*waiting)
        owner.memory.executing.clear()
        owner.agents.gate = asyncio.Event()
        owner.sessions.restore([SESSION, other])


async def test_a_peer_over_its_quota_is_refused_unread_while_another_is_served():
    owner = Owner()
    owner.desk.of_peer = Quota(Allowance(burst=2, per_s=0.5), "this peer")
    garbage = Signed(COMMAND, b"\xc1", bytes(64))
    for _ in range(2):
        await refused(owner, garbage, PeerError, "flooder")
    await refused(owner, garbage, ExhaustedError, "flooder")
    await refused(owner, owner.order(), ExhaustedError, "flooder")
    assert (await owner.submit(owner.order(), "honest")).outcome == "delivered"


async def test_garbage_uses_up_nobodys_quota_but_its_peers(owner: Owner):
    owner.desk.of_signer = Quota(Allowance(burst=1, per_s=0.001), "this signer")
    for _ in range(5):
        await refused(owner, resigned(owner.order(), STRANGER), NotAuthenticatedError, "liar")
    assert (await owner.submit(owner.order())).outcome == "delivered"


@pytest.mark.parametrize("full", [{"commands_max": 10}, {"signer_max": 10}])
async def test_a_full_journal_refuses_steers_first_and_still_takes_kills(full: dict):
    owner = Owner(journal=(journal := MemoryJournal(**full)))
    for _ in range(9):
        await owner.submit(owner.order())
    steered = len(owner.agents.steered)
    with pytest.raises(ExhaustedError):
        await owner.submit(owner.order())
    assert (len(journal.kept), len(owner.agents.steered)) == (9, steered)
    assert (await owner.submit(owner.order("kill", force=True))).outcome == "applied"


async def test_a_hundred_callers_who_hang_up_leave_one_execution(owner: Owner):
    owner.agents.gate = asyncio.Event()
    signed = owner.order()
    callers = [asyncio.ensure_future(owner.desk.submit(signed, "")) for _ in range(100)]
    await owner.agents.reached.wait()
    for caller in callers[:99]:
        caller.cancel()
    owner.agents.gate.set()
    assert receipt_from_signed(await callers[99], NODE.public).outcome == "delivered"
    assert len(owner.agents.steered) == 1
