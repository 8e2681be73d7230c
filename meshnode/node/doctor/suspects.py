"""Whom `doctor` looks at: whoever was named, or else members and seeds that are not as they should.

Invariant: pure; those in trouble come first, so that a bound on their number leaves out the well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from meshnode.app.diagnosis.peer_diagnosis import Peer, best_of
from meshnode.client.targets.nodes import node_id_in
from meshnode.core.errors import NotFoundError, UsageError
from meshnode.discovery.seeds import parse_address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshnode.app.diagnosis.observations import Attempt

WORD_CHARS_MAX = 300  # the longest name that DNS knows, and a port


class Known(msgspec.Struct, frozen=True):
    """What this home knows of others. `status` is empty when no node runs."""

    self_id: str
    members: Sequence[dict[str, Any]]
    status: dict[str, Any]
    config_seeds: tuple[str, ...] = ()

    @property
    def present(self) -> list[dict[str, Any]]:
        """Members but for those that have left or are revoked."""
        return [one for one in self.members if one["state"] not in {"left", "revoked"}]

    @property
    def linked(self) -> frozenset[str]:
        """Ids of the nodes that ours has working links with."""
        own = next((one for one in self.members if one["node_id"] == self.self_id), None)
        return frozenset(own["links"] if own and self.status else ())

    @property
    def seeds(self) -> tuple[str, ...]:
        """Addresses that the node keeps trying, or would when it runs."""
        return tuple(dict.fromkeys(self.status.get("seeds") or self.config_seeds))

    def reason(self, peer: str) -> str:
        """Return what last went wrong with a peer, named by id or address."""
        troubles = self.status.get("troubles", ())
        return next((str(one["reason"]) for one in troubles if one["peer"] == peer), "")

    def strangers(self) -> list[tuple[str, str]]:
        """Return address or id, and trouble, of those whom mDNS or others told of."""
        known = {*self.seeds, *(one["node_id"] for one in self.members)}
        troubles = self.status.get("troubles", ())
        return [(one["peer"], one["reason"]) for one in troubles if one["peer"] not in known]

    def peer(self, member: dict[str, Any], *, asked: bool = False) -> Peer:
        """Return a member as a peer to look for."""
        node_id = str(member["node_id"])
        namesakes = [one for one in self.members if one["name"] == member["name"]]
        name = str(member["name"]) if len(namesakes) == 1 else f"{member['name']}/{node_id[:10]}"
        return Peer(
            name=name,
            addresses=tuple(member["addresses"]),
            node_id=node_id,
            state=str(member["state"]) if self.status else "",
            linked=node_id in self.linked,
            asked=asked,
            trouble=self.reason(node_id),
        )

    def at(self, address: str, *, asked: bool = False) -> Peer:
        """Return who should listen at an address: the one member that says so, or a stranger.

        Whoever is gone has left the address to others, unless it is what somebody asks for.
        """
        members = self.members if asked else self.present
        owners = [one for one in members if address in one["addresses"]]
        if len(owners) == 1 and owners[0]["node_id"] != self.self_id:
            return replace(self.peer(owners[0], asked=asked), name=address, addresses=(address,))
        trouble, is_seed = self.reason(address), address in self.seeds
        return Peer(address, (address,), asked=asked, trouble=trouble, is_seed=is_seed)

    def recognised(self, peer: Peer, attempts: Sequence[Attempt]) -> Peer:
        """Add what is known of the member that turned out to listen at a bare address."""
        best = best_of(attempts, peer)
        if peer.node_id or best is None or best.shown is None:
            return peer
        node_id = best.shown.node_id
        member = next((one for one in self.members if one["node_id"] == node_id), None)
        if member is None or node_id == self.self_id:
            return peer
        return replace(self.peer(member, asked=peer.asked), name=peer.name, is_seed=peer.is_seed)


def asked_for(words: Sequence[str], known: Known) -> list[Peer]:
    """Find the nodes that a user named; raises UsageError, NotFoundError or ConflictError."""
    return list(dict.fromkeys(_asked(word, known) for word in words))


def _asked(word: str, known: Known) -> Peer:
    if not word.strip() or len(word) > WORD_CHARS_MAX:
        raise UsageError(f"neither a node nor an address: {word[:60]!r}", "write NODE or HOST:PORT")
    if ":" in word:
        _, port = parse_address(word)
        if port == 0:
            raise UsageError(f"nobody listens on port 0: {word[:60]!r}", "write HOST:PORT")
        return known.at(word, asked=True)
    try:
        node_id = node_id_in(known.members, word)
    except NotFoundError as error:
        hint = "session-mesh nodes lists them; an address is HOST:PORT"
        raise NotFoundError(error.message, hint) from None
    member = next(one for one in known.members if one["node_id"] == node_id)
    return known.peer(member, asked=True)


def suspects(known: Known) -> list[Peer]:
    """Return members and seeds, those first that are not seen; not who left, or is revoked."""
    peers = [known.peer(one) for one in known.present if one["node_id"] != known.self_id]
    claimed = {address for one in known.present for address in one["addresses"]}
    peers += [known.at(seed) for seed in known.seeds if seed not in claimed]
    return sorted(peers, key=_urgency)


def _urgency(peer: Peer) -> int:
    if peer.trouble or (not peer.state and not peer.node_id):
        return 0
    return {"alive": 3, "down": 2}.get(peer.state, 1)
