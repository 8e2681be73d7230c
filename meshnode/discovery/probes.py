"""Looking at an address without believing it: whether it connects, and whose certificate is there.

Invariant: every wait is bounded, name resolution too; what goes wrong is a fact, not an exception.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from contextlib import suppress

from cryptography import x509

from meshnode.app.diagnosis.observations import Attempt, Dial, Shown
from meshnode.core.errors import PeerError, UsageError
from meshnode.core.membership.certificates import UNREADABLE, hints_in
from meshnode.discovery.names import connected
from meshnode.discovery.seeds import parse_address

CONNECT_S = 2.0  # room for one SYN that got lost
ACCEPT_S = 1.0  # to learn whether a machine is there, though its node said nothing
SPEAK_S = 3.0  # for a TLS handshake on a connection that is open
REFUSED = "refuses connections: no node listens there, or it is down"
SILENT = f"does not answer in {CONNECT_S:g} s: a firewall is in the way, or the address is wrong"
NO_ROUTE = "cannot be reached: this machine has no route to it"
NO_NAME = "is no name that this machine can resolve"
MUTE = (
    f"takes connections but says nothing in {SPEAK_S:g} s:"
    " it hangs, is full, or is no session-mesh node"
)
FULL = "takes connections and closes them at once: it is full, or is no session-mesh node"
NO_TLS = "is no session-mesh node: it does not speak TLS 1.3"
NO_NODE = "is no session-mesh node: its certificate names none"
MESH_ID_CHARS_MAX = 64  # of a claim; ours have 52
_NO_ROUTE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN}


async def attempt_at(address: str) -> Attempt:
    """Connect, and read which node the certificate there names."""
    try:
        host, port = parse_address(address)
        async with asyncio.timeout(CONNECT_S):
            ip, writer = await connected(host, port)
    except UsageError as error:
        return Attempt(address, Dial.NO_NAME, error.message)
    except (TimeoutError, OSError, UnicodeError) as error:
        return _not_connected(address, error)
    await _closed(writer)
    return await _certificate_at(address, ip, port)


async def accepts(address: str) -> bool:
    """Whether a machine takes connections there, though what listens may say nothing."""
    try:
        host, port = parse_address(address)
        async with asyncio.timeout(ACCEPT_S):
            _, writer = await connected(host, port)
    except (UsageError, OSError, UnicodeError):  # TimeoutError included
        return False
    writer.close()
    return True


def _not_connected(address: str, error: Exception) -> Attempt:
    number = getattr(error, "errno", None)
    if isinstance(error, socket.gaierror | UnicodeError):
        return Attempt(address, Dial.NO_NAME, NO_NAME)
    if number in _NO_ROUTE:
        return Attempt(address, Dial.NO_ROUTE, NO_ROUTE)
    if isinstance(error, ConnectionRefusedError):
        return Attempt(address, Dial.REFUSED, REFUSED)
    if isinstance(error, TimeoutError):
        return Attempt(address, Dial.SILENT, SILENT)
    why = os.strerror(number).lower() if number else type(error).__name__
    return Attempt(address, Dial.FAILED, f"cannot be reached: {why}")


async def _certificate_at(address: str, ip: str, port: int) -> Attempt:
    silence = NO_TLS
    try:
        der = await certificate_at(ip, port)
        node_id, mesh_id = hints_in(der)
        found = x509.load_der_x509_certificate(der)
        shown = Shown(
            node_id,
            mesh_id[:MESH_ID_CHARS_MAX],
            found.not_valid_before_utc.timestamp(),
            found.not_valid_after_utc.timestamp(),
        )
        return Attempt(address, Dial.CONNECTED, ip=ip, shown=shown)
    except TimeoutError:
        silence = MUTE
    except (PeerError, *UNREADABLE):
        silence = NO_NODE
    except ConnectionError:
        silence = FULL
    except OSError:  # of TLS too
        pass
    return Attempt(address, Dial.CONNECTED, ip=ip, silence=silence)


async def certificate_at(ip: str, port: int) -> bytes:
    """Return the certificate that is shown there, in DER; raises OSError or PeerError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # we look; the handshake that follows verifies
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    async with asyncio.timeout(SPEAK_S):
        _, writer = await asyncio.open_connection(ip, port, ssl=context)
    der: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    await _closed(writer)
    if der is None:
        raise PeerError("no certificate is shown")
    return der


async def _closed(writer: asyncio.StreamWriter) -> None:
    transport = writer.transport
    transport.abort()  # nothing was said that has to arrive
    with suppress(OSError):
        await writer.wait_closed()
