"""Where a node listens, and where it sends others, when that is not the same or not as usual."""

import socket

from e2e.fleet import wait_until
from e2e.test_doctor import asked, free_port


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
        assert asked(anna, 0)["joiners_port"]["ok"]
