"""Attacks with a ticket: none reaches beyond its session, outlives it, or swells what all hold."""

import asyncio
import stat

import grpc
import pytest
from integration.attacks.inhabited import inhabited, refused, unchanged
from integration.rpc.fleet import Founded, serving

from meshnode.app.sessions import inboxes, own_entries
from meshnode.app.sessions.opening import Opening
from meshnode.client.connection.connection import Connection
from meshnode.client.errors import (
    ConflictError,
    NotAuthenticatedError,
    NotPermittedError,
    RefusedError,
)
from meshnode.client.home import Home
from meshnode.client.inside import Inside, Usage
from meshnode.client.mesh import MeshClient
from meshnode.client.targets.targets import NewSession, Target
from meshnode.core.sessions.sessions import State
from meshnode.node.sessions.inside import TICKET_FILE
from meshnode.rpc.servers import joiners_server, members_server
from meshnode.v1 import local_service_pb2 as local_pb
from meshnode.v1 import session_service_pb2 as session_pb
from meshnode.v1.command_service_pb2_grpc import CommandServiceServicer
from meshnode.v1.enrolment_service_pb2_grpc import EnrolmentServiceServicer
from meshnode.v1.link_service_pb2_grpc import LinkServiceServicer

USED = Usage(input=100, output=20)
READ_LOG = local_pb.ReadSessionLogRequest(node_id="n")


@pytest.fixture
def node():
    yield from inhabited()


def forged(ticket: str) -> list[str]:
    session, secret = ticket[5:31], ticket[32:]
    other = "a" * 43
    return [
        f"smt1_{session}_{other}",
        f"smt1_{'a' * 26}_{secret}",
        f"smt1_{session}_",
        f"smt1_{session}_{secret}A",
        f"smt2_{session}_{secret}",
        session,
        "x",
    ]


async def test_a_forged_ticket_proves_nothing(node):
    _, ticket = await node.open("worker")
    async with node.serving():
        for wrong in forged(ticket):
            await refused(node, wrong, Inside.who, NotAuthenticatedError)
            report = lambda me: me.report("r1", "m", USED)  # noqa: E731 - said once
            await refused(node, wrong, report, NotAuthenticatedError)
            register = lambda me: me.register("review")  # noqa: E731 - the same
            await refused(node, wrong, register, NotAuthenticatedError)
    unchanged(node)


async def test_a_ticket_under_another_sessions_name_proves_nothing(node):
    mine, ticket = await node.open("worker")
    other, _ = await node.open("victim")
    swapped = ticket.replace(mine, other)
    async with node.serving():
        await refused(node, swapped, lambda me: me.report("r1", "m", USED), NotAuthenticatedError)
        await refused(node, swapped, lambda me: list(me.steers()), NotAuthenticatedError)
    unchanged(node)
    assert node.inboxes.asked == []


async def test_a_ticket_ends_with_its_session(node):
    session, ticket = await node.open("worker")
    await node.end(session)
    async with node.serving():
        said = await refused(node, ticket, Inside.who, NotAuthenticatedError)
        assert "has ended" in said
        await refused(node, ticket, lambda me: me.list_sessions(), NotAuthenticatedError)
        await refused(node, ticket, lambda me: me.report("r1", "m", USED), NotAuthenticatedError)
    unchanged(node)


async def test_a_ticket_holds_through_a_restart_of_its_node_and_ends_with_its_session_after_it(
    node,
):
    session, ticket = await node.open("worker")
    node.restart()
    async with node.serving():
        assert (await node.as_agent(ticket, Inside.who))["session_id"] == session
        wrong = ticket[:-1] + ("A" if ticket[-1] != "A" else "B")
        await refused(node, wrong, Inside.who, NotAuthenticatedError)
        await node.end(session)
        await refused(node, ticket, Inside.who, NotAuthenticatedError)
    unchanged(node)


async def test_a_node_keeps_no_ticket_and_what_it_keeps_is_the_users_alone(node):
    session, ticket = await node.open("worker")
    async with node.serving():
        await node.as_agent(ticket, lambda me: me.report("r1", "m", USED))
    secret = ticket[32:].encode()
    files = [path for path in node.directory.rglob("*") if path.is_file()]
    assert not [path for path in files if secret in path.read_bytes()]
    kept = node.directory / "sessions" / session / TICKET_FILE
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


@pytest.mark.parametrize("spoil", ["0644", "link", "gone", "other"])
async def test_a_kept_hash_that_is_not_ours_alone_admits_nobody(node, spoil):
    session, ticket = await node.open("worker")
    _, other = await node.open("attacker")
    kept = node.directory / "sessions" / session / TICKET_FILE
    theirs = node.directory / "sessions" / other[5:31] / TICKET_FILE
    if spoil == "0644":
        kept.chmod(0o644)
    elif spoil == "other":
        kept.write_bytes(theirs.read_bytes())
    else:
        kept.unlink()
        if spoil == "link":
            kept.symlink_to(theirs)
    async with node.serving():
        await refused(node, ticket, Inside.who, NotAuthenticatedError)
        with_their_secret = ticket[:32] + other[32:]
        await refused(node, with_their_secret, Inside.who, NotAuthenticatedError)
    unchanged(node)


LOCAL_CALLS = {
    "GetStatus": local_pb.GetStatusRequest(),
    "ListNodes": local_pb.ListNodesRequest(),
    "NameMember": local_pb.NameMemberRequest(node_id="n"),
    "GetCost": local_pb.GetCostRequest(),
    "OpenSession": local_pb.OpenSessionRequest(agent_id="another"),
    "AttachSession": local_pb.AttachSessionRequest(session_id="s"),
    "SubmitCommand": local_pb.SubmitCommandRequest(node_id="n", timeout_s=1),
    "CreateInvite": local_pb.CreateInviteRequest(secret=bytes(16)),
    "ReadHead": local_pb.ReadHeadRequest(node_id="n"),
    "AddControl": local_pb.AddControlRequest(),
    "Stop": local_pb.StopRequest(leave=True),
}


@pytest.mark.parametrize("name", LOCAL_CALLS)
async def test_a_ticket_does_not_reach_what_is_the_users(node, name):
    _, ticket = await node.open("worker")

    def call(me: Inside):
        asking = me._asking
        return asking.call(getattr(asking.node, name), LOCAL_CALLS[name])

    async with node.serving():
        said = await refused(node, ticket, call, NotPermittedError)
        assert "a ticket does not allow this" in said
    unchanged(node)
    assert len(node.sessions.live()) == 1


@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_a_ticket_does_not_reach_streams_of_the_user(node, kind):
    _, ticket = await node.open("worker")

    def call(me: Inside):
        if kind == "unary":
            return me._asking.events()
        return list(me._asking.stream(me._asking.node.ReadSessionLog, READ_LOG))

    async with node.serving():
        await refused(node, ticket, call, NotPermittedError)
    unchanged(node)


async def test_a_client_with_the_home_and_a_ticket_commands_nothing(node):
    session, ticket = await node.open("worker")
    _, _ = await node.open("victim")
    home, environment = Home(node.directory), node.environment(ticket)

    def attempts():
        with MeshClient(home, environment=environment) as mesh:
            # Aimed well, at a session that it may list; what is refused is the command itself.
            for act in (
                lambda: mesh.kill(Target(agent_id="victim"), force=True),
                lambda: mesh.steer(Target(agent_id="victim"), message="stop"),
                lambda: mesh.register("victim", "review"),
                lambda: mesh.open_session(NewSession(agent_id="another")),
                lambda: mesh.stop(leave=True),
            ):
                with pytest.raises((NotPermittedError, NotAuthenticatedError)):
                    act()

    async with node.serving():
        await asyncio.to_thread(attempts)
    unchanged(node)
    assert node.sessions.get(session).ended is False


async def test_nobody_asks_as_an_agent_without_a_ticket(node):
    await node.open("worker")

    def attempt():
        with (
            Connection(Home(node.directory), environment={}) as user,
            pytest.raises(NotAuthenticatedError, match="inside a session"),
        ):
            user.call(user.node_sessions.ReportUsage, session_pb.ReportUsageRequest(id="r"))

    async with node.serving():
        await asyncio.to_thread(attempt)
    unchanged(node)


async def test_an_agent_registers_itself_whatever_it_claims(node):
    _, ticket = await node.open("worker")
    await node.open("victim")
    claims = node.environment(ticket) | {"SESSION_MESH_AGENT_ID": "victim"}

    def register():
        with Inside(environment=claims) as me:
            return me.register("review")

    async with node.serving():
        assert (await asyncio.to_thread(register))["agent_id"] == "worker"
    assert node.registered() == {("worker", "review")}


async def test_an_agent_takes_no_other_agent_out_of_the_registry(node):
    _, mine = await node.open("worker")
    _, theirs = await node.open("victim")
    async with node.serving():
        await node.as_agent(theirs, lambda me: me.register("review"))
        answer = await node.as_agent(mine, lambda me: me.unregister("review"))
    assert answer["outcome"] == "unknown"
    assert node.registered() == {("victim", "review")}


async def test_one_agent_does_not_fill_its_nodes_registry(node, monkeypatch):
    monkeypatch.setattr(own_entries, "ENTRIES_OF_ONE_MAX", 3)
    _, ticket = await node.open("worker")
    async with node.serving():
        for number in range(3):
            await node.as_agent(ticket, lambda me, number=number: me.register(f"s{number}"))
        await refused(node, ticket, lambda me: me.register("s3"), RefusedError)
        await node.as_agent(ticket, lambda me: me.register("s1", {"load": "0.5"}))
    assert node.registered() == {("worker", f"s{number}") for number in range(3)}


async def test_followers_do_not_use_up_the_calls_of_the_socket(node, monkeypatch):
    monkeypatch.setattr(inboxes, "FOLLOWERS_OF_ONE_MAX", 1)
    session, ticket = await node.open("worker")
    node.inboxes.steers[session] = [inboxes.Received(1, "c", "", "on", 5.0)]
    async with node.serving():
        with_a_steer, done = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def follow(me: Inside) -> None:
            steers = me.steers(follow=True)
            next(steers)
            loop.call_soon_threadsafe(with_a_steer.set)
            asyncio.run_coroutine_threadsafe(done.wait(), loop).result()
            steers.close()

        following = asyncio.ensure_future(node.as_agent(ticket, follow))
        await with_a_steer.wait()
        again = lambda me: next(me.steers(follow=True))  # noqa: E731 - said once
        await refused(node, ticket, again, RefusedError)
        assert await node.as_agent(ticket, lambda me: next(me.steers())["message"]) == "on"
        done.set()
        await following
    assert node.inboxes.asked == [session, session], "the follower too many never came through"


async def test_an_agent_reads_and_takes_its_own_steers_only(node):
    mine, ticket = await node.open("worker")
    other, _ = await node.open("victim")
    for session in (mine, other):
        node.inboxes.steers[session] = [inboxes.Received(1, "c", "", f"for {session}", 5.0)]
    async with node.serving():
        steers = await node.as_agent(ticket, lambda me: list(me.steers()))
        await node.as_agent(ticket, lambda me: me.take(1))
    assert [steer["message"] for steer in steers] == [f"for {mine}"]
    assert {session for session, _ in node.inboxes.taken} == {mine}


async def test_what_is_no_ticket_at_all_does_not_leave_the_client(node):
    for wrong in ("smk1_abc def", "ü" * 40, "a\nb", "x" * 200):
        with pytest.raises(NotAuthenticatedError, match="holds no ticket"):
            Inside(environment=node.environment(wrong))
    with pytest.raises(NotAuthenticatedError, match="runs in no session"):
        Inside(environment={})
    unchanged(node)


async def test_whatever_stands_in_a_ticket_gets_a_sentence(node):
    async with node.serving(), grpc.aio.insecure_channel(f"unix:{node.socket}") as channel:
        who = channel.unary_unary("/meshnode.v1.SessionService/GetSelf")
        for value in ("smt1_", " ", "smt1_" + "=" * 70, "../" * 30, "s" * 4000):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await who(b"", metadata=(("session-mesh-ticket", value),))
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    unchanged(node)


async def test_a_ticket_is_worth_nothing_on_the_network_ports(node):
    _, ticket = await node.open("worker")
    mesh = Founded()
    owner, attacker = mesh.node(), mesh.node()
    servers = [
        (await members_server(LinkServiceServicer(), CommandServiceServicer()), "members"),
        (await joiners_server(EnrolmentServiceServicer()), "joiners"),
    ]
    bearing = (("session-mesh-ticket", ticket),)
    for server, port in servers:
        identity = owner.identity
        credentials = identity.for_members if port == "members" else identity.for_joiners
        async with (
            serving(server, credentials) as address,
            attacker.identity.channel(owner.node_id, address) as channel,
        ):
            for method in ("SessionService/GetSelf", "LocalService/Stop"):
                call = channel.unary_unary(f"/meshnode.v1.{method}")
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(b"", metadata=bearing, timeout=5)
                assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    unchanged(node)


async def test_a_session_whose_ticket_cannot_be_kept_has_failed_and_gets_none(node):
    record = await node.sessions.open(Opening(agent_id="worker"))
    (node.directory / "sessions" / record.session_id / TICKET_FILE).symlink_to("/dev/null")
    with pytest.raises(ConflictError):
        await node.tickets.issue(record.session_id)
    assert node.sessions.get(record.session_id).state is State.FAILED
    unchanged(node)


async def test_a_follower_is_found_again_after_its_node_has_restarted(node):
    session, ticket = await node.open("worker")
    node.inboxes.steers[session] = [inboxes.Received(1, "c1", "", "before", 5.0)]
    heard, loop = asyncio.Queue(), asyncio.get_running_loop()

    def follow(me: Inside) -> None:
        for steer in me.steers(follow=True):
            loop.call_soon_threadsafe(heard.put_nowait, steer["message"])
            if steer["message"] == "after":
                return

    async with node.serving():
        following = asyncio.ensure_future(node.as_agent(ticket, follow))
        assert await heard.get() == "before"
        await node.inboxes.took.wait()
    node.restart()
    node.inboxes.steers[session].append(inboxes.Received(2, "c2", "", "after", 6.0))
    async with node.serving():
        assert await heard.get() == "after"
        await following
    assert node.inboxes.taken == [(session, 1)]
