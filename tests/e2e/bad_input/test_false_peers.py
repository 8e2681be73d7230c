"""Seeds and neighbours on the network that are no members of the mesh."""

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from e2e.fleet import Node, wait_until
from e2e.hosts import PORT


class NoNode(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def web_server():
    with ThreadingHTTPServer(("127.0.0.1", 0), NoNode) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def troubles(node: Node) -> dict[str, str]:
    return {one["peer"]: one["reason"] for one in node.json("status")["troubles"]}


def test_seeds_that_are_no_members_are_told_and_harm_nobody(anna, fleet):
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        socket.create_server(("127.0.0.1", 0)) as closed,
        web_server() as web,
    ):
        nobody = f"127.0.0.1:{closed.getsockname()[1]}"
        closed.close()
        expected = {
            anna.ready["listen"]: "belongs to another mesh",
            anna.ready["enrolment"]: "belongs to another mesh",
            f"127.0.0.1:{silent.getsockname()[1]}": "does not answer",
            web: "is no session-mesh node",
            nobody: "connection refused",
            "no-such-host.invalid:7707": "cannot be reached",
        }
        flags = [word for seed in expected for word in ("--seed", seed)]
        berta, carl = fleet.mesh("berta", "carl", flags=("--no-mdns", *flags))

        def all_told():
            told = troubles(berta)
            return all(words in told.get(seed, "") for seed, words in expected.items()) or None

        wait_until(all_told, "a word about each seed")
        assert "belongs to another mesh" in berta.call("status").out
        carl.call("run", "--detach", "--agent-id", "unmoved", "--", "cat")
        wait_until(lambda: "unmoved" in berta.sessions())
        assert berta.json("kill", "unmoved", "--yes")["outcome"] == "applied"
        assert berta.states() == {"berta": "alive", "carl": "alive"}
    assert anna.states() == {"anna": "alive"}
    assert anna.sessions("--filter", "alive") == {}


def test_another_mesh_on_the_same_network_is_told_and_left_alone(hosted_fleet):
    """On a network of its own: `status` names the three heard last, and others may shout here."""
    anna, zoe = hosted_fleet.node("anna"), hosted_fleet.node("zoe")
    for node in (anna, zoe):
        node.json("init", "--mesh", f"of-{node.name}", "--name", node.name)
        node.up("--listen", f"{node.host.address}:{PORT}")
    for node, other in ((anna, zoe), (zoe, anna)):
        wait_until(
            lambda node=node, other=other: (
                other.ready["listen"] in node.json("status")["other_meshes"]
            ),
            node.name,
        )
        assert node.states() == {node.name: "alive"}
