"""Where a node listens, and what it tells others about that.

Invariant: what is advertised moves no listener: a router or a tunnel may forward it to here.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from meshnode.core.membership.members import ADDRESSES_MAX
from meshnode.discovery.seeds import PORT_MAX, bracketed, parse_address

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Address, IPv6Address

DEFAULT_LISTEN = "0.0.0.0:7707"
WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - a node is there to be reached


class Listening(msgspec.Struct, frozen=True):
    """A bound listener, and the addresses where others may find it."""

    host: str
    port: int
    hosts: tuple[str, ...]  # what others may dial, without port
    told_port: int  # what others may dial there

    @property
    def addresses(self) -> tuple[str, ...]:
        """The same as host:port."""
        return tuple(joined(host, self.told_port) for host in self.hosts)

    @property
    def bound(self) -> str:
        """What the listener was bound to, as host:port."""
        return joined(self.host, self.port)

    @property
    def ipv4(self) -> tuple[str, ...]:
        """The IPv4 addresses among them: what mDNS announces."""
        return tuple(host for host in self.hosts if _is_ipv4(host))

    @property
    def loopback_only(self) -> bool:
        """Whether only this machine can reach it."""
        return all(_is_loopback(host) for host in self.hosts)


def listening_at(host: str, port: int, advertised: str | None) -> Listening:
    """Work out where others may dial a bound listener."""
    if advertised:
        advertised_host, advertised_port = parse_address(advertised)
        return Listening(host, port, (advertised_host,), advertised_port or port)
    hosts = interface_hosts() if host in WILDCARDS else (host,)
    return Listening(host, port, hosts, port)


def joiners_at(port: int, members: Listening) -> Listening:
    """Work out where strangers may dial the joiners' port of a node, beside its members' port.

    The next one here is the next one there: who forwards the first is told to forward both. Any
    other was free by chance, so that nobody can have forwarded it: it is told as it is.
    """
    is_next = port == members.port + 1 and members.told_port < PORT_MAX
    return replace(members, port=port, told_port=members.told_port + 1 if is_next else port)


def interface_hosts() -> tuple[str, ...]:
    """Return this machine's addresses, IPv4 first; loopback only where there is nothing else."""
    import psutil  # noqa: PLC0415 - for a node that listens everywhere

    found: list[IPv4Address | IPv6Address] = []
    loopback: list[str] = []
    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    for name, entries in psutil.net_if_addrs().items():
        for entry in entries:
            if name in up and entry.family in {socket.AF_INET, socket.AF_INET6}:
                address = ip_address(entry.address.partition("%")[0])
                if address.is_loopback:
                    loopback.append(str(address))
                elif not address.is_link_local:
                    found.append(address)
    found.sort(key=lambda address: address.version)
    return tuple(str(address) for address in found[:ADDRESSES_MAX]) or (loopback_of(loopback),)


def loopback_of(hosts: Iterable[str]) -> str:
    """Return the loopback address that a machine has: ::1 where it has no other."""
    known = frozenset(hosts)
    return "::1" if "::1" in known and "127.0.0.1" not in known else "127.0.0.1"


def joined(host: str, port: int) -> str:
    """Write host:port, an IPv6 address in brackets."""
    return f"{bracketed(host)}:{port}"


def _is_ipv4(host: str) -> bool:
    try:
        return ip_address(host).version == 4  # noqa: PLR2004 - the 4 of IPv4
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
