"""What a relay between a sender and an owner can do to what it carries: drop it, or delay it."""

import asyncio

import pytest
from integration.attacks.relays import GENESIS, OUTPUT, ROOT, SECRET, SESSION, Town, chance
from msgspec.structs import replace

from meshnode.app.commands import lanes, relaying
from meshnode.app.sessions.readings import IDLE_S
from meshnode.core.commands.commands import receipt_from_signed
from meshnode.core.control.entries import Revoke, sign_entry
from meshnode.core.errors import (
    NoAnswerError,
    NotAuthenticatedError,
    NotPermittedError,
    PeerError,
)
from meshnode.core.feeds.messages import Order, Reply, Routed
from meshnode.core.keys import Key
from meshnode.core.links.relay import ORDERS_OF_SENDER_MAX

FLIPS = range(0, 60, 7)  # places in what is sealed: the ephemeral key, and what follows it


@pytest.fixture
async def town(monkeypatch) -> Town:
    monkeypatch.setattr(relaying, "AGAIN_S", 0.0)
    return Town()


def flipped(sealed: bytes, place: int) -> bytes:
    return sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]


def orders(town: Town) -> list[Routed]:
    """Keep the orders that pass rita, and change nothing."""
    kept: list[Routed] = []

    def look(routed: Routed) -> Routed:
        if isinstance(routed.body, Order):
            kept.append(routed)
        return routed

    town.lie = look
    return kept


async def test_an_honest_relay_brings_the_command_and_its_receipt(town: Town):
    command = town.command()
    receipt = receipt_from_signed(await town.submit(command), town.otto.key.public)
    assert (receipt.command_hash, receipt.outcome) == (command.hash, "delivered")
    assert town.otto.agents.steered == [(SESSION.session_id, None, SECRET)]


async def test_a_relay_that_reads_finds_nothing_of_the_command_in_its_frames(town: Town):
    command = town.command()
    signed = await town.submit(command)
    seen = b"".join(town.frames)
    assert len(town.frames) == 4
    for hidden in (
        SECRET.encode(),
        SESSION.session_id.encode(),
        b"steer",
        b"delivered",
        command.payload[:40],
        command.signature,
        signed.payload[:40],
        signed.signature,
    ):
        assert hidden not in seen
    assert town.otto.node_id.encode() in seen  # the route is what it does see


async def test_a_relay_that_reads_finds_nothing_of_a_sessions_output(town: Town):
    command = town.command("read_messages")
    reading = town.anna.relaying.read(town.otto.node_id, command, 5.0)
    assert [piece async for piece in reading] == OUTPUT
    seen = b"".join(town.frames)
    assert not [piece for piece in OUTPUT if piece in seen]


@pytest.mark.parametrize("place", FLIPS)
async def test_a_command_that_a_relay_changed_is_refused_by_its_owner(town: Town, place: int):
    def lie(routed: Routed) -> Routed:
        match routed.body:
            case Order(number, sealed):
                return replace(routed, body=Order(number, flipped(sealed, place)))
        return routed

    town.lie = lie
    with pytest.raises(NoAnswerError, match="did not answer; a node"):
        await town.submit(town.command())
    town.nothing_happened()


@pytest.mark.parametrize("place", FLIPS)
async def test_a_receipt_that_a_relay_changed_is_refused_by_the_sender(town: Town, place: int):
    def lie(routed: Routed) -> Routed:
        match routed.body:
            case Reply(number, sealed, error):
                return replace(routed, body=Reply(number, flipped(sealed, place), error))
        return routed

    town.lie = lie
    command = town.command()
    with pytest.raises(NoAnswerError, match="changed on its way") as failure:
        await town.submit(command)
    assert "--command-id" in failure.value.hint
    town.lie = lambda routed: routed
    receipt = receipt_from_signed(await town.submit(command), town.otto.key.public)
    assert receipt.command_hash == command.hash
    assert len(town.otto.agents.steered) == 1  # sent again with the same id: done once


async def test_a_relay_that_answers_in_the_owners_place_convinces_nobody(town: Town):
    def lie(routed: Routed) -> Routed | None:
        if isinstance(routed.body, Order):
            fake = Reply(routed.body.number, b"", ("not_permitted", "otto forbids it", ""))
            back = (town.rita.node_id, town.anna.node_id)
            town.carry_from_rita(Routed(back, 1, fake))
            return None
        return routed

    town.lie = lie
    with pytest.raises(NoAnswerError, match="on the way says: otto forbids it"):
        await town.submit(town.command())
    town.nothing_happened()


@pytest.mark.parametrize("code", ["unreachable", "refused"])
async def test_a_relay_that_denies_what_it_passed_on_is_not_believed(town: Town, code: str):
    """Told as `unreachable`, the user would order it again, and the agent would be told twice."""

    def lie(routed: Routed) -> Routed:
        if isinstance(routed.body, Reply):
            denied = (code, "no path leads there", "")
            return replace(routed, body=Reply(routed.body.number, b"", denied))
        return routed

    town.lie = lie
    command = town.command()
    with pytest.raises(NoAnswerError, match="no path leads there"):
        await town.submit(command)
    assert len(town.otto.agents.steered) == 1
    town.lie = lambda routed: routed
    assert receipt_from_signed(await town.submit(command), town.otto.key.public)
    assert len(town.otto.agents.steered) == 1


async def test_a_relay_that_changes_one_answer_has_it_asked_for_again(town: Town):
    changed: list[Routed] = []

    def lie(routed: Routed) -> Routed:
        if isinstance(routed.body, Reply) and not changed:
            changed.append(routed)
            return replace(routed, body=Reply(routed.body.number, flipped(routed.body.sealed, 40)))
        return routed

    town.lie = lie
    await town.submit(town.command())
    assert (len(changed), len(town.otto.agents.steered)) == (1, 1)


async def test_a_relay_that_replays_an_order_changes_nothing_more(town: Town):
    kept = orders(town)
    await town.submit(town.command())
    for _ in range(3):
        town.deliver(town.rita.node_id, town.otto.node_id, kept[0])
        await town.settled()
    assert len(town.otto.agents.steered) == 1
    assert sum(town.otto.journal.begun.values()) == 1
    assert town.anna.relaying._waiting == {}


async def test_a_relay_that_replays_an_order_under_another_number_gets_nowhere(town: Town):
    kept: list[Routed] = []
    town.lie = kept.append
    with pytest.raises(TimeoutError):
        await town.submit(town.command(), 0.05)
    (order,) = kept
    assert isinstance(order.body, Order)
    town.lie = lambda routed: routed
    other = replace(order, body=replace(order.body, number=order.body.number + 1))
    town.deliver(town.rita.node_id, town.otto.node_id, other)
    await town.settled()
    town.nothing_happened()


async def test_a_relay_that_sends_an_order_to_another_owner_gets_nowhere(town: Town):
    def lie(routed: Routed) -> Routed | None:
        if isinstance(routed.body, Order):
            route = (town.anna.node_id, town.rita.node_id, town.olga.node_id)
            town.deliver(town.rita.node_id, town.olga.node_id, replace(routed, route=route))
            return None
        return routed

    town.lie = lie
    with pytest.raises(NoAnswerError, match="did not answer; a node"):
        await town.submit(town.command())
    town.nothing_happened()


async def test_a_relay_that_names_itself_as_the_sender_gets_nowhere(town: Town):
    def lie(routed: Routed) -> Routed | None:
        if isinstance(routed.body, Order):
            route = (town.rita.node_id, town.otto.node_id)
            town.deliver(town.rita.node_id, town.otto.node_id, replace(routed, route=route, at=1))
            return None
        return routed

    town.lie = lie
    with pytest.raises(TimeoutError):
        await town.submit(town.command(), 0.1)
    town.nothing_happened()


async def test_the_delivering_member_is_the_sender_whatever_the_way(town: Town):
    command = town.command(key=Key(bytes(32)), via=town.anna.node_id)
    await town.submit(command)
    assert len(town.otto.agents.steered) == 1


@pytest.mark.parametrize("gateway", ["rita", "olga"])
async def test_a_key_bound_to_another_gateway_is_refused_over_relays_too(town: Town, gateway: str):
    bound = getattr(town, gateway).node_id
    with pytest.raises(NotPermittedError):
        await town.submit(town.command(key=Key(bytes(32)), via=bound))
    town.nothing_happened()


async def test_what_a_relay_drops_ends_with_the_deadline_and_leaves_nothing(town: Town):
    town.lie = lambda _: None
    with pytest.raises(TimeoutError):
        await town.submit(town.command(), 0.1)
    assert town.anna.relaying._waiting == {}
    town.nothing_happened()


async def test_a_relay_that_answers_with_anothers_receipt_is_found_out(town: Town):
    replies: list[Reply] = []

    def keep(routed: Routed) -> Routed:
        if isinstance(routed.body, Reply):
            replies.append(routed.body)
        return routed

    town.lie = keep
    await town.submit(town.command())

    def swap(routed: Routed) -> Routed:
        if isinstance(routed.body, Reply):
            return replace(routed, body=replace(replies[0], number=routed.body.number))
        return routed

    town.lie = swap
    with pytest.raises(NoAnswerError, match="changed on its way"):
        await town.submit(town.command())


async def test_a_member_that_floods_a_relay_leaves_room_for_others(town: Town, monkeypatch):
    monkeypatch.setattr(relaying, "TRIES", 1)
    monkeypatch.setattr(lanes, "OF_SESSION_MAX", 1000)  # the relay's share is meant, not theirs
    town.otto.agents.gate = asyncio.Event()  # the owner answers nobody for a while
    flood = [
        asyncio.create_task(town.olga.relaying.submit(town.otto.node_id, town.command()))
        for _ in range(4 * ORDERS_OF_SENDER_MAX)
    ]
    for _ in range(200):
        await asyncio.sleep(0)
    refused = [one for one in flood if one.done()]
    assert len(refused) == 3 * ORDERS_OF_SENDER_MAX
    assert all("of one sender are under way" in str(one.exception()) for one in refused)
    mine = asyncio.create_task(town.submit(town.command()))
    for _ in range(200):
        await asyncio.sleep(0)
    town.otto.agents.gate.set()
    assert await mine
    await asyncio.gather(*flood, return_exceptions=True)
    assert len(town.otto.agents.steered) == ORDERS_OF_SENDER_MAX + 1


async def test_who_sends_more_than_its_share_at_once_gets_all_of_it_through(
    town: Town, monkeypatch
):
    monkeypatch.setattr(relaying, "AGAIN_S", 0.01)
    monkeypatch.setattr(lanes, "OF_SESSION_MAX", 1000)
    commands = [town.command() for _ in range(2 * ORDERS_OF_SENDER_MAX)]
    receipts = await asyncio.gather(*map(town.submit, commands))
    assert len({receipt.hash for receipt in receipts}) == len(commands)
    assert len(town.otto.agents.steered) == len(commands)


async def test_output_is_not_read_without_the_right_to_it(town: Town):
    reading = town.anna.relaying.read(town.otto.node_id, town.command("steer"), 5.0)
    with pytest.raises(Exception, match="this call reads"):
        await anext(reading)
    town.nothing_happened()


async def test_who_reads_slowly_gets_all_of_it_however_long_the_command_lives(town: Town):
    command = town.command("read_messages")
    read = []
    async for piece in town.anna.relaying.read(town.otto.node_id, command, 5.0):
        read.append(piece)
        for _ in range(20):  # a steady clock that stood still would close what nobody goes on with
            town.clock.now_s += IDLE_S
            for reading in town.otto.readings._open.values():
                reading.used_at_s = town.clock.steady_s()
    assert read == OUTPUT


async def test_a_reading_ends_when_what_it_stands_on_is_revoked(town: Town):
    reading = town.anna.relaying.read(town.otto.node_id, town.command("read_messages"), 5.0)
    assert await anext(reading) == OUTPUT[0]
    body, now_s = Revoke("grant", bytes(16)), int(town.clock.now_s)
    said = {"issued_s": now_s, "expires_s": now_s + 86400}
    town.otto.control.add(sign_entry(ROOT, GENESIS.mesh_id, body, chance, **said), now_s)
    with pytest.raises(NotAuthenticatedError):
        await anext(reading)


async def test_a_relay_that_replays_a_reading_disturbs_it_not(town: Town):
    kept = orders(town)
    reading = town.anna.relaying.read(town.otto.node_id, town.command("read_messages"), 5.0)
    read = [await anext(reading), await anext(reading)]
    town.deliver(town.rita.node_id, town.otto.node_id, kept[0])
    await town.settled()
    read.append(await anext(reading))
    assert read == OUTPUT
    assert town.otto.reads == 1


async def test_a_relay_that_loses_pieces_is_asked_again(town: Town, monkeypatch):
    monkeypatch.setattr(relaying, "PIECE_S", 0.05)
    lost: list[Routed] = []

    def lie(routed: Routed) -> Routed | None:
        if isinstance(routed.body, Reply) and len(lost) < 2:
            lost.append(routed)
            return None
        return routed

    town.lie = lie
    reading = town.anna.relaying.read(town.otto.node_id, town.command("read_messages"), 5.0)
    assert [piece async for piece in reading] == OUTPUT
    assert (len(lost), town.otto.reads) == (2, 1)


async def test_an_order_larger_than_any_command_is_no_frame(town: Town):
    route = (town.rita.node_id, town.otto.node_id)
    with pytest.raises(PeerError, match="bytes sealed"):
        town.deliver(
            town.rita.node_id, town.otto.node_id, Routed(route, 1, Order(7, bytes(80_000)))
        )
    town.nothing_happened()
