"""Orders that are sent again over HTTP: no key learns or pushes out another's."""

import pytest
from integration.attacks.grantors import GENESIS, NODE_ID, NOW_S, Chain, chance, of

from meshnode.app.commands.bearers import Bearer
from meshnode.client.commands.orders import COMMAND_ID_BYTES, sign_order
from meshnode.client.targets.targets import Order, Target
from meshnode.core.control.grants import SessionKey, grant_from_signed
from meshnode.core.errors import ConflictError
from meshnode.core.keys import Signed
from meshnode.gateway.repeats import BYTES_MAX, COMMANDS_MAX, Repeats, Wish

pytestmark = pytest.mark.integration
OURS = [bytes([number]) * COMMAND_ID_BYTES for number in range(3)]
WISH = Wish(Target(agent_id="a"), "steer", {"message": "once"})


def bearer(chain: Chain) -> Bearer:
    key = SessionKey(chain.key, chain.links)
    return Bearer(key, tuple(map(grant_from_signed, chain.links)), "operator", NODE_ID)


def signed(who: Bearer, command_id: bytes, chars: int = 4) -> Signed:
    order = Order(NODE_ID, 1, "steer", args={"message": "x" * chars})
    return sign_order(who.key, GENESIS.mesh_id, order, command_id, NOW_S)


@pytest.fixture
def victim() -> Bearer:
    return bearer(of("carl").child())


@pytest.fixture
def repeats(victim: Bearer) -> Repeats:
    """Keep three orders of somebody who may ask again."""
    repeats = Repeats()
    for command_id in OURS:
        repeats.keep(victim, command_id, WISH, signed(victim, command_id), is_given=True)
    return repeats


def test_another_key_learns_nothing_of_an_order_by_its_id(repeats: Repeats, victim: Bearer):
    for other in (of("carl").child(), of("carl").child().child()):
        assert repeats.known(bearer(other), OURS[0], WISH) is None
    sibling = of("carl").child()
    assert repeats.known(bearer(sibling.child()), OURS[0], WISH) is None
    with pytest.raises(ConflictError):
        repeats.known(victim, OURS[0], Wish(Target(agent_id="b"), "steer", {"message": "once"}))


@pytest.mark.parametrize("keys", [1, 50], ids=["one key", "keys made of it"])
@pytest.mark.parametrize("chars", [1, 60_000], ids=["many", "large"])
def test_a_flood_of_orders_pushes_out_its_own_alone(
    repeats: Repeats, victim: Bearer, keys: int, chars: int
):
    first = of("carl").child()
    thieves = [bearer(first.child()) for _ in range(keys)]
    command = signed(thieves[0], chance(COMMAND_ID_BYTES), chars)
    made = [chance(COMMAND_ID_BYTES) for _ in range(2 * COMMANDS_MAX)]
    for number, command_id in enumerate(made):
        repeats.keep(thieves[number % keys], command_id, WISH, command, is_given=True)
    kept = [repeats.known(victim, command_id, WISH) for command_id in OURS]
    assert [one is not None for one in kept] == [True] * 3
    theirs = [repeats.known(thieves[n % keys], one, WISH) for n, one in enumerate(made)]
    held = sum(one is not None for one in theirs)
    assert 0 < held <= COMMANDS_MAX
    assert held * len(command.payload) <= BYTES_MAX
    assert theirs[-1] is not None
    assert theirs[0] is None


def test_who_holds_most_gives_way_and_what_is_dropped_takes_no_room(
    repeats: Repeats, victim: Bearer
):
    thieves = [bearer(of("carl").child()) for _ in range(3)]
    command = signed(thieves[0], OURS[0])
    for number in range(2 * COMMANDS_MAX):
        command_id = chance(COMMAND_ID_BYTES)
        repeats.keep(thieves[number % 3], command_id, WISH, command, is_given=True)
        if number % 3:
            repeats.drop(thieves[number % 3], command_id)
    assert all(repeats.known(victim, command_id, WISH) for command_id in OURS)


def test_of_what_one_holds_goes_first_what_no_id_was_given_for_and_of_that_what_was_not_sent(
    repeats: Repeats, victim: Bearer
):
    lost = chance(COMMAND_ID_BYTES)
    repeats.keep(victim, lost, WISH, signed(victim, lost), is_given=False)
    told = [chance(COMMAND_ID_BYTES) for _ in range(2 * COMMANDS_MAX)]
    for command_id in told:
        repeats.keep(victim, command_id, WISH, {"detail": "already ended"}, is_given=False)
    assert all(repeats.known(victim, command_id, WISH) for command_id in (*OURS, lost))
    assert repeats.known(victim, told[-1], WISH)
    assert repeats.known(victim, told[0], WISH) is None
    given = [chance(COMMAND_ID_BYTES) for _ in range(COMMANDS_MAX)]
    for command_id in given:
        repeats.keep(victim, command_id, WISH, {"detail": "already ended"}, is_given=True)
    assert all(repeats.known(victim, command_id, WISH) for command_id in given)
    assert not any(repeats.known(victim, one, WISH) for one in (*OURS, lost, *told))


def test_of_what_no_id_was_given_for_an_answered_order_goes_before_one_that_is_not(victim: Bearer):
    repeats = Repeats()
    answered, lost = chance(COMMAND_ID_BYTES), chance(COMMAND_ID_BYTES)
    for command_id in (lost, answered):
        repeats.keep(victim, command_id, WISH, signed(victim, command_id), is_given=False)
    for command_id in (answered, chance(COMMAND_ID_BYTES)):  # of one that is dropped by now, too
        repeats.answered(victim, command_id)
    assert repeats.known(victim, answered, WISH) == signed(victim, answered)
    for _ in range(COMMANDS_MAX - 1):
        command_id = chance(COMMAND_ID_BYTES)
        repeats.keep(victim, command_id, WISH, signed(victim, command_id), is_given=True)
    assert repeats.known(victim, answered, WISH) is None
    assert repeats.known(victim, lost, WISH)
