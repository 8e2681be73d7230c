"""A node and whoever knocks at its ports without belonging to the mesh."""

import random
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor

import pytest

STRANGERS = 24  # at once
KNOCKS = 60  # of each


def knock(port: int, seed: int) -> int:
    """Begin TLS handshakes and break them off at one point or another; return how many began."""
    rng = random.Random(seed)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    begun = 0
    for _ in range(KNOCKS):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as stranger:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            handshake = context.wrap_bio(incoming, outgoing)
            for _ in range(rng.choice([1, 2, 2, 2])):
                try:
                    handshake.do_handshake()
                except ssl.SSLWantReadError:
                    stranger.sendall(outgoing.read())
                    if rng.random() < 0.8:
                        incoming.write(stranger.recv(65536))
                        begun += 1
    return begun


@pytest.mark.parametrize("listener", ["listen", "enrolment"])
def test_many_broken_handshakes_at_once_do_not_end_a_node(fleet, listener: str):
    """gRPC aborted the process when each handshake was given the certificate anew."""
    (node,) = fleet.mesh("anna")
    shown = node.ready[listener]
    port = int((shown if isinstance(shown, str) else shown[0]).rpartition(":")[2])
    with ThreadPoolExecutor(STRANGERS) as strangers:
        begun = sum(strangers.map(lambda seed: knock(port, seed), range(STRANGERS)))
    assert begun > STRANGERS * KNOCKS / 2
    assert node.process.poll() is None
    assert node.states() == {"anna": "alive"}
