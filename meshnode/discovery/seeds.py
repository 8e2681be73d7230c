"""Finding nodes at addresses that somebody wrote down.

A seed is host:port and no identity, but dialling needs a node id to pin. So the certificate that
listens there is read first, believed in nothing, and gives the hint whom to dial; the dial then
proves it or fails.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl

from meshnode.core.certificates import hints_in
from meshnode.core.errors import PeerError, UnreachableError, UsageError
from meshnode.discovery.hints import Hint

READ_TIMEOUT_S = 3.0


def parse_address(text: str) -> tuple[str, int]:
    """Split host:port; raises UsageError. IPv6 addresses stand in brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535 or not host:  # noqa: PLR2004
        raise UsageError(f"not an address: {text[:80]!r}", "write HOST:PORT, or [IPv6]:PORT")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise UsageError(f"not an address: {text[:80]!r}", "write an IPv6 address in brackets")
    return host.strip("[]"), int(port)


async def hint_at(address: str) -> Hint:
    """Ask who claims to listen at an address; raises UnreachableError or PeerError."""
    host, port = parse_address(address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # a hint only: the dial that follows verifies
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except TimeoutError as error:
        raise UnreachableError(f"{address} does not answer") from error
    except ssl.SSLError as error:
        raise PeerError(f"{address} is no session-mesh node: it does not speak TLS 1.3") from error
    except OSError as error:
        raise UnreachableError(f"{address} cannot be reached: {_said(error)}") from error
    try:
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()
    if certificate is None:
        raise PeerError(f"{address} shows no certificate")
    node_id, mesh_id = hints_in(certificate)
    return Hint(node_id, mesh_id, (address,))


def _said(error: OSError) -> str:
    """Say in plain words what asyncio wraps in calls and tuples."""
    text = error.strerror or str(error)
    if error.errno is not None and not isinstance(error, socket.gaierror):
        text = os.strerror(error.errno)
    return text.lower()[:120]
