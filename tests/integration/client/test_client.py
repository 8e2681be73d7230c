"""The client asks a node over a real Unix socket, and says what is wrong with the answer."""

import socket
from functools import partial
from threading import Timer
from threading import enumerate as enumerate_threads

import grpc
import pytest
from integration.client.service import (
    session,
)

from meshnode.client.connection import connection
from meshnode.client.errors import NoNodeError, SilentNodeError
from meshnode.client.mesh import CLOSE_TIMEOUT_S, MeshClient
from meshnode.client.targets.targets import NewSession, Selection
from meshnode.core.errors import (
    ConflictError,
    MeshError,
)
from meshnode.core.keys import Signed


def test_without_a_socket_no_node_is_running(home):
    with pytest.raises(NoNodeError, match="no node is running on this home") as raised:
        MeshClient(home).__enter__()
    assert raised.value.message.endswith(f"{home.path}, which belongs to no mesh")
    assert "session-mesh join - --up" in raised.value.hint, "it belongs to no mesh yet"
    assert "session-mesh up --detach" in raised.value.hint
    assert raised.value.exit_code == 6
    home.genesis.touch()
    with pytest.raises(NoNodeError) as raised:
        MeshClient(home).__enter__()
    assert raised.value.hint == "start one: session-mesh up --detach"


@pytest.mark.parametrize(
    ("ask", "most_s"),
    [(MeshClient.status, None), (partial(MeshClient.stop, sessions="close"), CLOSE_TIMEOUT_S)],
)
def test_who_waits_for_a_node_is_told_so_once_it_takes_long(home, monkeypatch, ask, most_s):
    monkeypatch.setattr(connection, "NOTICED_S", 0.05)
    told: list[float | None] = []
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(home.socket))
        held.listen(1)
        with MeshClient(home, on_wait=told.append) as mesh, pytest.raises(SilentNodeError):
            ask(mesh)
    assert told == [most_s]


def test_who_is_answered_soon_is_told_nothing(home, service, monkeypatch):
    monkeypatch.setattr(connection, "NOTICED_S", 3600.0)
    told = []
    with MeshClient(home, on_wait=told.append) as mesh:
        assert mesh.status()["name"] == "anna"
    assert told == []
    for timer in [one for one in enumerate_threads() if isinstance(one, Timer)]:
        timer.join(5)
        assert not timer.is_alive()


def test_a_socket_that_nobody_listens_on_is_no_node_either(home):
    home.socket.touch(mode=0o600)
    with MeshClient(home) as mesh, pytest.raises(NoNodeError):
        mesh.status()


def test_a_process_that_holds_the_socket_and_says_nothing_is_named(home):
    home.lock.write_text("7\n")
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(home.socket))
        held.listen(1)
        with MeshClient(home) as mesh, pytest.raises(SilentNodeError, match=r"pid 7\)") as raised:
            mesh.status()
    assert raised.value.exit_code == 6


def test_only_members_that_are_alive_have_working_links(mesh):
    anna, berta = mesh.nodes()["nodes"]
    assert anna["links"] == [berta["node_id"]]
    assert berta["links"] == []


def test_the_status_comes_as_plain_values(mesh):
    assert mesh.status()["name"] == "anna"


def test_all_pages_are_followed_up_to_the_limit(mesh, service):
    service.sessions = [session(f"agent-{number}") for number in range(2500)]
    assert len(mesh.list_sessions()["sessions"]) == 2500
    assert [request.next for request in service.requests] == ["", "1000", "2000"]
    service.requests.clear()
    listed = mesh.list_sessions(limit=1200)
    assert len(listed["sessions"]) == 1200
    assert [request.limit for request in service.requests] == [1000, 200]
    assert listed["coverage"]["nodes_heard"] == 2


def test_a_selection_reaches_the_node(mesh, service):
    mesh.list_sessions(Selection("alive", "anna", "review", "me", "a", {"k": "v"}, "cost"))
    (request,) = service.requests
    assert (request.filter, request.node, request.specialization) == ("alive", "anna", "review")
    assert (request.owner, request.sort, dict(request.labels)) == ("me", "cost", {"k": "v"})


def test_cost_leaves_out_what_was_not_asked(mesh, service):
    assert mesh.cost(("model",), since="2026-11-01T00:00:00Z")["records"] == 3
    (request,) = service.requests
    assert request.HasField("since")
    assert not request.HasField("until")


def test_a_session_is_opened_and_attached(mesh, service):
    service.sessions = [session("builder")]
    opened = mesh.open_session(NewSession(agent_id="builder", labels={"k": "v"}))
    assert opened["agent_id"] == "builder"
    assert dict(service.requests[0].labels) == {"k": "v"}
    assert mesh.attach_session(opened["session_id"])["agent_id"] == "builder"


def test_an_invite_carries_the_operators_word(mesh, service):
    word = Signed("invite", b"payload", b"mark")
    assert mesh.invite(word, b"s" * 16) == ["192.0.2.7:7708"]
    assert service.requests[0].authorization.payload == b"payload"


# errors


def test_stopping_says_how(mesh, service):
    stopped = {"kept": 2, "closed": 0, "links": 0, "members": 0}
    assert mesh.stop(leave=True, sessions="keep") == stopped
    assert service.requests[0].leave
    assert service.requests[0].sessions == "keep"


def test_the_nodes_error_comes_back_as_itself(mesh, service):
    told = ConflictError("it is so", "do that")
    service.errors = [(grpc.StatusCode.ALREADY_EXISTS, told)]
    with pytest.raises(ConflictError) as raised:
        mesh.status()
    assert (raised.value.message, raised.value.hint) == ("it is so", "do that")


def test_an_error_of_an_unknown_kind_is_a_plain_one(mesh, service):
    told = MeshError("from the future")
    told.code = "unheard_of"
    service.errors = [(grpc.StatusCode.INTERNAL, told)]
    with pytest.raises(MeshError, match="from the future") as raised:
        mesh.status()
    assert raised.value.exit_code == 1
