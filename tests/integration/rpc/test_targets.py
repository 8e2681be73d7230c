"""What members and invites call addresses: hosts and ports, and nothing else is dialled."""

import asyncio
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import pytest
from integration.rpc.fleet import WAIT_S, health_of
from integration.rpc.test_tls import SERVING, members_port

from meshnode.core.errors import MeshError, UnreachableError
from meshnode.rpc.renewal import ask_to_renew
from meshnode.rpc.servers import bind, members_server
from meshnode.rpc.tls import joining_channel
from meshnode.v1 import command_service_pb2_grpc as commands_grpc
from meshnode.v1 import enrolment_service_pb2 as pb
from meshnode.v1 import enrolment_service_pb2_grpc as pb_grpc
from meshnode.v1 import link_service_pb2_grpc as links_grpc


@pytest.fixture
def calls():
    """Whoever calls at the place that an address leads to."""
    return list[object]()


@pytest.fixture
async def place(calls):
    """A Unix socket, and a server of names beside it: to be reached by no address of a member."""

    class Names(asyncio.DatagramProtocol):
        def datagram_received(self, data, addr):
            calls.append(data)

    async def call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(await reader.read(1))
        writer.close()

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Names, ("127.0.0.1", 0))
    with closing(transport), TemporaryDirectory(prefix="smesh") as directory:
        path = Path(directory) / "s.sock"
        async with await asyncio.start_unix_server(call, path):
            yield {"path": str(path), "port": transport.get_extra_info("sockname")[1]}


TARGETS = ["unix:{path}", "unix://{path}", "dns://127.0.0.1:{port}/peer.example:7707"]


@pytest.mark.parametrize("target", TARGETS)
async def test_no_address_of_a_member_leads_to_a_unix_socket_or_another_name_server(
    mesh, place, calls, target
):
    anna, bert = mesh.node(), mesh.node()
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(UnreachableError):
            await ask_to_renew(anna.identity, bert.node_id, [target.format(**place)])
    assert calls == []


@pytest.mark.parametrize("target", TARGETS)
async def test_nor_does_an_address_of_an_invite(mesh, place, calls, target):
    admitter, root = mesh.the_admitter().node_id, mesh.root.public
    with joining_channel(root, mesh.mesh_id, admitter, target.format(**place)) as channel:
        hello = pb_grpc.EnrolmentServiceStub(channel).Hello
        with pytest.raises(grpc.RpcError):
            await asyncio.to_thread(hello, pb.HelloRequest(), timeout=WAIT_S)
    assert calls == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST"])
async def test_hosts_are_reached_by_number_and_by_name(mesh, host):
    anna, bert = mesh.node(), mesh.node()
    async with members_port(bert) as address:
        port = address.rpartition(":")[2]
        channel = anna.identity.channel(bert.node_id, f"{host}:{port}")
        assert await health_of(channel) == SERVING


async def test_a_host_is_reached_over_ipv6(mesh):
    anna, bert = mesh.node(), mesh.node()
    server = await members_server(
        links_grpc.LinkServiceServicer(), commands_grpc.CommandServiceServicer()
    )
    try:
        port = bind(server, "[::1]:0", bert.identity.for_members)
    except MeshError:
        pytest.skip("no IPv6 on the loopback here")
    await server.start()
    try:
        for host in ("[::1]", "[0:0:0:0:0:0:0:1]", "[::1%lo]"):
            channel = anna.identity.channel(bert.node_id, f"{host}:{port}")
            assert await health_of(channel) == SERVING
    finally:
        await server.stop(None)
