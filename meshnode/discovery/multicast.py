"""Whether this machine hears its own multicast: a question on the group and port of mDNS.

Invariant: one question an interface, one second of listening at most; nothing is announced.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

from meshnode.app.diagnosis.observations import MulticastFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

GROUP, PORT = "224.0.0.251", 5353
LISTEN_S = 1.0
INTERFACES_MAX = 8
QUESTION = b"\x0d_session-mesh\x04_tcp\x05local\x00" + struct.pack("!HH", 12, 1)  # PTR, IN


async def hear_ourselves(interfaces: Sequence[str], listen_s: float = LISTEN_S) -> MulticastFacts:
    """Ask on every interface (IPv4 addresses) who is there, and wait for our own questions."""
    chosen = tuple(interfaces[:INTERFACES_MAX])
    try:
        with _listening(chosen) as ear:
            asked = {_ask(interface): interface for interface in chosen}
            heard = await _heard(ear, frozenset(asked), listen_s)
    except OSError as error:
        return MulticastFacts(silent_on=chosen, fault=str(error.strerror or error).lower())
    on = tuple(interface for mark, interface in asked.items() if mark in heard)
    silent = tuple(interface for interface in chosen if interface not in on)
    return MulticastFacts(on, silent)


def _listening(interfaces: Sequence[str]) -> socket.socket:
    ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        ear.setblocking(False)  # noqa: FBT003 - the socket's own signature
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        ear.bind(("", PORT))
        for interface in interfaces:
            member = socket.inet_aton(GROUP) + socket.inet_aton(interface)
            with suppress(OSError):  # an interface without multicast: it will be silent
                ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    except OSError:
        ear.close()
        raise
    return ear


def _ask(interface: str) -> bytes:
    """Send a question that can be told from others by its id and our port; returns how."""
    mark = secrets.token_bytes(2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth, suppress(OSError):
        mouth.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
        mouth.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        mouth.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        mouth.bind((interface, 0))
        mouth.sendto(mark + struct.pack("!5H", 0, 1, 0, 0, 0) + QUESTION, (GROUP, PORT))
        mark += struct.pack("!H", mouth.getsockname()[1])
    return mark


async def _heard(ear: socket.socket, wanted: frozenset[bytes], listen_s: float) -> set[bytes]:
    loop, heard = asyncio.get_running_loop(), set[bytes]()
    with suppress(TimeoutError):
        async with asyncio.timeout(listen_s):
            while not wanted <= heard:
                packet, (_, port) = await loop.sock_recvfrom(ear, 9000)
                heard.add(packet[:2] + struct.pack("!H", port))
    return heard
