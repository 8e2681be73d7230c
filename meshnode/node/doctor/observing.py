"""Observing other nodes and our own listeners for `doctor`, all at once and within bounds."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING

import msgspec
import psutil
from msgspec.structs import replace

from meshnode.app.diagnosis.observations import Attempt, Dial, MulticastFacts, OwnAddress
from meshnode.core.errors import PeerError
from meshnode.core.ids import NodeId
from meshnode.core.membership.members import ADDRESSES_MAX
from meshnode.discovery.multicast import hear_ourselves
from meshnode.discovery.names import resolved
from meshnode.discovery.probes import SPEAK_S, attempt_at, certificate_at
from meshnode.discovery.seeds import parse_address
from meshnode.node.presence.addresses import WILDCARDS, interface_hosts, joined, loopback_of
from meshnode.rpc.probes import enter, hello

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshnode.app.diagnosis.peer_diagnosis import Peer
    from meshnode.rpc.tls import Identity

PEER_S = 6.0  # for all addresses of a peer; what is not known by then is said to be silent
PORT_MAX = 65535
UNANSWERED = f"was not answered within {PEER_S:g} s"


class Seen(msgspec.Struct):
    """What was observed. Addresses that nobody answered at are there too."""

    peers: list[tuple[Peer, tuple[Attempt, ...]]] = msgspec.field(default_factory=list)
    own: tuple[OwnAddress, ...] = ()
    joiners: Attempt | None = None
    multicast: MulticastFacts | None = None


class Observer(msgspec.Struct, frozen=True):
    """Looks at addresses as one node, or as nobody when there is no identity to show."""

    self_id: str
    mesh_id: str
    identity: Identity | None
    wall_s: Callable[[], float]

    async def peers(self, peers: Sequence[Peer], seen: Seen) -> None:
        """Look at all peers at once."""
        async with asyncio.TaskGroup() as tasks:
            looking = [tasks.create_task(self._peer(peer)) for peer in peers]
        seen.peers = [(peer, task.result()) for peer, task in zip(peers, looking, strict=True)]

    async def own(self, addresses: Sequence[str], joiners: str, seen: Seen) -> None:
        """Look at our own listeners as others would."""
        chosen = addresses[:ADDRESSES_MAX]
        found: dict[str, Attempt] = {}
        host, port = parse_address(joiners)
        local = _local_hosts()
        with suppress(TimeoutError):
            async with asyncio.timeout(PEER_S), asyncio.TaskGroup() as tasks:
                for address in chosen:
                    tasks.create_task(_connect(address, found))
                greeted = Attempt(joiners, Dial.CONNECTED, greeting_address=joiners)
                seen.joiners = replace(greeted, greeting_fault=UNANSWERED)
                seen.joiners = await self._greeted(greeted, _dialled(host, local), port)
        seen.own = tuple(
            OwnAddress(_host(one) in local, _is_loopback(_host(one)), found.get(one) or _mute(one))
            for one in chosen
        )

    async def multicast(self, addresses: Sequence[str], seen: Seen) -> None:
        """Ask on every interface, on the loopback for a node that is only there, and listen."""
        ipv4 = [host for host in interface_hosts() if ":" not in host]
        if all(_is_loopback(_host(address)) for address in addresses):
            ipv4 = ["127.0.0.1"]
        seen.multicast = await hear_ourselves(ipv4) if ipv4 else MulticastFacts()

    async def _peer(self, peer: Peer) -> tuple[Attempt, ...]:
        chosen = peer.addresses[:ADDRESSES_MAX]
        found: dict[str, Attempt] = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(PEER_S), asyncio.TaskGroup() as tasks:
                for address in chosen:
                    tasks.create_task(self._look(address, peer, found))
        return tuple(found.get(address) or _mute(address) for address in chosen)

    async def _look(self, address: str, peer: Peer, found: dict[str, Attempt]) -> None:
        attempt = await _connect(address, found)
        if attempt.shown is None:
            return
        host, port = parse_address(address)
        ip, next_port = attempt.ip, joined(host, port + 1)
        found[address] = attempt = replace(
            attempt, greeting_address=next_port, greeting_fault=UNANSWERED, refusal=UNANSWERED
        )
        async with asyncio.TaskGroup() as tasks:
            greeted = tasks.create_task(self._greeted(attempt, ip, port + 1))
            entered = tasks.create_task(self._entered(attempt, peer, joined(ip, port)))
        done = entered.result()
        seen = replace(greeted.result(), entered=done.entered, refusal=done.refusal)
        found[address] = seen
        if not seen.entered:
            here = await self._greeted(attempt, ip, port)
            found[address] = replace(seen, for_joiners=here.greeting is not None)

    async def _greeted(self, attempt: Attempt, host: str, port: int) -> Attempt:
        if port > PORT_MAX:
            return replace(attempt, greeting_fault="there is no such port")
        try:
            ip = await resolved(host)
            leaf = await certificate_at(ip, port)
        except TimeoutError:
            return replace(attempt, greeting_fault=f"it says nothing in {SPEAK_S:g} s")
        except ConnectionRefusedError:
            return replace(attempt, greeting_fault="nobody listens there")
        except (OSError, PeerError):
            return replace(attempt, greeting_fault="no session-mesh node listens there")
        return await hello(attempt, joined(ip, port), leaf, self.wall_s)

    async def _entered(self, attempt: Attempt, peer: Peer, target: str) -> Attempt:
        shown = attempt.shown
        if shown is None or self.identity is None or shown.mesh_id != self.mesh_id:
            return replace(attempt, refusal="")
        if shown.node_id == self.self_id or peer.node_id not in {"", shown.node_id}:
            return replace(attempt, refusal="")
        return await enter(attempt, target, NodeId(shown.node_id), self.identity)


async def _connect(address: str, found: dict[str, Attempt]) -> Attempt:
    found[address] = attempt = await attempt_at(address)
    return attempt


def _mute(address: str) -> Attempt:
    return Attempt(address, Dial.SILENT, UNANSWERED)


def _host(address: str) -> str:
    return parse_address(address)[0]


def _dialled(host: str, local: frozenset[str]) -> str:
    """Return where to reach a listener: one bound to everything is, on IPv4 or else on IPv6."""
    return loopback_of(local) if host in WILDCARDS else host


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _local_hosts() -> frozenset[str]:
    entries = (entry for found in psutil.net_if_addrs().values() for entry in found)
    return frozenset({entry.address.partition("%")[0] for entry in entries} | {"localhost"})
