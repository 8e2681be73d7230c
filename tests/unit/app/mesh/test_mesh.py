"""The timers and tables between the cores of one node; whole meshes are in tests/sim."""

import pytest
from msgspec.structs import replace
from unit.app.one_mesh import (
    GENESIS,
    PEER_KEYS,
    PEERS,
    flushed,
    founded,
    hear_of,
    hear_row,
    own_links,
    wakes,
)

from meshnode.app.mesh.mesh import ASKED_OWN_MAX, LIVENESS_DELAY_S, TICK_S, Mesh
from meshnode.app.mesh.neighbours import LATE_S, LOST_MAX, REASON_CHARS_MAX, STALLED
from meshnode.app.mesh.pace import FLUSH_PAUSE_S, LINKS_DELAY_S, PATIENT_S, SPARE_PAUSE_S
from meshnode.core.effects import Answered, Effect, HangUp, Obey, Persist, Report, Send, Wake
from meshnode.core.feeds.messages import Ask, Farewell, Heard, Order, Pull, Pulse, Reply, Routed
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.snapshots import whole
from meshnode.core.ids import NodeId, short_id_of
from meshnode.core.keys import Signed
from meshnode.core.links.overlay import NEW_S
from meshnode.core.links.silence import CHECK_S, LISTEN_S, SILENT_S, VOUCHED_S
from meshnode.core.membership.members import (
    LINKS,
    NODE,
    ONLY_ROW,
    LinksRecord,
    NodeRecord,
    links_to_row,
    node_to_row,
)


@pytest.fixture
def mesh() -> Mesh:
    return founded()


def test_a_distant_timer_does_not_swallow_a_nearer_one(mesh: Mesh):
    """A member that is unreachable sets a timer for its death; news must not wait for it."""
    effects = hear_of(mesh, 0, 10.0, linked=False)
    assert max(wakes(effects).values()) == 40.0
    effects = mesh.linked(PEERS[1], 11.0, dialled=True)
    assert wakes(effects)["liveness"] == pytest.approx(11.0 + LIVENESS_DELAY_S)


def test_a_member_whose_rows_are_here_is_known_at_once(mesh: Mesh):
    feed = OwnFeed(PEER_KEYS[0], GENESIS.mesh_id, GENESIS.limits, 1)
    feed.write(NODE, ONLY_ROW, node_to_row(NodeRecord("n0", ("a:1",))))
    change = feed.flush(1.0)
    assert change is not None
    mesh.linked(PEERS[1], 1.0, dialled=False)
    mesh.received(PEERS[1], whole(change.header, feed.rows), 1.0)
    assert PEERS[0] in mesh.liveness.members()


def test_a_new_link_counts_alone_for_four_seconds_and_anew_once_it_is_made_anew(mesh: Mesh):
    hear_of(mesh, 0, 9.0, linked=False)
    mesh.linked(PEERS[0], 10.0, dialled=True)
    mesh.woken("liveness", 10.1)
    assert PEERS[0] in mesh.liveness.alive
    mesh.woken("tick", 10.0 + NEW_S - 0.1)
    mesh.woken("liveness", 14.0)
    assert PEERS[0] in mesh.liveness.alive
    effects = mesh.woken("tick", 10.0 + NEW_S)
    mesh.woken("liveness", wakes(effects)["liveness"])
    assert PEERS[0] not in mesh.liveness.alive
    mesh.unlinked(PEERS[0], "reset", 15.0)
    mesh.linked(PEERS[0], 16.0, dialled=True)
    mesh.woken("tick", 17.0)
    mesh.woken("liveness", 17.1)
    assert PEERS[0] in mesh.liveness.alive


NEAR, FAR = PEERS[:3], PEERS[3:7]


def beside_others(mesh: Mesh, *, bridged: bool) -> None:
    """Link us to three, with our row out, beside four linked to each other and perhaps to ours."""
    for number, peer in enumerate(NEAR):
        far = {FAR[0]} if bridged and number == 0 else set()
        hear_row(mesh, number, {mesh.self_id} | far, 10.0)
        mesh.linked(peer, 10.0, dialled=True)
    for number, peer in enumerate(FAR, len(NEAR)):
        near = {NEAR[0]} if bridged and peer == FAR[0] else set()
        hear_row(mesh, number, {*FAR, *near} - {peer}, 10.0)
    for tick_s in (10.0, 14.75, 15.0):  # the second comes late, and the third ages them
        mesh.woken("tick", tick_s)
    assert not mesh.liveness.graph.new_links
    flushed(mesh, 20.0)
    mesh.woken("liveness", 20.0)


def test_one_more_link_to_who_is_reached_is_told_later(mesh: Mesh):
    beside_others(mesh, bridged=True)
    assert wakes(mesh.linked(FAR[0], 20.6, dialled=True))["flush"] == 20.0 + SPARE_PAUSE_S


def test_a_link_that_was_one_more_is_told_at_once_when_it_is_the_only_way(mesh: Mesh):
    beside_others(mesh, bridged=True)
    mesh.linked(FAR[0], 20.6, dialled=True)
    effects = hear_row(mesh, 0, {mesh.self_id}, 20.8)
    assert set(FAR) <= mesh.liveness.alive, "by the new link"
    assert wakes(effects)["flush"] == pytest.approx(20.8 + LINKS_DELAY_S)
    assert not {"flush", "liveness"} & wakes(mesh.woken("liveness", 20.82)).keys()


def test_a_link_to_who_is_not_reached_is_told_at_once_however_many_are_listed_there(mesh: Mesh):
    beside_others(mesh, bridged=False)
    told_s = wakes(mesh.linked(FAR[0], 20.6, dialled=True))["flush"]
    assert told_s == pytest.approx(20.6 + LINKS_DELAY_S)


def test_a_link_grows_no_older_while_its_node_is_held_up(mesh: Mesh):
    hear_of(mesh, 0, 9.0, linked=False)
    mesh.woken("tick", 9.75)
    mesh.linked(PEERS[0], 9.9, dialled=True)
    mesh.woken("tick", 10.0 + NEW_S + 1.0)  # set for 10.0: the other end's row may lie at the door
    mesh.woken("liveness", 15.1)
    assert PEERS[0] in mesh.liveness.alive
    mesh.woken("tick", 15.25)
    mesh.woken("liveness", 15.3)
    assert PEERS[0] not in mesh.liveness.alive


def test_timers_do_not_multiply_while_somebody_is_unreachable(mesh: Mesh):
    effects = hear_of(mesh, 0, 10.0, linked=False)
    set_at = [effect.at_s for effect in effects if isinstance(effect, Wake)]
    for step in range(50):
        now_s = 11.0 + step * 0.1
        mesh.woken("liveness", now_s)
        effects = mesh.linked(PEERS[1], now_s, dialled=True)
        effects += mesh.woken("liveness", now_s + LIVENESS_DELAY_S)
        set_at += [e.at_s for e in effects if isinstance(e, Wake) and e.at_s > now_s + 5]
    assert len(set_at) <= 2


def test_the_row_of_links_names_why_the_last_few_were_lost_and_stays_small(mesh: Mesh):
    for number, peer in enumerate(PEERS):
        mesh.linked(peer, float(number), dialled=False)
        mesh.unlinked(peer, f"{number} " + "é" * 500, float(number))
        flushed(mesh, float(number))
    lost = own_links(mesh).lost
    assert set(lost) == {short_id_of(peer) for peer in PEERS[-LOST_MAX:]}
    assert all(len(reason) == REASON_CHARS_MAX for reason in lost.values())
    mesh.linked(PEERS[-1], 99.0, dialled=False)
    flushed(mesh, 99.0)
    assert short_id_of(PEERS[-1]) not in own_links(mesh).lost


def test_a_dial_that_fails_late_does_not_end_the_link_that_came_meanwhile(mesh: Mesh):
    mesh.learn(PEERS[0], ("a:1",), 1.0)
    mesh.overlay.dials(2.0)
    assert PEERS[0] in mesh.overlay._dialling
    mesh.linked(PEERS[0], 3.0, dialled=False)
    mesh.dial_failed(PEERS[0], 4.0)
    assert mesh.overlay.links == {PEERS[0]}


def test_a_neighbour_is_asked_what_it_holds_of_us_for_a_while_after_the_start(mesh: Mesh):
    asked: list[NodeId] = []
    for number in range(ASKED_OWN_MAX + 5):
        peer = PEERS[number % 3]
        for effect in mesh.linked(peer, float(number), dialled=True):
            pull = effect.message if isinstance(effect, Send) else None
            if isinstance(pull, Pull) and not pull.graft:
                assert set(pull.after) == {mesh.self_id}
                asked.append(peer)
        mesh.unlinked(peer, "reset", float(number))
    assert len(asked) == ASKED_OWN_MAX
    assert set(asked) == set(PEERS[:3])


def test_our_news_wait_for_the_disk_and_come_in_order(mesh: Mesh):
    mesh.linked(PEERS[0], 1.0, dialled=False)
    flushed(mesh, 1.0)
    mesh.write("notes", b"1", b"", 2.0)
    effects = mesh.woken("flush", 2.0)
    (first,) = [effect for effect in effects if isinstance(effect, Persist)]
    assert not [effect for effect in effects if isinstance(effect, Send)]
    mesh.write("notes", b"2", b"", 2.0)
    assert mesh.woken("flush", 2.0) == []  # the disk is busy
    effects = mesh.persisted(first.change, 3.0)
    assert first.change.flush is not None
    assert Send(PEERS[0], replace(first.change.flush, eager=True)) in effects
    assert wakes(effects)["flush"] == pytest.approx(2.0 + FLUSH_PAUSE_S, abs=1.1)
    (second,) = [e for e in mesh.woken("flush", 3.1) if isinstance(e, Persist)]
    assert second.change.header.first_seq == first.change.header.last_seq + 1


def test_what_nobody_waits_for_comes_later_or_travels_along(mesh: Mesh):
    effects = mesh.write("notes", b"1", b"", 5.0, patient=True)
    assert wakes(effects) == {"flush": 5.0 + PATIENT_S}
    assert wakes(mesh.write("notes", b"2", b"", 5.1))["flush"] < 5.0 + PATIENT_S
    (flush,) = [one for one in mesh.woken("flush", 5.2) if isinstance(one, Persist)]
    assert {key for _, key in flush.change.rows} == {b"1", b"2"}
    mesh.persisted(flush.change, 5.3)
    mesh.write("notes", b"1", b"new", 6.0, patient=True)
    assert wakes(mesh.write("notes", b"1", b"now", 6.0))["flush"] < 6.0 + PATIENT_S


def ticked(mesh: Mesh, now_s: float) -> list[Effect]:
    """Let the tick come in time."""
    mesh._wakes["tick"] = now_s
    return mesh.woken("tick", now_s)


def test_a_silent_link_is_ended_and_a_speaking_one_stays(mesh: Mesh):
    mesh.linked(PEERS[0], 0.0, dialled=False)
    mesh.linked(PEERS[1], 0.0, dialled=False)
    mesh.received(PEERS[1], Pulse(1), 2.0)
    assert mesh.woken("pulse", 3.0)[:2] == [Send(PEERS[0], Pulse(1)), Send(PEERS[1], Pulse(1))]
    effects = ticked(mesh, SILENT_S + 0.1)
    assert [e for e in effects if isinstance(e, HangUp)] == [HangUp(PEERS[0], "silent")]


def linked_with_two(mesh: Mesh) -> None:
    """Link us with two peers who are also linked with each other, and let all know it."""
    for number in (0, 1):
        mesh.linked(PEERS[number], 0.0, dialled=False)
        feed = OwnFeed(PEER_KEYS[number], GENESIS.mesh_id, GENESIS.limits, 1)
        marks = frozenset(map(short_id_of, (mesh.self_id, PEERS[1 - number])))
        feed.write(NODE, ONLY_ROW, node_to_row(NodeRecord(f"n{number}", ("a:1",))))
        feed.write(LINKS, ONLY_ROW, links_to_row(LinksRecord(marks)))
        feed.flush(1.0)
        mesh.replication.replicas[feed.origin] = feed
    mesh.recall(0.1)


def test_before_a_silent_link_is_ended_another_neighbour_is_asked(mesh: Mesh):
    linked_with_two(mesh)
    now_s = SILENT_S + 0.1
    mesh.received(PEERS[1], Pulse(1), now_s)
    asked = [e for e in ticked(mesh, now_s) if isinstance(e, Send)]
    assert asked == [Send(PEERS[1], Routed((mesh.self_id, PEERS[1]), 1, Ask(PEERS[0])))]
    heard = Routed((PEERS[1], mesh.self_id), 1, Heard(PEERS[0], 0.2))
    mesh.received(PEERS[1], heard, now_s + 0.1)
    assert not [e for e in ticked(mesh, now_s + CHECK_S) if isinstance(e, HangUp)]
    mesh.received(PEERS[1], Pulse(2), now_s + VOUCHED_S)
    ended = [e for e in ticked(mesh, now_s + VOUCHED_S) if isinstance(e, HangUp)]
    assert ended == [HangUp(PEERS[0], "silent")]


def test_who_is_asked_says_when_it_heard_its_neighbour(mesh: Mesh):
    linked_with_two(mesh)
    ask = Routed((PEERS[1], mesh.self_id), 1, Ask(PEERS[0]))
    assert mesh.received(PEERS[1], ask, 2.0) == [
        Send(PEERS[1], Routed((mesh.self_id, PEERS[1]), 1, Heard(PEERS[0], 2.0)))
    ]
    (answer,) = mesh.received(PEERS[1], replace(ask, body=Ask(PEERS[5])), 2.0)
    assert isinstance(answer, Send)
    assert isinstance(answer.message, Routed)
    assert answer.message.body == Heard(PEERS[5], None)


def test_a_node_that_was_held_up_judges_nobody_yet(mesh: Mesh):
    mesh.linked(PEERS[0], 0.0, dialled=False)
    mesh.woken("tick", 0.0)
    late_s = TICK_S + SILENT_S + LATE_S + 10
    effects = mesh.woken("tick", late_s)
    assert not [e for e in effects if isinstance(e, HangUp)]
    assert mesh.woken("tick", late_s + LISTEN_S + 0.1) != []
    mesh.woken("pulse", 20.0)
    assert mesh.lag_s > 10


def test_a_message_for_somebody_else_is_passed_on_along_its_route_only(mesh: Mesh):
    linked_with_two(mesh)
    routed = Routed((PEERS[0], mesh.self_id, PEERS[1]), 1, Ask(PEERS[5]))
    assert mesh.received(PEERS[0], routed, 1.0) == [Send(PEERS[1], replace(routed, at=2))]
    for wrong in (
        replace(routed, at=0),
        replace(routed, at=2),
        replace(routed, at=9),
        replace(routed, route=(PEERS[1], mesh.self_id, PEERS[0])),
        replace(routed, route=(PEERS[0], mesh.self_id, PEERS[0])),
        replace(routed, route=(PEERS[0], mesh.self_id, *PEERS[1:])),
    ):
        (report,) = mesh.received(PEERS[0], wrong, 1.0)
        assert isinstance(report, Report)


def test_an_order_that_cannot_be_passed_on_is_answered(mesh: Mesh):
    mesh.linked(PEERS[0], 0.0, dialled=False)
    order = Order(7, b"sealed")
    (answer,) = mesh.received(PEERS[0], Routed((PEERS[0], mesh.self_id, PEERS[1]), 1, order), 1.0)
    assert isinstance(answer, Send)
    assert isinstance(answer.message, Routed)
    assert answer.message.route == (mesh.self_id, PEERS[0])
    assert isinstance(answer.message.body, Reply)
    assert (answer.message.body.number, answer.message.body.error[0]) == (7, "unreachable")


def test_an_order_for_us_is_obeyed_and_an_answer_handed_over(mesh: Mesh):
    linked_with_two(mesh)
    order = Order(7, b"sealed")
    routed = Routed((PEERS[1], PEERS[0], mesh.self_id), 2, order)
    way_back = (mesh.self_id, PEERS[0], PEERS[1])
    assert mesh.received(PEERS[0], routed, 1.0) == [Obey(order, way_back)]
    reply = Reply(7, b"sealed answer")
    assert mesh.answer(way_back, reply) == [Send(PEERS[0], Routed(way_back, 1, reply))]
    back = Routed((PEERS[0], mesh.self_id), 1, reply)
    assert mesh.received(PEERS[0], back, 1.0) == [Answered(reply)]


def test_a_command_takes_the_shortest_way_along_links(mesh: Mesh):
    linked_with_two(mesh)
    order = Order(7, b"sealed")
    (send,) = mesh.neighbours.order(PEERS[1], order)
    assert send == Send(PEERS[1], Routed((mesh.self_id, PEERS[1]), 1, order))
    assert mesh.neighbours.order(PEERS[9], order) == []


def test_a_member_whose_machine_takes_connections_and_says_nothing_is_stalled(mesh: Mesh):
    linked_with_two(mesh)
    mesh.unlinked(PEERS[0], "silent", 5.0)
    mesh.dial_failed(PEERS[0], 9.0, stalled=True)
    flushed(mesh, 9.1)
    assert own_links(mesh).lost[short_id_of(PEERS[0])] == STALLED
    assert mesh.dial_failed(PEERS[0], 13.0, stalled=True) == []
    mesh.dial_failed(PEERS[0], 17.0)
    flushed(mesh, 17.1)
    assert own_links(mesh).lost[short_id_of(PEERS[0])] != STALLED


def test_what_breaks_the_protocol_is_reported_and_not_believed(mesh: Mesh):
    mesh.linked(PEERS[0], 0.0, dialled=False)
    effects = mesh.received(PEERS[0], Signed("control", b"\xc1", bytes(64)), 1.0)
    assert [type(effect) for effect in effects] == [Report]
    assert mesh.control.entries() == []


def test_a_frame_that_outlived_its_link_is_passed_over(mesh: Mesh):
    assert mesh.received(PEERS[0], Farewell("late"), 1.0) == []


def test_an_unknown_timer_is_a_mistake_of_ours(mesh: Mesh):
    with pytest.raises(ValueError, match="no timer"):
        mesh.woken("tea", 1.0)
