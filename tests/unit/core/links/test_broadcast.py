"""Who sends news to whom, and who announces them."""

import pytest

from meshnode.core.effects import Send
from meshnode.core.feeds.heads import NOTHING, Head
from meshnode.core.feeds.messages import Have, Message, Prune, Pull, Pulse, Vector
from meshnode.core.ids import NodeId
from meshnode.core.links.broadcast import (
    ANNOUNCERS_MAX,
    GRAFT_S,
    MISSING_MAX,
    MISSING_OF_ONE_MAX,
    SOURCES,
    Broadcast,
    spread,
)

NEWS = Pulse(1)  # stands for a flush: what it carries is nobody's business here
SELF, ORIGIN, OTHER = NodeId("self"), NodeId("origin"), NodeId("other")
PEERS = [NodeId(f"peer{number}") for number in range(6)]
ONE = Head(1, 1)


@pytest.fixture
def held() -> dict[NodeId, Head]:
    return {}


@pytest.fixture
def broadcast(held: dict[NodeId, Head]) -> Broadcast:
    broadcast = Broadcast(SELF, lambda origin: held.get(origin, NOTHING))
    for peer in PEERS:
        broadcast.linked(peer)
    return broadcast


def sent(effects: list) -> dict[NodeId, Message]:
    assert all(isinstance(effect, Send) for effect in effects)
    return {effect.peer: effect.message for effect in effects}


def test_a_flood_goes_to_everybody_but_where_it_came_from():
    assert sent(spread(NEWS, PEERS, PEERS[0])).keys() == set(PEERS[1:])
    assert sent(spread(NEWS, PEERS, None)).keys() == set(PEERS)


def test_the_first_news_of_an_origin_go_to_everybody(broadcast: Broadcast):
    assert sent(broadcast.forward(NEWS, ORIGIN, ONE, PEERS[0])).keys() == set(PEERS[1:])
    assert not broadcast.queued


def test_a_duplicate_takes_its_link_out_of_the_tree_of_its_origin_only(broadcast: Broadcast):
    for origin in (ORIGIN, OTHER):
        broadcast.forward(NEWS, origin, ONE, PEERS[0])
    pruning = sent(broadcast.duplicate(PEERS[1], ORIGIN))
    assert pruning == {PEERS[1]: Prune(frozenset({ORIGIN}))}
    assert sent(broadcast.forward(NEWS, ORIGIN, Head(1, 2), PEERS[0])).keys() == set(PEERS[2:])
    assert sent(broadcast.forward(NEWS, OTHER, Head(1, 2), PEERS[0])).keys() == set(PEERS[1:])
    assert sent(broadcast.take_queued()) == {PEERS[1]: Have({ORIGIN: Head(1, 2)})}
    assert broadcast.take_queued() == []


def test_who_brings_the_news_of_an_origin_is_not_pruned_when_a_repair_was_faster_once(
    broadcast: Broadcast,
):
    broadcast.forward(NEWS, ORIGIN, ONE, PEERS[0])
    assert broadcast.duplicate(PEERS[0], ORIGIN) == []
    assert broadcast.duplicate(PEERS[1], ORIGIN) != []


def test_who_was_pruned_and_brings_the_next_news_first_shall_go_on(broadcast: Broadcast):
    broadcast.forward(NEWS, ORIGIN, ONE, PEERS[0])
    broadcast.duplicate(PEERS[1], ORIGIN)  # whose next news are on their way already
    reached = sent(broadcast.forward(NEWS, ORIGIN, Head(1, 2), PEERS[1]))
    assert reached[PEERS[1]] == Pull({ORIGIN: Head(1, 2)}, graft=True)
    assert broadcast.duplicate(PEERS[1], ORIGIN) == []
    again = sent(broadcast.forward(NEWS, ORIGIN, Head(1, 3), PEERS[1]))
    assert PEERS[1] not in again, "asked once"


def test_who_brings_the_news_of_an_origin_and_will_not_have_ours_is_asked_to_go_on(
    broadcast: Broadcast, held: dict[NodeId, Head]
):
    broadcast.forward(NEWS, ORIGIN, ONE, PEERS[0])
    broadcast.forward(NEWS, OTHER, ONE, PEERS[1])
    held[ORIGIN] = ONE
    for _ in range(2):  # what crosses on the way may bring a second one
        asked = sent(broadcast.pruned(PEERS[0], {ORIGIN, OTHER}))
        assert asked == {PEERS[0]: Pull({ORIGIN: ONE}, graft=True)}
    reached = sent(broadcast.forward(NEWS, ORIGIN, Head(1, 2), PEERS[2]))
    assert PEERS[0] in reached, "a link is open both ways, or not at all"
    assert broadcast.pruned(PEERS[5], {ORIGIN}) == []


def test_no_link_is_let_go_while_nobody_is_known_to_bring_the_news(
    broadcast: Broadcast, held: dict[NodeId, Head]
):
    held[ORIGIN] = Head(1, 3)
    broadcast.forward(NEWS, ORIGIN, Head(1, 2), PEERS[0])
    broadcast.unlinked(PEERS[0])
    assert broadcast.duplicate(PEERS[1], ORIGIN) == []
    broadcast.pruned(PEERS[2], {ORIGIN})
    again = Pull({ORIGIN: Head(1, 3)}, graft=True)
    assert sent(broadcast.duplicate(PEERS[2], ORIGIN)) == {PEERS[2]: again}
    broadcast.forward(NEWS, ORIGIN, Head(1, 4), PEERS[3])
    for peer in PEERS[1:3]:
        assert sent(broadcast.duplicate(peer, ORIGIN)) == {peer: Prune(frozenset({ORIGIN}))}


def test_news_of_our_own_that_come_back_are_let_go(broadcast: Broadcast):
    assert sent(broadcast.duplicate(PEERS[1], SELF)) == {PEERS[1]: Prune(frozenset({SELF}))}


def test_news_that_have_waited_say_nothing_of_who_brings_them(broadcast: Broadcast):
    broadcast.forward(NEWS, ORIGIN, ONE, PEERS[0])
    reached = sent(broadcast.forward(NEWS, ORIGIN, Head(1, 2), PEERS[1], waited=True))
    assert reached.keys() == {PEERS[0], *PEERS[2:]}
    assert sent(broadcast.take_queued()) == {PEERS[1]: Have({ORIGIN: Head(1, 2)})}
    assert broadcast.duplicate(PEERS[0], ORIGIN) == []


def test_whoever_grafts_sends_news_that_way_too(broadcast: Broadcast):
    broadcast.forward(NEWS, ORIGIN, ONE, PEERS[0])
    broadcast.pruned(PEERS[1], {ORIGIN})
    broadcast.announced(PEERS[1], {ORIGIN: Head(1, 2)}, 10.0)
    assert PEERS[1] in broadcast.grafts(99.0)
    assert PEERS[1] in sent(broadcast.forward(NEWS, ORIGIN, Head(1, 2), PEERS[0]))


def test_announcements_that_come_together_travel_together(broadcast: Broadcast):
    for origin in (ORIGIN, OTHER):
        broadcast.forward(NEWS, origin, ONE, PEERS[0])
    broadcast.pruned(PEERS[1], {ORIGIN, OTHER})
    for seq in (2, 3):
        broadcast.forward(NEWS, ORIGIN, Head(1, seq), PEERS[0])
    broadcast.forward(NEWS, OTHER, Head(1, 2), PEERS[0])
    announced = Have({ORIGIN: Head(1, 3), OTHER: Head(1, 2)})
    assert sent(broadcast.take_queued()) == {PEERS[1]: announced}


def test_a_feed_replaced_as_a_whole_is_offered_to_all_others(broadcast: Broadcast):
    broadcast.offer(ORIGIN, ONE, PEERS[0])
    assert broadcast.queued
    offers = sent(broadcast.take_queued())
    assert offers == dict.fromkeys(PEERS[1:], Vector({ORIGIN: ONE}))


def test_nothing_is_announced_to_a_neighbour_that_says_it_has_it(broadcast: Broadcast):
    for origin in (ORIGIN, OTHER):
        broadcast.offer(origin, Head(1, 2), PEERS[0])
    broadcast.forward(NEWS, ORIGIN, ONE, PEERS[0])
    broadcast.pruned(PEERS[1], {ORIGIN})
    broadcast.forward(NEWS, ORIGIN, Head(1, 2), PEERS[0])
    broadcast.told(PEERS[1], {ORIGIN: Head(1, 2), OTHER: ONE})
    messages = [effect.message for effect in broadcast.take_queued() if effect.peer == PEERS[1]]
    assert messages == [Vector({OTHER: Head(1, 2)})]


def test_a_graft_makes_a_link_eager_again(broadcast: Broadcast):
    broadcast.forward(NEWS, ORIGIN, ONE, None)
    broadcast.pruned(PEERS[1], {ORIGIN})
    broadcast.grafted(PEERS[1], {ORIGIN})
    assert PEERS[1] in sent(broadcast.forward(NEWS, ORIGIN, Head(1, 2), None))


def test_what_strangers_say_about_unknown_origins_is_passed_over(broadcast: Broadcast):
    broadcast.pruned(NodeId("nobody"), {ORIGIN})
    broadcast.pruned(PEERS[1], {ORIGIN})
    broadcast.grafted(NodeId("nobody"), {ORIGIN})
    assert sent(broadcast.forward(NEWS, ORIGIN, ONE, None)).keys() == set(PEERS)


def test_a_new_link_is_lazy_where_there_is_a_tree_and_eager_for_our_own_news(
    broadcast: Broadcast,
):
    newcomer = NodeId("newcomer")
    for origin in (ORIGIN, SELF):
        broadcast.forward(NEWS, origin, ONE, None)
    broadcast.linked(newcomer)
    assert newcomer not in sent(broadcast.forward(NEWS, ORIGIN, Head(1, 2), None))
    assert newcomer in sent(broadcast.forward(NEWS, SELF, Head(1, 2), None))
    assert newcomer in sent(broadcast.forward(NEWS, OTHER, ONE, None))
    assert sent(broadcast.take_queued()) == {newcomer: Have({ORIGIN: Head(1, 2)})}


def test_a_node_without_others_gets_everything_unasked(broadcast: Broadcast):
    newcomer = NodeId("newcomer")
    for origin in (ORIGIN, OTHER):
        broadcast.forward(NEWS, origin, ONE, None)
    broadcast.linked(newcomer)
    broadcast.grafted(newcomer, ())
    for origin in (ORIGIN, OTHER):
        assert newcomer in sent(broadcast.forward(NEWS, origin, Head(1, 2), None))


def test_a_link_that_ends_leaves_its_place_in_no_tree(broadcast: Broadcast):
    broadcast.forward(NEWS, ORIGIN, ONE, None)
    broadcast.pruned(PEERS[1], {ORIGIN})
    broadcast.unlinked(PEERS[1])
    reached = sent(broadcast.forward(NEWS, ORIGIN, Head(1, 2), None)).keys()
    assert reached == set(PEERS) - {PEERS[1]}
    assert not broadcast.queued


def test_the_first_neighbours_are_asked_for_everything_and_replaced_when_they_go(
    held: dict[NodeId, Head],
):
    broadcast = Broadcast(SELF, held.__getitem__)
    asked = [bool(broadcast.linked(peer)) for peer in PEERS]
    assert asked == [True] * SOURCES + [False] * (len(PEERS) - SOURCES)
    (again,) = broadcast.unlinked(PEERS[0])
    assert isinstance(again, Send)
    assert again.peer in PEERS[SOURCES:]
    assert again.message == Pull({}, graft=True)
    assert broadcast.unlinked(PEERS[3]) == []


def test_what_came_over_a_lost_link_is_asked_for_elsewhere_at_once(
    broadcast: Broadcast, held: dict[NodeId, Head]
):
    broadcast.forward(NEWS, ORIGIN, ONE, PEERS[4])
    broadcast.forward(NEWS, OTHER, ONE, PEERS[3])
    for peer in PEERS[1:3]:
        broadcast.pruned(peer, {ORIGIN})
    held[ORIGIN] = Head(1, 7)
    grafts = sent(broadcast.unlinked(PEERS[4]))
    asked = Pull({ORIGIN: held[ORIGIN]}, graft=True)
    assert grafts == dict.fromkeys(PEERS[1:3], asked), "they have other parents; one may be us"
    assert broadcast.unlinked(PEERS[4]) == []


def test_missing_news_are_asked_for_once_they_are_late_and_of_one_announcer_after_the_other(
    broadcast: Broadcast,
):
    broadcast.forward(NEWS, ORIGIN, ONE, PEERS[0])
    for peer in PEERS:
        broadcast.announced(peer, {ORIGIN: ONE}, 10.0)
    assert broadcast.next_graft_s() == 10.0 + GRAFT_S
    assert broadcast.grafts(10.0 + GRAFT_S - 0.01) == {}
    asked, now_s = [], 10.0
    while (due_s := broadcast.next_graft_s()) is not None:
        assert due_s > now_s
        now_s = due_s
        for peer, origins in broadcast.grafts(now_s).items():
            assert origins == [ORIGIN]
            asked.append(peer)
    assert asked == PEERS[:ANNOUNCERS_MAX]


def test_news_that_no_neighbour_sends_are_asked_for_at_once(broadcast: Broadcast):
    broadcast.announced(PEERS[0], {ORIGIN: ONE}, 10.0)
    assert broadcast.grafts(10.0) == {PEERS[0]: [ORIGIN]}


def test_what_is_newer_than_what_was_asked_for_does_not_wait_for_that_answer(
    broadcast: Broadcast,
):
    broadcast.announced(PEERS[0], {ORIGIN: ONE}, 10.0)
    assert broadcast.grafts(10.0) == {PEERS[0]: [ORIGIN]}
    broadcast.announced(PEERS[1], {ORIGIN: ONE}, 10.1)
    assert broadcast.next_graft_s() == 10.0 + 2 * GRAFT_S
    broadcast.announced(PEERS[2], {ORIGIN: Head(1, 2)}, 10.2)
    assert broadcast.next_graft_s() == 10.2 + GRAFT_S
    broadcast.announced(PEERS[3], {ORIGIN: Head(1, 2)}, 10.3)
    assert broadcast.next_graft_s() == 10.2 + GRAFT_S
    assert broadcast.grafts(10.2 + GRAFT_S) == {PEERS[1]: [ORIGIN]}


def test_news_that_came_meanwhile_are_not_asked_for(broadcast: Broadcast, held: dict[NodeId, Head]):
    broadcast.announced(PEERS[0], {ORIGIN: ONE, OTHER: Head(1, 2)}, 10.0)
    held |= {ORIGIN: ONE, OTHER: ONE}
    assert broadcast.grafts(10.0 + GRAFT_S) == {PEERS[0]: [OTHER]}


def test_a_lost_announcer_is_not_asked(broadcast: Broadcast):
    for peer in PEERS[:2]:
        broadcast.announced(peer, {ORIGIN: ONE}, 10.0)
    broadcast.unlinked(PEERS[0])
    assert broadcast.grafts(99.0) == {PEERS[1]: [ORIGIN]}


def test_what_is_remembered_as_missing_is_bounded(broadcast: Broadcast):
    for peer in PEERS[:5]:
        many = {NodeId(f"{peer} {number}"): ONE for number in range(MISSING_OF_ONE_MAX + 10)}
        broadcast.announced(peer, many, 10.0)
    asked = broadcast.grafts(99.0)
    assert [len(one) for one in asked.values()] == [MISSING_OF_ONE_MAX] * 4
    assert sum(map(len, asked.values())) == MISSING_MAX


def test_who_makes_up_origins_leaves_room_for_what_others_announce(broadcast: Broadcast):
    made_up = {NodeId(f"origin{number}"): ONE for number in range(10_000)}
    broadcast.announced(PEERS[0], made_up, 10.0)
    broadcast.announced(PEERS[1], {ORIGIN: ONE}, 10.0)
    assert broadcast.grafts(99.0)[PEERS[1]] == [ORIGIN]
    assert broadcast.grafts(199.0) == {}  # nobody has them: forgotten
    broadcast.announced(PEERS[0], made_up, 200.0)
    assert len(broadcast.grafts(299.0)[PEERS[0]]) == MISSING_OF_ONE_MAX


def test_nobody_walks_what_is_missing_to_know_when_to_ask(broadcast: Broadcast):
    class Walked(dict):  # type: ignore[type-arg] # whatever it holds
        walks = 0

        def values(self):  # type: ignore[no-untyped-def] # as a dict's
            Walked.walks += 1
            return super().values()

    broadcast._missing = Walked()
    for number in range(500):
        broadcast.announced(PEERS[0], {NodeId(f"o{number}"): ONE}, 10.0 + number)
        assert broadcast.next_graft_s() == 10.0
    assert Walked.walks == 0
    broadcast.grafts(10.0)
    assert Walked.walks == 1
    assert broadcast.next_graft_s() == min(one.due_s for one in broadcast._missing.values())
