"""Taking a port."""

import grpc
import pytest

from meshnode.core.errors import ConflictError
from meshnode.rpc.servers import CHOSEN_MAX, bind


class Server:
    """Answers like a server whose ports are taken, the first times."""

    def __init__(self, *ports: int | RuntimeError) -> None:
        self.ports = list(ports)
        self.shown: list[grpc.ServerCredentials] = []

    def add_secure_port(self, _address: str, credentials: grpc.ServerCredentials) -> int:
        assert credentials not in self.shown, "gRPC takes what is renewed for one port alone"
        self.shown.append(credentials)
        port = self.ports.pop(0)
        if isinstance(port, RuntimeError):
            raise port
        return port


TAKEN = RuntimeError("Failed to bind to address")


@pytest.mark.parametrize("taken", [0, TAKEN])
def test_a_port_that_the_kernel_chose_and_somebody_took_is_chosen_again(taken: int | RuntimeError):
    assert bind(Server(taken, 4711), "127.0.0.1:0", object) == 4711


@pytest.mark.parametrize("taken", [0, TAKEN])
def test_a_port_that_was_asked_for_is_tried_once(taken: int | RuntimeError):
    server = Server(taken, 4711)
    with pytest.raises(ConflictError, match=r"cannot listen on 127\.0\.0\.1:80"):
        bind(server, "127.0.0.1:80", object)
    assert server.ports == [4711]


def test_where_no_port_can_be_taken_that_is_said():
    server = Server(*[0] * CHOSEN_MAX, 4711)
    with pytest.raises(ConflictError, match=r"cannot listen on any port of \[::1\]: "):
        bind(server, "[::1]:0", object)
    assert server.ports == [4711]
