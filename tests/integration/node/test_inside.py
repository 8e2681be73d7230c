"""What an agent says from inside its session, and who hears that it is at work by that."""

import asyncio
from collections.abc import Iterator

import pytest
from integration.client.service import short_home
from integration.node.test_ending import running

from meshnode.agents.processes import ProcessAgents
from meshnode.app.sessions.activity import Activity
from meshnode.client.home import Home, make_private
from meshnode.client.inside import Inside, Usage
from meshnode.client.mesh import MeshClient
from meshnode.client.targets.targets import NewSession, Selection
from meshnode.core.errors import UsageError
from meshnode.node.homes.founding import found
from meshnode.v1 import session_service_pb2 as pb

pytestmark = pytest.mark.integration

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


def done(home: Home, act) -> str:
    """Do something in a session whose agent there is none of; returns the session's id."""
    with MeshClient(home) as mesh:
        opened = mesh.open_session(NewSession())
        own = {
            "SESSION_MESH_TICKET": opened["ticket"],
            "SESSION_MESH_SOCKET": str(home.socket),
        }
        with Inside(environment=own) as session:
            act(session)
        mesh.stop(leave=False, sessions="keep")
        return opened["session_id"]


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
