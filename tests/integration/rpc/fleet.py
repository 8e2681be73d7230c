"""A mesh in memory for tests: its root, its admitter, and nodes with real TLS identities."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random

import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshnode.core.ids import NodeId, node_id_of
from meshnode.core.keys import Key
from meshnode.core.membership.certificates import (
    Leaf,
    dns_name_of,
    issue_admitter,
    issue_leaf,
    issue_node_ca,
    to_pem,
)
from meshnode.core.membership.genesis import Genesis
from meshnode.node.clock import SystemClock
from meshnode.rpc.servers import bind
from meshnode.rpc.tls import Credentials, Identity

WAIT_S = 20.0  # a bound for what happens in milliseconds, so that a failure ends
LOOPBACK = "127.0.0.1:0"
DAY_S = 86400.0
now_s = SystemClock().wall_s  # TLS judges by this machine's clock, so certificates are real


@dataclass(frozen=True)
class Member:
    """One node's keys, its certificates and what TLS makes of them."""

    key: Key
    node_id: NodeId
    chain: tuple[bytes, ...]
    identity: Identity


class FixedIdentity(Identity):
    """An identity that shows one given leaf, however wrong."""

    def __init__(self, credentials: Credentials, leaf: Leaf) -> None:
        super().__init__(credentials)
        self._fixed = leaf

    def leaf(self) -> Leaf:
        return self._fixed


class Founded:
    """The root and the admitter of a mesh, and everybody they admit."""

    def __init__(self, seed: int = 1) -> None:
        self.chance = Random(seed).randbytes
        self.root, self.admitter = Key.new(self.chance), Key.new(self.chance)
        self.genesis = Genesis((self.root.public,), 1, f"lab{seed}", self.chance(16))
        self.mesh_id = self.genesis.mesh_id
        self.admitter_certificate = issue_admitter(
            self.root, self.mesh_id, node_id_of(self.admitter.public), now_s(), self.chance
        )

    def node(
        self,
        *,
        wall_s: Callable[[], float] = now_s,
        admitted_at_s: float | None = None,
        key: Key | None = None,
    ) -> Member:
        """Admit a node."""
        key = key or Key.new(self.chance)
        node_id = node_id_of(key.public)
        at_s = now_s() if admitted_at_s is None else admitted_at_s
        ca = issue_node_ca(self.admitter, node_id, at_s, self.chance)
        chain = (ca, self.admitter_certificate)
        return Member(key, node_id, chain, Identity(self._credentials(key, chain, wall_s)))

    def the_admitter(self) -> Member:
        """Return the admitter as a node."""
        return self.node(key=self.admitter)

    def showing(self, member: Member, leaf: Leaf) -> Member:
        """Return the member with a leaf of the test's making."""
        credentials = self._credentials(member.key, member.chain, now_s)
        identity = FixedIdentity(credentials, leaf)
        return Member(member.key, member.node_id, member.chain, identity)

    def leaf_of(self, member: Member, at_s: float) -> Leaf:
        """Issue the leaf that the member would issue at a time."""
        return issue_leaf(member.key, self.mesh_id, member.chain, at_s, self.chance)

    def _credentials(
        self, key: Key, chain: tuple[bytes, ...], wall_s: Callable[[], float]
    ) -> Credentials:
        return Credentials(key, self.genesis, chain, wall_s, self.chance)


@dataclass(frozen=True)
class Claim:
    """What a leaf made by hand says."""

    dns: Sequence[str]
    uris: Sequence[str] = ()
    common_name: str = "a leaf"
    lives: timedelta = timedelta(days=1)
    ca: bool = False


def handmade_leaf(member: Member, claim: Claim) -> Leaf:
    """Sign whatever is claimed with a member's own authority."""
    authority = x509.load_der_x509_certificate(member.chain[0])
    signer = Ed25519PrivateKey.from_private_bytes(member.key.seed)
    private, certificate = _certificate(authority.subject, signer, claim)
    return _leaf(private, certificate, member.chain)


def leaf_under_a_leaf(member: Member, claim: Claim, *, as_authority: bool = False) -> Leaf:
    """Sign a leaf with a leaf, which may call itself an authority."""
    authority = x509.load_der_x509_certificate(member.chain[0])
    signer = Ed25519PrivateKey.from_private_bytes(member.key.seed)
    between = Claim([dns_name_of(member.node_id)], common_name="between", ca=as_authority)
    private, certificate = _certificate(authority.subject, signer, between)
    below, last = _certificate(certificate.subject, private, claim)
    chain = (certificate.public_bytes(Encoding.DER), *member.chain)
    return _leaf(below, last, chain)


def _certificate(
    issuer: x509.Name, signer: Ed25519PrivateKey | ec.EllipticCurvePrivateKey, claim: Claim
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - ECDSA only

    private = ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName(name) for name in claim.dns]
    names += [x509.UniformResourceIdentifier(uri) for uri in claim.uris]
    at = datetime.fromtimestamp(int(now_s()), UTC)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, claim.common_name)]))
        .issuer_name(issuer)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - timedelta(hours=1))
        .not_valid_after(at + claim.lives)
        .add_extension(x509.BasicConstraints(ca=claim.ca, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    algorithm = None if isinstance(signer, Ed25519PrivateKey) else SHA256()
    return private, builder.sign(signer, algorithm)


def _leaf(
    private: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, chain: tuple[bytes, ...]
) -> Leaf:
    key = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Leaf(key, certificate.public_bytes(Encoding.PEM) + to_pem(chain), now_s())


@asynccontextmanager
async def serving(
    server: grpc.aio.Server, credentials: Callable[[], grpc.ServerCredentials]
) -> AsyncIterator[str]:
    """Run a server on a free port of the loopback; yields its address."""
    port = bind(server, LOOPBACK, credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def health_of(channel: grpc.aio.Channel) -> int:
    """Ask the standard health service."""
    async with asyncio.timeout(WAIT_S), channel:
        request = health_pb2.HealthCheckRequest()
        answer = await health_pb2_grpc.HealthStub(channel).Check(request)
        return answer.status
