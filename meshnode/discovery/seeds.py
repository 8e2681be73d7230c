"""Finding nodes at addresses that somebody wrote down.

A seed is host:port and no identity, but dialling needs a node id to pin. So the certificate that
listens there is read first, believed in nothing, and gives the hint whom to dial; the dial then
proves it or fails.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from ipaddress import IPv6Address, ip_address

from meshnode.core.errors import PeerError, UnreachableError, UsageError
from meshnode.core.membership.certificates import hints_in
from meshnode.discovery.hints import Hint
from meshnode.discovery.names import connected

READ_TIMEOUT_S = 3.0
PORT_MAX = 65535
_ADDRESS = re.compile(r"(?:\[(?P<ipv6>[^\[\]\s]+)\]|(?P<host>[^\[\]:/\s]+)):(?P<port>[0-9]{1,5})")


def parse_address(text: str) -> tuple[str, int]:
    """Split host:port; raises UsageError. IPv6 addresses stand in brackets."""
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found["port"]) > PORT_MAX or not _is_host(found):
        hint = "write HOST:PORT, or [IPv6]:PORT"
        if text.count(":") > 1 and "[" not in text:
            hint = "write an IPv6 address in brackets"
        raise UsageError(f"not an address: {text[:80]!r}", hint)
    return found["ipv6"] or found["host"], int(found["port"])


def check_advertised(text: str) -> None:
    """Raise UsageError for what leads to nobody: no host:port, or one to listen at alone."""
    host, _ = parse_address(text)
    try:
        if not ip_address(host).is_unspecified:
            return
    except ValueError:  # a name
        return
    hint = "advertise one that leads here, or nothing: then those of this machine are"
    raise UsageError(f"nobody can dial {text}: it stands for all addresses of a machine", hint)


def check_seed(text: str) -> None:
    """Raise UsageError for what leads to nobody: no host:port, or no port."""
    _, port = parse_address(text)
    if not port:
        raise UsageError(f"nobody listens at {text}: a port is 1 to {PORT_MAX}", "write HOST:PORT")


def bracketed(host: str) -> str:
    """Write a host as it stands before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _is_host(found: re.Match[str]) -> bool:
    try:
        return found["host"] is not None or IPv6Address(found["ipv6"]).version > 0
    except ValueError:
        return False


def is_address(text: str) -> bool:
    """Whether what somebody else calls an address is host:port, and no other kind of target."""
    try:
        parse_address(text)
    except UsageError:
        return False
    return True


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
            _, writer = await connected(host, port, context)
    except TimeoutError as error:
        raise UnreachableError(f"{address} does not answer") from error
    except ssl.SSLError as error:
        raise PeerError(f"{address} is no session-mesh node: it does not speak TLS 1.3") from error
    except UnicodeError as error:  # what Python makes of a name that DNS cannot carry
        raise UnreachableError(f"{address} cannot be reached: it is no name of a host") from error
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
    return text.lower()[:120] or "it closed the connection"
