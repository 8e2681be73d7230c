"""Links between two nodes over real TLS: one a pair, whatever happens to its streams."""

import asyncio
import time

import grpc.aio
import pytest
from integration.rpc.fleet import WAIT_S
from integration.rpc.stations import flows, link, station

from meshnode.core.feeds.messages import Farewell
from meshnode.rpc import share
from meshnode.v1 import link_service_pb2 as pb
from meshnode.wire.links import Introduction, introduction_to_wire


@pytest.mark.parametrize("dialler", [0, 1])
async def test_a_link_carries_messages_both_ways(pair, dialler):
    one, other = pair[dialler], pair[1 - dialler]
    await link(one, other)
    await flows(one, other, 1)
    assert one.heard.events[:2] == [
        ("learned", other.node_id, ("192.0.2.1:1",)),
        ("linked", other.node_id, True),
    ]
    assert other.heard.events[1] == ("linked", one.node_id, False)


async def test_messages_keep_their_order(pair):
    anna, bert = pair
    await link(anna, bert)
    anna.send(bert, *range(500))
    await bert.told(499)
    assert bert.numbers() == list(range(500))


async def test_a_node_held_up_over_a_frame_hears_whoever_sent_it_as_before(pair, monkeypatch):
    """As when it is stopped, swapped out or starved: nobody owes it that time."""
    monkeypatch.setattr(share, "HELD_UP_S", 0.05)
    monkeypatch.setattr(share, "BURST_S", 0.1)
    monkeypatch.setattr(share, "SHARE", 0.001)  # what is owed takes a thousand times as long
    anna, bert = pair
    anna.links._shares = share.Shares()
    await link(anna, bert)
    taken = anna.heard.received

    def held_up(peer, message) -> None:
        time.sleep(0.3)  # the stall itself
        taken(peer, message)

    monkeypatch.setattr(anna.heard, "received", held_up)
    bert.send(anna, 1)
    await anna.told(1)
    monkeypatch.setattr(anna.heard, "received", taken)
    await flows(anna, bert, 2)
    anna.links.hang_up(bert.node_id, "silent")
    await bert.heard.heard("unlinked")
    bert.dial(anna)
    await bert.heard.heard("linked", 2)
    await flows(anna, bert, 4)


async def test_both_dial_at_once_and_one_link_remains_at_both_ends(stations):
    for _ in range(5):
        anna, bert = await stations(2)
        anna.dial(bert)
        bert.dial(anna)
        await anna.heard.until(lambda one=anna: True in one.heard.all("linked"))
        await bert.heard.until(lambda one=bert: False in one.heard.all("linked"))
        await flows(anna, bert, 1)
        await bert.heard.until(lambda one=bert: one.balance == 1)
        await anna.heard.until(lambda one=anna: one.balance == 1)
        # The stream that stayed is the one that the lower node id dialled, at both ends alike.
        assert anna.heard.all("linked")[-1] is True
        assert bert.heard.all("linked")[-1] is False
        assert anna.heard.all("dial_failed") == bert.heard.all("dial_failed") == []


@pytest.mark.parametrize("restarted", [0, 1])
@pytest.mark.parametrize("dialler", [0, 1])
async def test_a_restarted_peer_replaces_its_old_stream_at_once(mesh, pair, restarted, dialler):
    """The old process is still there, as after a power cut that no packet told of."""
    await link(pair[dialler], pair[1 - dialler])
    old, other = pair[restarted], pair[1 - restarted]
    async with station(mesh, old.member, boot=2) as new:
        new.dial(other)
        await new.heard.heard("linked")
        await other.heard.heard("linked", 2)
        await flows(new, other, 10)
        assert other.heard.all("unlinked") == ["replaced"]
        assert (other.balance, new.balance) == (1, 1)
        await old.heard.heard("unlinked")
        assert old.balance == 0


@pytest.mark.parametrize("who", [0, 1])
async def test_hanging_up_says_why_and_each_side_is_told_once(pair, who):
    await link(*pair)
    one, other = pair[who], pair[1 - who]
    one.links.hang_up(other.node_id, "links enough")
    assert await one.heard.heard("unlinked") == "links enough"
    assert await other.heard.heard("unlinked") == "links enough"
    await one.quiet()
    await other.quiet()
    assert Farewell("links enough") in other.heard.all("received")
    assert len(one.heard.all("unlinked")) == len(other.heard.all("unlinked")) == 1
    assert one.heard.all("refused") == other.heard.all("refused") == []


async def test_what_was_queued_after_hanging_up_is_not_sent(pair):
    anna, bert = pair
    await link(anna, bert)
    anna.links.hang_up(bert.node_id, "enough")
    anna.send(bert, 7)
    await bert.heard.heard("unlinked")
    await bert.quiet()
    assert bert.numbers() == []


@pytest.mark.parametrize("who", [0, 1])
async def test_what_waits_at_a_parting_is_told_before_the_farewell(pair, who, monkeypatch):
    for bound in ("PARTING_S", "LAST_WORDS_S"):  # a busy machine does not tell 500 in half a second
        monkeypatch.setattr(f"meshnode.rpc.links.{bound}", WAIT_S)
    await link(*pair)
    one, other = pair[who], pair[1 - who]
    one.send(other, *range(500))
    one.links.hang_up(other.node_id, "links enough", parting=True)
    one.send(other, 1000)
    assert one.heard.all("unlinked") == ["links enough"]
    assert await other.heard.heard("unlinked") == "links enough"
    await one.quiet()
    await other.quiet()
    assert other.numbers() == list(range(500))
    assert other.heard.all("received")[-1] == Farewell("links enough")


@pytest.mark.parametrize("who", [0, 1])
async def test_a_farewell_overtakes_what_waits_unless_it_is_a_parting(pair, who):
    await link(*pair)
    one, other = pair[who], pair[1 - who]
    one.send(other, *range(500))
    one.links.hang_up(other.node_id, "silent")
    assert await other.heard.heard("unlinked") == "silent"
    await other.quiet()
    assert other.numbers() == []


async def test_a_pair_may_link_again_after_hanging_up(pair):
    anna, bert = pair
    await link(anna, bert)
    bert.links.hang_up(anna.node_id, "enough")
    await anna.heard.heard("unlinked")
    bert.dial(anna)
    await anna.heard.heard("linked", 2)
    await bert.heard.heard("linked", 2)
    await flows(anna, bert, 1)


async def test_closing_takes_leave_of_every_peer(stations):
    anna, bert, carl = await stations(3)
    await link(anna, bert)
    carl.dial(anna)
    await carl.heard.heard("linked")
    await anna.heard.heard("linked", 2)
    anna.links.close()
    for peer in (bert, carl):
        assert await peer.heard.heard("unlinked") == "going down"
    assert anna.heard.all("unlinked") == ["closed", "closed"]


async def test_a_killed_server_is_told_as_unlinked(pair):
    anna, bert = pair
    await link(anna, bert)
    await bert.server.stop(0)
    assert await anna.heard.heard("unlinked") == "reset"
    await anna.quiet()
    await bert.quiet()
    assert len(anna.heard.all("unlinked")) == len(bert.heard.all("unlinked")) == 1


async def test_a_stream_that_grpc_gives_up_on_our_own_side_is_told_as_unlinked(pair):
    anna, bert = pair

    async def frames():
        yield pb.LinkRequest(frame=introduction_to_wire(Introduction(1, ())))
        raise grpc.aio.BaseError  # what it raises when a server stops under a reader

    answers = anna.links.serve(bert.node_id, frames())
    assert (await anext(answers)).frame.HasField("introduction")
    assert await anext(answers, None) is None
    assert anna.heard.all("unlinked") == ["reset"]


async def test_a_killed_dialler_is_told_as_unlinked(pair):
    anna, bert = pair
    await link(anna, bert)
    for task in list(anna.tasks):
        task.cancel()
    assert await bert.heard.heard("unlinked") == "reset"
    await bert.quiet()


async def test_a_dial_to_a_dead_port_says_so_in_words(pair):
    anna, bert = pair
    await bert.server.stop(0)
    anna.dial(bert)
    reason = await anna.heard.heard("dial_failed")
    assert reason.startswith(f"{bert.address}: ")
    assert "Connection refused" in reason
    assert anna.heard.all("linked") == []


async def test_every_address_is_tried_and_named(pair):
    anna, bert = pair
    dead = bert.address
    await bert.server.stop(0)
    anna.dial(bert, dead, f"localhost:{dead.partition(':')[2]}")
    reason = await anna.heard.heard("dial_failed")
    assert dead in reason
    assert "localhost" in reason


async def test_a_later_address_that_answers_is_enough(pair, stations):
    anna, bert = pair
    (gone,) = await stations(1)
    await gone.server.stop(0)
    anna.dial(bert, gone.address, bert.address)
    await anna.heard.heard("linked")
    assert anna.heard.all("dial_failed") == []


async def test_an_address_that_did_not_answer_is_tried_after_those_that_may(pair, stations):
    """A machine that moved is found where it was last heard of, whatever it said before."""
    anna, bert = pair
    (carl,) = await stations(1)
    anna.dial(bert, carl.address)  # carl is there, and is not bert
    await anna.heard.heard("dial_failed")
    await carl.server.stop(0)
    anna.dial(bert, carl.address, "127.0.0.1:1")
    reason = await anna.heard.heard("dial_failed", 2)
    assert reason.index("127.0.0.1:1:") < reason.index(carl.address)


async def test_a_dial_without_addresses_fails_with_a_reason(pair):
    anna, bert = pair
    anna.links.dial(bert.node_id, (), anna.member.identity)
    assert await anna.heard.heard("dial_failed") == "no address is known"


async def test_a_dial_that_fails_in_a_way_that_nobody_foresaw_is_told_and_logged(
    pair, monkeypatch, caplog
):
    anna, bert = pair
    there = anna.member.identity.channel

    def channel(peer, address):
        if address == "a:1":
            raise ValueError("no leaf today")
        return there(peer, address)

    monkeypatch.setattr(anna.member.identity, "channel", channel)
    anna.dial(bert, "a:1")
    assert await anna.heard.heard("dial_failed") == "a:1: no leaf today"
    assert "Traceback" in caplog.text
    anna.dial(bert, "a:1", bert.address)
    await anna.heard.heard("linked")
    assert anna.escaped == []


async def test_a_dial_that_finds_another_node_fails(stations):
    anna, bert, carl = await stations(3)
    anna.dial(bert, carl.address)
    assert (await anna.heard.heard("dial_failed")).startswith(carl.address)
    assert carl.heard.events == []


async def test_who_falls_silent_hangs_up_and_dials_nobody(pair):
    anna, bert = pair
    await link(anna, bert)
    anna.links.fall_silent("another machine goes on")
    assert await bert.heard.heard("unlinked") == "another machine goes on"
    anna.dial(bert)
    await anna.quiet()
    await bert.quiet()
    assert len(bert.heard.all("linked")) == len(anna.heard.all("linked")) == 1


async def test_a_dial_under_way_makes_no_link_once_its_node_has_fallen_silent(pair):
    anna, bert = pair
    anna.dial(bert)
    await asyncio.sleep(0)  # it has begun
    anna.links.fall_silent("another machine goes on")
    await anna.quiet()
    assert anna.heard.all("linked") == []
