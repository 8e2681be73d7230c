"""Places on the loopback where no honest node listens, and names that stand for several."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

BOTH = ("127.0.0.2", "127.0.0.1")
NAME = "both.example"


@contextmanager
def black_hole(host: str, port: int) -> Iterator[None]:
    """Drop whatever comes to a port, as a firewall does: its backlog is full."""
    with ExitStack() as held:
        listener = held.enter_context(socket.create_server((host, port), backlog=0))
        for _ in range(4):
            client = held.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield


def stand_for(monkeypatch: pytest.MonkeyPatch, *ips: str) -> list[str]:
    """Let NAME stand for these addresses; returns what is asked for, as it is."""
    asked, real = [], socket.getaddrinfo

    def found(host, *rest, **named):
        if host != NAME:
            return real(host, *rest, **named)
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 0)) for ip in ips]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    return asked
