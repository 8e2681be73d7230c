"""What one neighbour can make a node send with frames that cost it nothing."""

from random import Random

import pytest

from meshnode.core.effects import Effect, Send
from meshnode.core.feeds.heads import Head
from meshnode.core.feeds.messages import Pulse
from meshnode.core.ids import NodeId
from meshnode.core.links.broadcast import GRAFT_S, PARENTS, SOURCES, Broadcast

NEWS = Pulse(1)  # stands for a flush
SELF, BAD = NodeId("self"), NodeId("bad")
HONEST = [NodeId(f"honest{number}") for number in range(5)]
ORIGINS = [NodeId(f"origin{number}") for number in range(40)]
STEP_S = 0.01
STEPS = 3000
HELD = Head(1, 5)


def held(_origin: NodeId) -> Head:
    return HELD


@pytest.fixture
def broadcast() -> Broadcast:
    """Know all origins by honest neighbours, each of whom brings some, with one beside them."""
    broadcast = Broadcast(SELF, held)
    for peer in (*HONEST, BAD):
        broadcast.linked(peer)
    for number, origin in enumerate(ORIGINS):
        broadcast.forward(NEWS, origin, HELD, HONEST[number % len(HONEST)])
    broadcast.take_queued()
    return broadcast


def sends_to(effects: list[Effect], *peers: NodeId) -> int:
    return sum(isinstance(one, Send) and one.peer in peers for one in effects)


@pytest.mark.parametrize("seed", range(5))
def test_made_up_announcements_grafts_and_prunes_are_answered_to_their_sender_alone(
    broadcast: Broadcast, seed: int
):
    chance, got, back = Random(seed), 0, 0
    seq = HELD.seq
    for step in range(STEPS):
        now_s = step * STEP_S
        some = chance.sample(ORIGINS, chance.randint(1, len(ORIGINS)))
        got += 1
        match chance.randrange(4):
            case 0:
                seq += chance.randint(0, 3)  # ever newer, so that each is worth asking for again
                broadcast.announced(BAD, dict.fromkeys(some, Head(1, seq)), now_s)
            case 1:
                effects = broadcast.pruned(BAD, some)
                assert sends_to(effects, *HONEST) == 0
                back += sends_to(effects, BAD)
            case 2:
                broadcast.grafted(BAD, some if chance.random() < 0.9 else ())
            case 3:  # news that everybody has
                effects = broadcast.duplicate(BAD, some[0])
                assert sends_to(effects, *HONEST) == 0
                back += sends_to(effects, BAD)
        asks = broadcast.grafts(now_s)
        assert set(asks) <= {BAD}, "nobody else is asked for what it made up"
        back += len(asks)
        assert not broadcast.queued
    assert 0 < back <= got
    asked_s = STEPS * STEP_S
    assert back <= STEPS / 3 + asked_s / GRAFT_S * len(ORIGINS)


@pytest.mark.parametrize("seed", range(3))
def test_true_news_behind_a_prune_bring_two_grafts_at_most_and_go_on_once(
    broadcast: Broadcast, seed: int
):
    chance = Random(seed)
    for number in range(200):
        origin = chance.choice(ORIGINS)
        back = broadcast.pruned(BAD, ORIGINS)
        assert len(back) == sends_to(back, BAD) == (number > 0), "however many origins"
        effects = broadcast.forward(NEWS, origin, Head(1, HELD.seq + 1 + number), BAD)
        assert sends_to(effects, BAD) <= 1
        assert sends_to(effects, *HONEST) <= len(HONEST)
        assert len(effects) <= 1 + len(HONEST)


def test_a_link_that_comes_and_goes_costs_a_few_frames_each_time(broadcast: Broadcast):
    for number in range(50):
        for origin in ORIGINS:
            broadcast.forward(NEWS, origin, Head(1, HELD.seq + 1 + number), BAD)
        gone = broadcast.unlinked(BAD)
        assert sends_to(gone, BAD) == 0
        assert len(gone) <= PARENTS + SOURCES, "however many origins it had brought"
        assert len(broadcast.linked(BAD)) <= 1
    assert broadcast.next_graft_s() is None
    assert broadcast.grafts(0.0) == {}
