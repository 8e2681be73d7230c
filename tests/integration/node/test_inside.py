"""What an agent says from inside its session, and who hears that it is at work by that."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from integration.client.service import short_home
from integration.node.test_ending import running

from meshnode.agents.processes import ProcessAgents
from meshnode.app.sessions.activity import Activity
from meshnode.client.errors import UnreachableError
from meshnode.client.home import Home, make_private
from meshnode.client.inside import AWAY_PAUSES_S, Inside, Usage
from meshnode.client.mesh import MeshClient
from meshnode.client.targets.targets import NewSession, Selection
from meshnode.core.errors import UsageError
from meshnode.node.homes.founding import found
from meshnode.v1 import session_service_pb2 as pb

pytestmark = pytest.mark.integration

WAIT = 60  # for what happens at once
ACTS = {
    "registers": lambda me: me.register("review"),
    "unregisters": lambda me: me.unregister("review"),
    "reports": lambda me: me.report("r1", "gpt-5", Usage(input=1)),
    "reports again": lambda me: [me.report("r2", "gpt-5", Usage(input=1)) for _ in range(2)],
    "looks": lambda me: [me.who(), me.list_sessions(Selection())],
}


@pytest.fixture
def home() -> Iterator[Home]:
    with short_home() as home:
        found(home, None, "anna", None)
        make_private(home.sessions)
        yield home


def opened(home: Home, mesh: MeshClient) -> tuple[str, dict[str, str]]:
    """Open a session whose agent there is none of: its id, and what is in its environment."""
    session = mesh.open_session(NewSession())
    own = {"SESSION_MESH_TICKET": session["ticket"], "SESSION_MESH_SOCKET": str(home.socket)}
    return session["session_id"], own


def done(home: Home, act) -> str:
    """Do something in such a session; returns its id."""
    with MeshClient(home) as mesh:
        session_id, own = opened(home, mesh)
        with Inside(environment=own) as session:
            act(session)
        mesh.stop(leave=False, sessions="keep")
        return session_id


@pytest.mark.parametrize("act", ACTS)
async def test_what_an_agent_tells_of_itself_is_work_and_a_look_is_none(home, monkeypatch, act):
    shown, supervised = [], []
    monkeypatch.setattr(Activity, "note", lambda _, session_id: shown.append(session_id))
    monkeypatch.setattr(
        ProcessAgents, "worked", lambda _, session_id: supervised.append(session_id)
    )
    async with running(home):
        session_id = await asyncio.to_thread(done, home, ACTS[act])
    assert shown == supervised == ([] if act == "looks" else [session_id])


async def test_a_report_whose_usage_was_left_out_is_refused_and_counts_nothing(home):
    told = []

    def act(session: Inside) -> None:
        asking = session._asking
        request = pb.ReportUsageRequest(id="r1", model="gpt-5")
        with pytest.raises(UsageError, match="without usage"):
            asking.call(asking.node_sessions.ReportUsage, request)
        told.append(session.report("r1", "gpt-5", Usage(input=1)))
        told.append(session.report("r2", "gpt-5", Usage()))  # none was used: that is said

    async with running(home):
        await asyncio.to_thread(done, home, act)
    assert told == [True, True]


async def test_a_report_waits_for_a_node_that_is_being_restarted_and_counts_once(home):
    asked, is_back = threading.Event(), threading.Event()

    def before() -> dict[str, str]:
        with MeshClient(home) as mesh:
            own = opened(home, mesh)[1]
            mesh.stop(leave=False, sessions="keep")
            return own

    def pause(_: float) -> None:
        asked.set()
        assert is_back.wait(WAIT)

    def after() -> bool:
        with MeshClient(home) as mesh:
            again = session.report("r1", "gpt-5", Usage(input=1))
            mesh.stop(leave=False, sessions="keep")
            return again

    async with running(home):
        own = await asyncio.to_thread(before)
    session = Inside(environment=own, pause=pause)
    reporting = asyncio.create_task(
        asyncio.to_thread(session.report, "r1", "gpt-5", Usage(input=1))
    )
    assert await asyncio.to_thread(asked.wait, WAIT)
    async with running(home):
        is_back.set()
        assert await reporting is True
        assert await asyncio.to_thread(after) is False


def test_a_report_to_a_node_that_stays_away_is_refused_after_a_while(home):
    own = {"SESSION_MESH_TICKET": "t" * 52, "SESSION_MESH_SOCKET": str(home.socket)}
    pauses = []
    with pytest.raises(UnreachableError, match="the node of this session") as caught:
        Inside(environment=own, pause=pauses.append).report("r1", "gpt-5", Usage(input=1))
    assert pauses == list(AWAY_PAUSES_S)
    assert caught.value.hint.endswith("under the same id: r1")


@pytest.fixture
def beginning(home):
    """A node that has its socket, and serves nobody yet: whoever comes is let go at once."""
    home.run.mkdir(parents=True, mode=0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(home.socket))
        home.socket.chmod(0o600)
        door.listen()

        def serve() -> None:
            with suppress(OSError):
                while True:
                    door.accept()[0].close()

        serving = threading.Thread(target=serve)
        serving.start()
        yield
        door.shutdown(socket.SHUT_RDWR)
        serving.join()


@pytest.mark.usefixtures("beginning")
def test_a_report_waits_for_a_node_that_has_its_socket_and_is_not_there_yet(home):
    own = {"SESSION_MESH_TICKET": "t" * 52, "SESSION_MESH_SOCKET": str(home.socket)}
    pauses = []
    with pytest.raises(UnreachableError, match="the node of this session"):
        Inside(environment=own, pause=pauses.append).report("r1", "gpt-5", Usage(input=1))
    assert pauses == list(AWAY_PAUSES_S)


async def test_a_report_that_waited_in_vain_leaves_the_rest_of_a_session_as_it_was(home):
    async with running(home):

        def act() -> None:
            with MeshClient(home) as mesh:
                session_id, own = opened(home, mesh)
                door, aside = home.socket, home.socket.with_name("aside")
                with Inside(environment=own, pause=lambda _: None) as session:
                    door.rename(aside)
                    with pytest.raises(UnreachableError):
                        session.report("r1", "gpt-5", Usage(input=1))
                    aside.rename(door)
                    assert session.who()["session_id"] == session_id
                    assert session.report("r1", "gpt-5", Usage(input=1))
                mesh.stop(leave=False, sessions="keep")

        await asyncio.to_thread(act)
