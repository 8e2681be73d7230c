"""Where a node listens, and where it sends others, when that is not the same or not as usual."""

import select
import socket
import socketserver
import threading
from contextlib import contextmanager, suppress

from e2e.fleet import wait_until
from e2e.test_doctor import asked, failed, free_port

LOOK_S = 0.1  # whether the router is off


def test_a_node_whose_port_for_joiners_is_taken_admits_at_another_one(fleet):
    anna, berta = fleet.node("anna"), fleet.node("berta")
    port = free_port()
    with socket.create_server(("127.0.0.1", port + 1)):
        anna.up("--listen", f"127.0.0.1:{port}", "--no-mdns", "--name", "anna")
        assert anna.ready["listen"] == f"127.0.0.1:{port}"
        invite = anna.json("invite")
        assert invite["addresses"] == [anna.ready["enrolment"]] != [f"127.0.0.1:{port + 1}"]
        berta.json("join", "-", "--name", "berta", stdin=invite["invite"])
        berta.up("--listen", "127.0.0.1:0", "--no-mdns")
        wait_until(lambda: anna.states().get("berta") == "alive")
        said = asked(anna, 0)["joiners_port"]
        assert said["ok"]
        assert f"not on port {port + 1}" in said["detail"]


class Passing(socketserver.BaseRequestHandler):
    """Passes one connection on, as a router does, until an end of it or the router is off."""

    def handle(self):
        with socket.create_connection(("127.0.0.1", self.server.inside)) as here, suppress(OSError):
            ends = {self.request: here, here: self.request}
            while self.server.is_on:
                for source in select.select(list(ends), [], [], LOOK_S)[0]:
                    piece = source.recv(1 << 16)
                    if not piece:
                        return
                    ends[source].sendall(piece)


@contextmanager
def forwarded(outside: int, inside: int):
    with socketserver.ThreadingTCPServer(("127.0.0.1", outside), Passing) as router:
        router.inside, router.is_on = inside, True
        serving = threading.Thread(target=router.serve_forever, args=(LOOK_S,))
        serving.start()
        try:
            yield
        finally:
            router.is_on = False
            router.shutdown()
            serving.join()


def test_a_node_behind_a_router_is_joined_and_found_at_what_it_advertises(fleet):
    anna, berta = fleet.node("anna"), fleet.node("berta")
    inside, outside = free_port(), free_port()
    where = ("--listen", f"127.0.0.1:{inside}", "--advertise", f"127.0.0.1:{outside}")
    with forwarded(outside, inside), forwarded(outside + 1, inside + 1):
        anna.up(*where, "--no-mdns", "--name", "anna")
        state = anna.json("status")
        assert state["listen"] == [anna.ready["listen"]] == [f"127.0.0.1:{inside}"]
        assert state["enrolment"] == anna.ready["enrolment"] == f"127.0.0.1:{inside + 1}"
        assert state["advertised"] == [f"127.0.0.1:{outside}"]
        invite = anna.json("invite")
        assert invite["addresses"] == [f"127.0.0.1:{outside + 1}"]
        berta.json("join", "-", "--name", "berta", stdin=invite["invite"])
        berta.up("--listen", "127.0.0.1:0", "--no-mdns")
        wait_until(lambda: berta.states().get("anna") == "alive")
        assert asked(anna, 0)["joiners_port"]["detail"].endswith(f":{inside + 1}")
    assert failed(asked(anna, 1)) == {"listening"}, "the router is off: both ports are well"
