"""The timers and tables between the cores of one node; whole meshes are in tests/sim."""

from random import Random

import pytest

from meshnode.app.mesh import (
    ASKED_OWN_MAX,
    LIVENESS_DELAY_S,
    LOST_MAX,
    REASON_CHARS_MAX,
    Mesh,
    Self,
)
from meshnode.core.effects import Effect, HangUp, Persist, Report, Send, Wake
from meshnode.core.feed import OwnFeed
from meshnode.core.genesis import Genesis
from meshnode.core.ids import NodeId, node_id_of, short_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.members import (
    LINKS,
    NODE,
    ONLY_ROW,
    LinksRecord,
    NodeRecord,
    links_to_row,
    node_to_row,
)
from meshnode.core.messages import Farewell, Pull, Pulse
from meshnode.core.silence import MISSES_MAX, PULSE_S

chance = Random(16).randbytes
KEY = Key.new(chance)
GENESIS = Genesis((KEY.public,), 1, "test", bytes(16))
PEER_KEYS = [Key.new(chance) for _ in range(30)]
PEERS = [node_id_of(key.public) for key in PEER_KEYS]


@pytest.fixture
def mesh() -> Mesh:
    made = Mesh(GENESIS, Self(KEY, 1, Random(1)))
    made.write(NODE, ONLY_ROW, node_to_row(NodeRecord("me")), 0.0)
    made.start(0.0)
    synced(made, made.woken("flush", 0.0), 0.0)
    made.woken("liveness", 0.1)
    return made


def synced(mesh: Mesh, effects: list[Effect], now_s: float) -> list[Effect]:
    """Let the disk finish whatever was given to it."""
    for effect in effects:
        if isinstance(effect, Persist) and effect.ours:
            return synced(mesh, mesh.persisted(effect.change, now_s), now_s)
    return effects


def flushed(mesh: Mesh, now_s: float) -> None:
    synced(mesh, mesh.woken("flush", now_s), now_s)


def own_links(mesh: Mesh) -> LinksRecord:
    record = mesh.tables.links(mesh.self_id)
    assert record is not None
    return record


def wakes(effects: list[Effect]) -> dict[str, float]:
    return {effect.name: effect.at_s for effect in effects if isinstance(effect, Wake)}


def hear_of(mesh: Mesh, number: int, now_s: float, *, linked: bool) -> list[Effect]:
    """Let a peer's feed say that it is linked to us, or to nobody."""
    feed = OwnFeed(PEER_KEYS[number], GENESIS.mesh_id, GENESIS.limits, 1)
    marks = frozenset({short_id_of(mesh.self_id)} if linked else ())
    feed.write(NODE, ONLY_ROW, node_to_row(NodeRecord(f"n{number}", ("a:1",))))
    feed.write(LINKS, ONLY_ROW, links_to_row(LinksRecord(marks)))
    feed.flush(1.0)
    mesh.replication.replicas[feed.origin] = feed
    return mesh.judge(now_s)


def test_a_distant_timer_does_not_swallow_a_nearer_one(mesh: Mesh):
    """A member that is unreachable sets a timer for its death; news must not wait for it."""
    effects = hear_of(mesh, 0, 10.0, linked=False)
    assert max(wakes(effects).values()) == 40.0
    effects = mesh.linked(PEERS[1], 11.0, dialled=True)
    assert wakes(effects)["liveness"] == pytest.approx(11.0 + LIVENESS_DELAY_S)


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
    assert mesh.overlay.dials(2.0, frozenset()) or mesh.overlay._attempts[PEERS[0]].dialling
    mesh.linked(PEERS[0], 3.0, dialled=False)
    mesh.dial_failed(PEERS[0], 4.0)
    assert mesh.overlay.links == {PEERS[0]}


def test_a_neighbour_is_asked_what_it_holds_of_us_for_a_while_after_the_start(mesh: Mesh):
    asked: list[NodeId] = []
    for number in range(ASKED_OWN_MAX + 5):
        peer = PEERS[number % 3]
        for effect in mesh.linked(peer, float(number), dialled=True):
            if isinstance(effect, Send) and isinstance(effect.message, Pull):
                assert set(effect.message.after) == {mesh.self_id}
                asked.append(effect.peer)
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
    sent = [effect.message for effect in effects if isinstance(effect, Send)]
    assert sent == [first.change.flush]
    (second,) = [effect for effect in effects if isinstance(effect, Persist)]
    assert second.change.header.first_seq == first.change.header.last_seq + 1


def test_a_silent_link_is_ended_and_a_speaking_one_is_pulsed(mesh: Mesh):
    mesh.linked(PEERS[0], 0.0, dialled=False)
    mesh.linked(PEERS[1], 0.0, dialled=False)
    mesh.received(PEERS[1], Pulse(1), 2.0)
    late_s = PULSE_S * MISSES_MAX + 0.1
    effects = mesh.woken("pulse", late_s)
    assert HangUp(PEERS[0], "silent") in effects
    assert Send(PEERS[1], Pulse(1)) in effects


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
