"""Orders over HTTP: which session is meant, and that one which comes twice at once acts once."""

import asyncio
from random import Random

import pytest
from viewing import IDS, KEYS, Viewer

from meshnode.app import pieces
from meshnode.app.commands import quotas
from meshnode.client.targets.targets import Target
from meshnode.core.commands.commands import Receipt, command_from_signed, sign_receipt
from meshnode.core.errors import ExhaustedError, StaleError
from meshnode.core.ids import NodeId
from meshnode.core.keys import Signed
from meshnode.core.sessions.sessions import State
from meshnode.gateway import repeats
from meshnode.gateway.acting import Actor
from meshnode.gateway.problems import Problem

BUILDER = Target(agent_id="builder", node="linked")
COMMAND_ID, GIVEN_ID = b"repeated command", b"another command!"
STEERED = {"message": "go on", "direction": "", "mode": ""}


class Owner:
    """Owns all sessions: notes what it is brought, a second later each time, and signs for it."""

    def __init__(self, viewer: Viewer) -> None:
        self.clock = viewer.clock
        self.commands: list[Signed] = []
        self.errors: list[StaleError] = []

    async def submit(self, owner: NodeId, command: Signed, timeout_s: float) -> Signed:
        del timeout_s
        self.clock.now_s += 1
        self.commands.append(command)
        if self.errors:
            raise self.errors.pop()
        await asyncio.sleep(0)
        said = command_from_signed(command)
        receipt = Receipt(
            mesh=said.mesh,
            command_id=said.command_id,
            command_hash=command.hash,
            node=owner,
            session=said.session,
            outcome="applied",
            at_s=self.clock.now_s,
        )
        return sign_receipt(KEYS[IDS.index(owner)], receipt)


@pytest.fixture
def viewer(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_S", 0.0)  # it pauses wherever it may
    return Viewer()


@pytest.fixture
def owner(viewer):
    return Owner(viewer)


@pytest.fixture
def actor(viewer, owner):
    return Actor(viewer.queries, owner, 1, viewer.clock, Random(1).randbytes)


@pytest.fixture
def bearer(viewer):
    return viewer.bearer("steer", "kill")


async def test_a_kill_that_comes_twice_at_once_spares_who_has_begun_between(
    viewer, owner, actor, bearer
):
    def kill():
        return asyncio.create_task(actor.kill(bearer, BUILDER, COMMAND_ID, force=True))

    viewer.session(1, "first", State.CLOSED, agent_id="builder")
    first = kill()
    await asyncio.sleep(0)  # it has seen the one that has ended
    assert not first.done()
    viewer.session(1, "successor", agent_id="builder")
    again = kill()
    assert (await first)["detail"] == "already ended"
    assert await again == await first
    assert owner.commands == []


async def test_kills_of_what_has_ended_are_charged_and_push_out_nothing_that_an_id_was_given_for(
    viewer, owner, actor, bearer, monkeypatch
):
    monkeypatch.setattr(repeats, "BYTES_MAX", 8 * repeats.BYTES_MAX // repeats.COMMANDS_MAX)
    monkeypatch.setattr(repeats, "COMMANDS_MAX", 8)
    viewer.session(1, "first", agent_id="builder")
    viewer.session(1, "over", State.CLOSED, agent_id="gone")
    gone = Target(agent_id="gone", node="linked")
    await actor.steer(bearer, BUILDER, STEERED, COMMAND_ID)
    told = await actor.kill(bearer, gone, GIVEN_ID, force=True)
    for _ in range(quotas.OF_SIGNER.burst - 1):  # the steer took a second
        assert (await actor.kill(bearer, gone, force=True))["command_id"] != told["command_id"]
    with pytest.raises(ExhaustedError):
        await actor.kill(bearer, gone, force=True)
    viewer.clock.now_s += 1
    viewer.session(1, "successor", agent_id="gone")
    assert await actor.kill(bearer, gone, GIVEN_ID, force=True) == told
    await actor.steer(bearer, BUILDER, STEERED, COMMAND_ID)
    one, other = owner.commands
    assert one == other


@pytest.mark.parametrize("stale", [0, 1])
async def test_an_order_that_comes_twice_at_once_is_one_command(
    viewer, owner, actor, bearer, stale
):
    viewer.session(1, "first", agent_id="builder")
    owner.errors = [StaleError("an earlier start")] * stale
    steers = (actor.steer(bearer, BUILDER, STEERED, COMMAND_ID) for _ in range(2))
    first, again = await asyncio.gather(*steers)
    assert first["session_id"] == again["session_id"] == "first"
    one, other = owner.commands[stale:]
    assert one == other


class Forgetful(Owner):
    """Has lost its journal since the first command was signed; refuses it after so many turns."""

    turns: list[int]

    async def submit(self, owner, command, timeout_s):
        if command != (self.commands or [command])[0]:
            return await super().submit(owner, command, timeout_s)
        self.commands.append(command)
        self.clock.now_s += 1
        for _ in range(self.turns.pop(0)):
            await asyncio.sleep(0)
        raise StaleError("an earlier start")


@pytest.mark.parametrize("turns", [[1, 2], [9, 1], [1, 9]])
async def test_an_order_that_comes_twice_at_once_is_signed_anew_if_its_owner_has_lost_its_journal(
    viewer, bearer, turns
):
    owner = Forgetful(viewer)
    owner.turns = turns
    actor = Actor(viewer.queries, owner, 1, viewer.clock, Random(1).randbytes)
    viewer.session(1, "first", agent_id="builder")
    steers = (actor.steer(bearer, BUILDER, STEERED, COMMAND_ID) for _ in range(2))
    first, again = await asyncio.gather(*steers)
    assert first["command_id"] == again["command_id"]
    lost, same, *anew = owner.commands
    assert lost == same
    assert len(anew) == 2
    assert anew[0] == anew[1]
    owner.commands[:] = [anew[0]]  # and so much later
    owner.turns = [1]
    with pytest.raises(Problem, match="is not known"):
        await actor.steer(bearer, BUILDER, STEERED, COMMAND_ID)


@pytest.mark.parametrize(("actions", "named"), [(("read", "kill"), ["mine"]), (("kill",), [])])
async def test_who_may_act_on_one_of_a_flood_of_namesakes_is_told_that_there_are_several(
    viewer, actor, actions, named
):
    viewer.session(1, "mine", agent_id="builder")
    viewer.clock.now_s += 1
    for number in range(150):
        viewer.session(1, f"flood-{number}", agent_id="builder")
    bearer = viewer.bearer(*actions, sessions=("mine",))
    with pytest.raises(Problem) as refused:
        await actor.find(bearer, BUILDER, "kill")
    assert refused.value.status == 409
    assert [one["session_id"] for one in refused.value.more["candidates"]] == named
