"""Asking addresses who listens there: a node, somebody else, and nobody."""

import asyncio
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from integration.rpc.fleet import WAIT_S, Claim, Founded, handmade_leaf, now_s, serving

from meshnode.core.errors import MeshError, PeerError, UnreachableError, UsageError
from meshnode.discovery import seeds
from meshnode.discovery.hints import Hint
from meshnode.discovery.seeds import hint_at
from meshnode.node.clock import SystemClock
from meshnode.rpc.enrolment import EnrolmentServicer
from meshnode.rpc.servers import joiners_server, members_server
from meshnode.v1 import command_service_pb2_grpc as commands_grpc
from meshnode.v1 import link_service_pb2_grpc as links_grpc


@pytest.fixture(scope="module")
def mesh():
    return Founded(1)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(seeds, "READ_TIMEOUT_S", 0.3)


@asynccontextmanager
async def listening(answer: bytes | None, context: ssl.SSLContext | None = None):
    """Listen without being a node: answer with some bytes, or with silence."""
    writers = []

    async def speak(reader, writer):
        writers.append(writer)
        if answer is not None:
            await reader.read(1)
            writer.write(answer)
            writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0, ssl=context)
    async with asyncio.timeout(WAIT_S), server:
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            for writer in writers:
                writer.transport.abort()


def web_context(directory, certificate_of) -> ssl.SSLContext:
    """Speak TLS with a certificate that no mesh has issued."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "web.example")])
    at = datetime.fromtimestamp(now_s(), UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(7)
        .not_valid_before(at)
        .not_valid_after(at + timedelta(days=1))
    )
    certificate = certificate_of(builder).sign(private, SHA256())
    path = directory / "web.pem"
    path.write_bytes(
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


async def test_a_node_says_who_it_is_and_of_which_mesh(mesh):
    node = mesh.node()
    server = await members_server(
        links_grpc.LinkServiceServicer(), commands_grpc.CommandServiceServicer()
    )
    async with serving(server, node.identity.for_members) as address:
        assert await hint_at(address) == Hint(node.node_id, mesh.mesh_id, (address,))


async def test_the_joiners_port_says_it_too(mesh):
    node = mesh.node()
    servicer = EnrolmentServicer(None, mesh.mesh_id, node.node_id, SystemClock())
    async with serving(await joiners_server(servicer), node.identity.for_joiners) as address:
        assert (await hint_at(address)).node_id == node.node_id


async def test_what_a_liar_claims_is_taken_as_a_hint_and_no_more(mesh):
    """Which mesh and which node: the dial that follows is what proves it."""
    liar, victim = mesh.node(), mesh.node()
    claim = Claim([f"{victim.node_id}.node.mesh.internal"])
    shown = mesh.showing(liar, handmade_leaf(liar, claim))
    server = await members_server(
        links_grpc.LinkServiceServicer(), commands_grpc.CommandServiceServicer()
    )
    async with serving(server, shown.identity.for_members) as address:
        with pytest.raises(PeerError):  # a handmade leaf names no mesh
            await hint_at(address)


async def test_nobody_there_is_told_in_words():
    with pytest.raises(UnreachableError) as failure:
        await hint_at("127.0.0.1:1")
    assert failure.value.message == "127.0.0.1:1 cannot be reached: connection refused"


async def test_a_listener_that_says_nothing_does_not_answer(impatient):
    async with listening(None) as address:
        with pytest.raises(UnreachableError, match="does not answer"):
            await hint_at(address)


async def test_a_listener_that_hangs_up_cannot_be_reached():
    async with listening(b"") as address:
        with pytest.raises(UnreachableError):
            await hint_at(address)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", bytes(64)]
)
async def test_a_listener_that_speaks_another_protocol_is_no_node(answer):
    async with listening(answer) as address:
        with pytest.raises(PeerError, match="is no session-mesh node") as failure:
            await hint_at(address)
    assert address in failure.value.message


def plain(builder):
    return builder


def named(*names):
    def with_names(builder):
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        return builder.add_extension(alternatives, critical=False)

    return with_names


@pytest.mark.parametrize(
    "certificate_of",
    [plain, named("web.example"), named("a.example", "b.example"), named("x.node.mesh.internal")],
)
async def test_another_tls_server_is_no_node(tmp_path, certificate_of):
    async with listening(b"hello", web_context(tmp_path, certificate_of)) as address:
        with pytest.raises(PeerError):
            await hint_at(address)


async def test_a_server_of_tls_1_2_is_no_node(tmp_path):
    context = web_context(tmp_path, plain)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with listening(b"hello", context) as address:
        with pytest.raises(MeshError, match=r"does not speak TLS 1\.3|closed the connection"):
            await hint_at(address)


@pytest.mark.parametrize("address", ["a..b:7707", f"{'a' * 64}.example:7707", ".:7707"])
async def test_a_name_that_no_host_can_have_is_told_as_an_error_of_the_mesh(address):
    with pytest.raises(MeshError):
        await hint_at(address)


async def test_what_is_no_address_is_the_callers_fault():
    with pytest.raises(UsageError):
        await hint_at("nobody")
