"""One node's neighbours: its links, their silence, and what is passed on for others.

Invariant: what the `links` row says is what `overlay.links` holds, and the reason of each recent
loss; whatever changes either ends in a new row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from meshnode.core.effects import Answered, Effect, HangUp, Obey, Send
from meshnode.core.feeds.messages import Ask, Heard, Members, Order, Reply, Routed
from meshnode.core.ids import NodeId, short_id_of
from meshnode.core.links import relay
from meshnode.core.links.overlay import ENOUGH, NEW_S, Overlay
from meshnode.core.links.silence import Silences
from meshnode.core.membership.members import LinksRecord, links_to_row

if TYPE_CHECKING:
    from random import Random

    from meshnode.core.links.liveness import Liveness

EDGES_ENOUGH = 3  # up, of a member: one more is not urgent
LATE_S = 0.5  # a timer later than this: the node was held up, and judges nobody yet
INTRODUCED_MAX = 8
LOST_MAX = 16  # peers whose end is told in our links row; the longest lost is dropped
REASON_CHARS_MAX = 80
PARTED = frozenset({ENOUGH, "replaced"})  # reasons that are no news about the peer
LATER = "try again in a second"
STALLED = "stalled"  # the machine of a lost peer accepts connections, its node says nothing


class Neighbours:
    """Links as they come and go. Methods return effects; some say that the row must be written."""

    def __init__(self, self_id: NodeId, rng: Random, liveness: Liveness) -> None:
        self.overlay = Overlay(self_id, rng, liveness.alive)
        self._self_id = self_id
        self._rng = rng
        self._graph = liveness.graph
        self._liveness = liveness
        self._silences = Silences()
        self._turnstile = relay.Turnstile()
        self._lost: dict[bytes, str] = {}
        self._has_lost = False

    def is_spare(self, peer: NodeId) -> bool:
        """Whether a link to this peer would be one more between two that many ways lead to."""
        ends = (self._self_id, peer)
        return all(self._graph.listed_by_both(end) >= EDGES_ENOUGH for end in ends)

    def has_only_way(self) -> bool:
        """Whether a new link, that was spare perhaps, is so no longer: others shall know of it."""
        new, way = self._graph.new_links, self._graph.path_to_neighbour_of
        return not all(self.is_spare(peer) and way(peer, new) for peer in new)

    def linked(self, peer: NodeId, now_s: float, *, dialled: bool) -> list[Effect]:
        """Take a working link into use; a caller too many is introduced to others and refused."""
        self.overlay.linked(peer, now_s)
        self._graph.add_link(peer)
        self._silences.linked(peer, now_s)
        self._lost.pop(short_id_of(peer), None)
        if dialled or not self.overlay.refuses(peer):
            return []
        return [self._introduce(peer), HangUp(peer, ENOUGH, parting=True)]

    def unlinked(self, peer: NodeId, reason: str, now_s: float) -> None:
        """Forget a link that ended."""
        self.overlay.unlinked(peer, now_s)
        self._graph.drop_link(peer)
        self._silences.unlinked(peer)
        self._has_lost |= reason not in PARTED
        self._lose(peer, reason)

    def take_lost(self) -> bool:
        """Tell whether a link was lost since this was asked last; those let go do not count."""
        lost, self._has_lost = self._has_lost, False
        return lost

    def dial_failed(self, peer: NodeId, now_s: float, *, stalled: bool) -> bool:
        """Note that a member did not answer; tell whether the row says something else now."""
        if peer in self.overlay.links:
            return False  # it has dialled us meanwhile
        self.overlay.unlinked(peer, now_s)
        if stalled is (self._lost.get(short_id_of(peer)) == STALLED):
            return False
        self._lose(peer, STALLED if stalled else "unreachable")
        return True

    def row(self) -> bytes:
        """Return our `links` row, and let our own view follow it."""
        peers = frozenset(short_id_of(peer) for peer in self.overlay.links)
        stalled = (peer for peer, reason in self._lost.items() if reason == STALLED)
        self._liveness.set_stalled(frozenset(stalled))
        return links_to_row(LinksRecord(peers, self._lost))

    def heard(self, peer: NodeId, now_s: float) -> bool:
        """Note a frame; False if it outlived its link."""
        return self._silences.heard(peer, now_s)

    def pulses(self) -> list[Effect]:
        """Return a sign of life for each neighbour."""
        return self._silences.pulses()

    def tick(self, now_s: float, late_s: float) -> list[Effect]:
        """Judge silent links, let go of spare ones, dial. `late_s` is how late this call comes."""
        if late_s > LATE_S:
            self._silences.forgive(now_s)
        verdict = self._silences.judge(now_s)
        effects: list[Effect] = [HangUp(peer, "silent") for peer in verdict.silent]
        for peer in verdict.doubted:
            effects += self._doubt(peer)
        effects += map(self._introduce, self.overlay.surplus(now_s))
        return effects + self.overlay.partings(now_s) + self.overlay.dials(now_s)

    def age_links(self, now_s: float) -> bool:
        """Let links that are no longer new count only if both ends list them; True if there are."""
        graph, overlay = self._graph, self.overlay
        aged = [p for p in graph.new_links if now_s - overlay.linked_at_s(p) >= NEW_S]
        for peer in aged:
            graph.age_link(peer)
        return bool(aged)

    def introduced(self, source: NodeId, message: Members, now_s: float) -> list[Effect]:
        """Take hints about other members, and perhaps the wish to be let go."""
        if message.full:
            self.overlay.asked_to_part(source)
        for peer, addresses in message.addresses.items():
            self.overlay.learn(peer, addresses, now_s)
        return self.overlay.dials(now_s)

    def order_number(self) -> int:
        """Return a number for an order of ours, which nobody can guess who does not see it."""
        return self._rng.getrandbits(63)

    def order(self, owner: NodeId, order: Order) -> list[Effect]:
        """Send an order along links; no effects if no path of links leads to its owner."""
        path = self._graph.path(owner)
        return [Send(path[0], relay.sent(self._self_id, path, order))] if path else []

    def answer(self, route: tuple[NodeId, ...], reply: Reply) -> list[Effect]:
        """Answer an order that came along links; `route` leads from here to its sender."""
        self._turnstile.answered(route[1], route[-1], reply.number)
        return [Send(route[1], relay.answer(route, reply))]

    def routed(self, peer: NodeId, routed: Routed, now_s: float) -> list[Effect]:
        """Pass a message on, or take it if it is for this node; raises PeerError."""
        onward, body = relay.next_hop(self._self_id, peer, routed), routed.body
        if isinstance(body, Order):
            why = self._turnstile.refusal(peer, routed.route[0], body.number, now_s)
            if why:
                error = ("refused", f"a node on the way refuses: {why}", LATER)
                return [
                    Send(peer, relay.answer(relay.back(routed), Reply(body.number, b"", error)))
                ]
        if onward is None:
            return self._arrived(peer, routed, now_s)
        if isinstance(body, Reply):
            self._turnstile.answered(onward, routed.route[-1], body.number)
        if onward in self.overlay.links:
            return [Send(onward, relay.onward(routed))]
        if isinstance(body, Order):
            error = ("unreachable", "a link on the way has just been lost", "send it again")
            return self.answer(relay.back(routed), Reply(body.number, b"", error))
        return []  # who asked hears nothing, and decides without

    def _arrived(self, peer: NodeId, routed: Routed, now_s: float) -> list[Effect]:
        body = routed.body
        match body:
            case Ask(about):
                heard = Heard(about, self._silences.heard_ago_s(about, now_s))
                return [Send(peer, relay.answer(relay.back(routed), heard))]
            case Heard(about, ago_s):
                self._silences.answered(about, ago_s)
                return []
            case Order():
                return [Obey(body, relay.back(routed))]
            case Reply():
                return [Answered(body)]
            case _:
                assert_never(body)

    def _doubt(self, peer: NodeId) -> list[Effect]:
        """Ask another neighbour of a silent peer whether it hears it."""
        path = self._graph.path_to_neighbour_of(peer, frozenset({peer}))
        if not path:
            return [HangUp(peer, "silent")]
        return [Send(path[0], relay.sent(self._self_id, path, Ask(peer)))]

    def _introduce(self, peer: NodeId) -> Send:
        """Tell a neighbour of some others, since there are links enough."""
        others = sorted(self.overlay.links - {peer})
        chosen = self._rng.sample(others, min(INTRODUCED_MAX, len(others)))
        return Send(peer, Members({o: self.overlay.addresses_of(o) for o in chosen}, full=True))

    def _lose(self, peer: NodeId, reason: str) -> None:
        self._lost.pop(short_id_of(peer), None)
        self._lost[short_id_of(peer)] = reason[:REASON_CHARS_MAX]
        while len(self._lost) > LOST_MAX:
            del self._lost[next(iter(self._lost))]
