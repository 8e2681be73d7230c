"""Who may hold a connection to an HTTPS port: places are taken before a handshake."""

import select
import ssl
from contextlib import ExitStack, suppress

import pytest
from e2e.test_http_hardening import ALIVE, request, status_of
from e2e.web import HTTP, door_of, drained

from meshnode.gateway.listening import CONNECTIONS_MAX


@pytest.fixture(scope="module")
def tls_door(shared_fleet):
    (node,) = shared_fleet.mesh("tls", flags=("--no-mdns", *HTTP, "--http-tls"))
    return door_of(node)


def test_who_says_nothing_to_a_tls_port_has_the_places_of_one_address_and_no_more(tls_door):
    with ExitStack() as held:
        silent = [held.enter_context(tls_door.connected()) for _ in range(600)]
        watched = select.poll()
        number_of = {}
        for number, plug in enumerate(silent):
            watched.register(plug, select.POLLIN)
            number_of[plug.fileno()] = number
        cut = set()
        while len(cut) < 600 - CONNECTIONS_MAX // 2:
            for file, _ in watched.poll():
                watched.unregister(file)
                cut.add(number_of[file])
        # At once, and not with the first of all when none has said hello for long enough.
        assert cut == set(range(CONNECTIONS_MAX // 2, 600))


def test_a_request_that_comes_with_the_end_of_the_handshake_is_answered(tls_door):
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    read, written = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(read, written)
    with tls_door.connected() as plug:
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        while True:
            plug.sendall(written.read())
            read.write(plug.recv(1 << 16))
            with suppress(ssl.SSLWantReadError):
                client.do_handshake()
                break
        client.write(request(tls_door, f"GET {ALIVE} HTTP/1.1\nHost: 127.0.0.1\n"))
        plug.sendall(written.read())  # in one segment with what ends the handshake
        read.write(drained(plug))
    assert status_of(client.read(1 << 16)) == 200
