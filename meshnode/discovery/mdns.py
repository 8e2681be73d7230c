"""Finding nodes on the same network with mDNS and DNS-SD (RFC 6762, RFC 6763).

Invariant: what is heard here is a hint where to dial, from anybody who cares to shout; TLS decides
who is there. However much is shouted, at most WAITING_MAX names wait to be looked at, LOOKED_AT_S a
second are, and `is_crowded` says when it is too much to go on listening. Registration runs in the
background: it takes over a second, and nothing waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from zeroconf import DNSQuestionType, Error, InterfaceChoice, IPVersion, ServiceStateChange
from zeroconf.asyncio import (
    AsyncServiceBrowser,
    AsyncServiceInfo,
    AsyncZeroconf,
)

from meshnode.core.errors import PeerError
from meshnode.core.ids import NodeId, node_key_of
from meshnode.core.keys import parse_public
from meshnode.core.pacing import Buckets
from meshnode.discovery.hints import Announcement, Hint

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from zeroconf import Zeroconf

SERVICE = "_session-mesh._tcp.local."
RESOLVE_TIMEOUT_MS = 1500
LOOK_AGAIN_S = 0.1
REGISTER_S = (
    10.0  # it takes one; a stranger that claims each name that is tried could make it endless
)
RESOLVING_MAX = 64  # at once; other names wait, the first heard first,
WAITING_MAX = 1024  # up to so many: what is announced beyond is passed over
LOOKED_AT_S, LOOKED_AT_BURST = 50, 200  # names a second
CACHED_NAMES_MAX = 8192  # of anything: the library remembers all that is shouted, for hours
CHANGES_S, CHANGES_BURST = 5, 8192  # of names of ours, a second: what each costs stays for an hour
ADDRESSES_MAX = 8
_MESH_ID = re.compile("[a-z2-7]{52}")
_log = logging.getLogger("session_mesh.mdns")


class Discovery:
    """Announces this node and listens for others until closed."""

    def __init__(
        self,
        announcement: Announcement,
        on_hint: Callable[[Hint], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self.announcement = announcement
        self.on_gone: Callable[[str], None] = _nobody_waits  # whose announcement is good no more
        self._on_hint = on_hint
        self._spawn = spawn
        self._resolving = 0
        self._waiting: dict[tuple[str, str], None] = {}  # service type and name
        self._pace: Buckets[str] = Buckets(LOOKED_AT_S, LOOKED_AT_BURST)
        self._changes: Buckets[str] = Buckets(CHANGES_S, CHANGES_BURST)
        self._timer: asyncio.TimerHandle | None = None
        self._browser: AsyncServiceBrowser | None = None
        interfaces = ["127.0.0.1"] if announcement.loopback_only else InterfaceChoice.All
        self._zeroconf = AsyncZeroconf(interfaces=interfaces, ip_version=IPVersion.V4Only)

    async def run(self) -> bool:
        """Browse at once, announce meanwhile. Raises OSError where multicast is not to be had."""
        self._browser = AsyncServiceBrowser(
            self._zeroconf.zeroconf,
            SERVICE,
            handlers=[self._on_change],
            question_type=DNSQuestionType.QM,
        )
        return await self.announce()

    async def announce(self) -> bool:
        """Register this node, if it is to say anything; False if no name was free in REGISTER_S."""
        mine = self.announcement
        if not mine.addresses:
            return True
        info = AsyncServiceInfo(
            SERVICE,
            f"{mine.node_id[:16]}.{SERVICE}",
            port=mine.port,
            parsed_addresses=list(mine.addresses),
            properties={"id": mine.node_id, "mesh": mine.mesh_id},
            server=f"{mine.node_id[:16]}.local.",
        )
        try:
            async with asyncio.timeout(REGISTER_S):
                await self._zeroconf.async_register_service(info, allow_name_change=True)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Say goodbye and fall silent."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._browser is not None:
            await self._browser.async_cancel()
        await self._zeroconf.async_close()

    @property
    def is_crowded(self) -> bool:
        """Whether so much was shouted that listening costs more than it is worth."""
        names = len(self._zeroconf.zeroconf.cache.cache)
        return names > CACHED_NAMES_MAX or self._changes.left("", _now_s()) < 0

    def _on_change(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        del zeroconf
        self._changes.charge("", _now_s())
        if state_change is ServiceStateChange.Removed:
            self._waiting.pop((service_type, name), None)
            self.on_gone(name)
        elif len(self._waiting) < WAITING_MAX:
            self._waiting[service_type, name] = None
            self._look_at_more()

    def _look_at_more(self) -> None:
        now_s = _now_s()
        while self._waiting and self._resolving < RESOLVING_MAX and self._pace.take("", now_s):
            service_type, name = next(iter(self._waiting))
            del self._waiting[service_type, name]
            self._resolving += 1
            self._spawn(self._resolve(service_type, name))
        if self._waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self._look_at_more()

    async def _resolve(self, service_type: str, name: str) -> None:
        try:
            info = AsyncServiceInfo(service_type, name)
            found = await info.async_request(
                self._zeroconf.zeroconf, RESOLVE_TIMEOUT_MS, question_type=DNSQuestionType.QM
            )
            cache = self._zeroconf.zeroconf.cache  # what was taken back meanwhile is not there
            if found and cache.current_entry_with_name_and_alias(service_type, name):
                self._take(info)
        except (PeerError, ValueError, Error) as error:  # the last: of a name that is no service's
            _log.debug("an mDNS announcement makes no sense: %r", str(error)[:200])
        finally:
            self._resolving -= 1

    def _take(self, info: AsyncServiceInfo) -> None:
        node_id = _text(info.properties.get(b"id"))
        mesh_id = _text(info.properties.get(b"mesh"))
        parse_public(node_key_of(node_id))
        if _MESH_ID.fullmatch(mesh_id) is None:
            raise PeerError("not a mesh id")
        if node_id == self.announcement.node_id or not info.port:
            return
        shouted = info.parsed_addresses(IPVersion.V4Only)[:ADDRESSES_MAX]
        addresses = tuple(f"{one}:{info.port}" for one in shouted if _is_one_machine(one))
        if addresses:
            self._on_hint(Hint(NodeId(node_id), mesh_id, addresses, info.name))


def _nobody_waits(name: str) -> None:
    del name


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _is_one_machine(address: str) -> bool:
    """Whether an address may be a node's: not everybody's, nobody's, or of no use today."""
    ip = IPv4Address(address)
    return not (ip.is_multicast or ip.is_unspecified or ip.is_reserved)


def _text(value: bytes | None) -> str:
    return (value or b"").decode("ascii")
