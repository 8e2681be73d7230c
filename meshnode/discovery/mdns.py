"""Finding nodes on the same network with mDNS and DNS-SD (RFC 6762, RFC 6763).

Invariant: what is heard here is a hint where to dial, from anybody who cares to shout; TLS decides
who is there. Registration runs in the background: it takes over a second, and nothing waits for it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from zeroconf import DNSQuestionType, InterfaceChoice, IPVersion, ServiceStateChange
from zeroconf.asyncio import (
    AsyncServiceBrowser,
    AsyncServiceInfo,
    AsyncZeroconf,
)

from meshnode.core.errors import PeerError
from meshnode.core.ids import NodeId, node_key_of
from meshnode.discovery.hints import Announcement, Hint

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from zeroconf import Zeroconf

SERVICE = "_session-mesh._tcp.local."
RESOLVE_TIMEOUT_MS = 1500
RESOLVING_MAX = 64  # at once; more announcements than that wait for their repetition
ADDRESSES_MAX = 8
_log = logging.getLogger("session_mesh.mdns")


class Discovery:
    """Announces this node and listens for others until closed."""

    def __init__(
        self,
        announcement: Announcement,
        on_hint: Callable[[Hint], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._announcement = announcement
        self._on_hint = on_hint
        self._spawn = spawn
        self._resolving = 0
        self._browser: AsyncServiceBrowser | None = None
        interfaces = ["127.0.0.1"] if announcement.loopback_only else InterfaceChoice.All
        self._zeroconf = AsyncZeroconf(interfaces=interfaces, ip_version=IPVersion.V4Only)

    async def run(self) -> None:
        """Browse at once, register meanwhile. Raises OSError where multicast is not to be had."""
        self._browser = AsyncServiceBrowser(
            self._zeroconf.zeroconf,
            SERVICE,
            handlers=[self._on_change],
            question_type=DNSQuestionType.QM,
        )
        mine = self._announcement
        info = AsyncServiceInfo(
            SERVICE,
            f"{mine.node_id[:16]}.{SERVICE}",
            port=mine.port,
            parsed_addresses=list(mine.addresses),
            properties={"id": mine.node_id, "mesh": mine.mesh_id},
            server=f"{mine.node_id[:16]}.local.",
        )
        await self._zeroconf.async_register_service(info, allow_name_change=True)

    async def close(self) -> None:
        """Say goodbye and fall silent."""
        if self._browser is not None:
            await self._browser.async_cancel()
        await self._zeroconf.async_close()

    def _on_change(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        if state_change is ServiceStateChange.Removed or self._resolving >= RESOLVING_MAX:
            return
        self._resolving += 1
        self._spawn(self._resolve(zeroconf, service_type, name))

    async def _resolve(self, zeroconf: Zeroconf, service_type: str, name: str) -> None:
        try:
            info = AsyncServiceInfo(service_type, name)
            found = await info.async_request(
                zeroconf, RESOLVE_TIMEOUT_MS, question_type=DNSQuestionType.QM
            )
            if found:
                self._take(info)
        except (PeerError, UnicodeDecodeError, ValueError) as error:
            _log.debug("an mDNS announcement makes no sense: %s", error)
        finally:
            self._resolving -= 1

    def _take(self, info: AsyncServiceInfo) -> None:
        node_id = _text(info.properties.get(b"id"))
        mesh_id = _text(info.properties.get(b"mesh"))
        node_key_of(node_id)
        if node_id == self._announcement.node_id or not info.port:
            return
        addresses = tuple(
            f"{address}:{info.port}"
            for address in info.parsed_addresses(IPVersion.V4Only)[:ADDRESSES_MAX]
        )
        self._on_hint(Hint(NodeId(node_id), mesh_id[:64], addresses))


def _text(value: bytes | None) -> str:
    return (value or b"").decode("ascii")
