"""A client that speaks just enough HTTP/2 (RFC 9113) to call over any TLS it likes, or half."""

import socket
import ssl
from dataclasses import dataclass

from integration.rpc.fleet import (
    WAIT_S,
    Member,
)

from meshnode.core.membership.certificates import dns_name_of

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream.to_bytes(4, "big") + payload


def literal(name: str, value: str) -> bytes:
    parts = (name.encode(), value.encode())
    return b"\0" + b"".join(bytes([len(part)]) + part for part in parts)  # RFC 7541, 6.2.2


SUBMIT = "/meshnode.v1.CommandService/Submit"
OPENING = PREFACE + frame(SETTINGS, 0, 0, b"")


def call_without_body(authority: str, path: str, stream: int = 1) -> bytes:
    """Begin a call, and leave its request open."""
    headers = {
        ":method": "POST",
        ":scheme": "https",
        ":path": path,
        ":authority": authority,
        "content-type": "application/grpc",
        "te": "trailers",
    }
    block = b"".join(literal(name, value) for name, value in headers.items())
    return frame(HEADERS, END_HEADERS, stream, block)


def whole_call(authority: str, path: str, stream: int = 1) -> bytes:
    """Make a call with an empty request."""
    begun = call_without_body(authority, path, stream)
    return begun + frame(DATA, END_STREAM, stream, bytes(5))


@dataclass(frozen=True)
class Spoken:
    """What came of a call by hand."""

    version: str
    reused: bool
    answer: bytes
    session: ssl.SSLSession | None


def speak(
    member: Member,
    peer: Member,
    address: str,
    context: ssl.SSLContext,
    session=None,
    path: str = SUBMIT,
) -> Spoken:
    """Call over a TLS connection of our own; returns everything that came back."""
    host, port = address.split(":")
    name = dns_name_of(peer.node_id)
    with (
        socket.create_connection((host, int(port)), WAIT_S) as plain,
        context.wrap_socket(plain, server_hostname=name, session=session) as stream,
    ):
        stream.sendall(OPENING + whole_call(name, path))
        answer = b""
        while not streams_ended(answer):
            piece = stream.recv(65536)
            if not piece:
                break
            answer += piece
        return Spoken(stream.version(), bool(stream.session_reused), answer, stream.session)


def streams_ended(answer: bytes) -> int:
    """Count the streams whose end has come."""
    ended = 0
    while len(answer) >= 9 and len(answer) >= 9 + (size := int.from_bytes(answer[:3], "big")):
        ended += answer[3] in {DATA, HEADERS} and bool(answer[4] & END_STREAM)
        answer = answer[9 + size :]
    return ended
