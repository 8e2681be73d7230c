"""X.509 for Ed25519 identities: root → admitter → node CA → P-256 leaf (RFC 5280).

grpc cannot present Ed25519 leaves, so a node's Ed25519 identity is a certificate authority that is
constrained, critically, to one DNS name: its own. Invariant: whatever a node's CA signs can only
speak for `<node_id>.node.mesh.internal`, and a leaf is valid from its CA's first moment, so that a
device whose clock runs late is not cut off. Subjects are hints for people and never trusted.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshnode.core.errors import PeerError
from meshnode.core.ids import NodeId, node_id_of, node_key_of
from meshnode.core.keys import parse_public

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from meshnode.core.ids import Chance
    from meshnode.core.keys import Key

    Period = tuple[datetime, datetime]

DOMAIN = "node.mesh.internal"
BACKDATED = timedelta(days=2)
ADMITTER_LIFE = timedelta(days=3650)
NODE_CA_LIFE = timedelta(days=730)
EXPIRES_SOON_S = 30 * 86400.0  # then the user is told, where it could not be renewed
CHAIN_MAX = 3  # certificates of a chain that are read: the node's, its admitter's, one to spare
LEAF_LIFE = timedelta(days=7)
LEAF_RENEWED_AFTER = timedelta(days=1)
UNREADABLE = (  # what is raised by reading a certificate that anybody may have made
    ValueError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)
_ANCHOR_FROM = datetime(2020, 1, 1, tzinfo=UTC)
_ANCHOR_UNTIL = datetime(2099, 1, 1, tzinfo=UTC)


class Leaf(msgspec.Struct, frozen=True):
    """What TLS presents: a private key and a chain, both PEM."""

    private_key: bytes
    chain: bytes
    issued_at_s: float


def dns_name_of(node_id: NodeId) -> str:
    """Return the only name that a node's certificates may carry."""
    return f"{node_id}.{DOMAIN}"


def node_id_in(dns_name: str) -> NodeId:
    """Return the node a DNS name speaks for; raises PeerError."""
    node_id, dot, rest = dns_name.partition(".")
    if not dot or rest != DOMAIN:
        raise PeerError("a certificate for a name outside the mesh")
    parse_public(node_key_of(node_id))
    return NodeId(node_id)


def anchor(root_key: bytes, mesh_id: str) -> bytes:
    """Make the trust anchor from 32 bytes: TLS looks at its name and key, not at its signature.

    The roots of a mesh share one name. Their key identifiers, in the anchor and in what they issue,
    tell TLS which one to take: without both, BoringSSL tries only the first of that name.
    """
    unused = Ed25519PrivateKey.from_private_bytes(bytes(32))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_root_name(mesh_id))
        .issuer_name(_root_name(mesh_id))
        .public_key(parse_public(root_key))
        .serial_number(1)
        .not_valid_before(_ANCHOR_FROM)
        .not_valid_after(_ANCHOR_UNTIL)
        .add_extension(x509.BasicConstraints(ca=True, path_length=2), critical=True)
        .add_extension(_CA_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier(_key_identifier(root_key)), critical=False)
        .sign(unused, None)
    )
    return certificate.public_bytes(Encoding.PEM)


def issue_admitter(root: Key, mesh_id: str, node_id: NodeId, now_s: float, chance: Chance) -> bytes:
    """Let a node admit others; returns DER."""
    name, period = _name(f"admitter {node_id}"), _period(now_s, ADMITTER_LIFE)
    builder = _authority(name, node_id, 1, period, chance).issuer_name(_root_name(mesh_id))
    builder = builder.add_extension(
        x509.NameConstraints([x509.DNSName(DOMAIN)], None), critical=True
    )
    issuer = x509.AuthorityKeyIdentifier(_key_identifier(root.public), None, None)
    return _sign(builder.add_extension(issuer, critical=False), root)


def issue_node_ca(
    admitter: Key, node_id: NodeId, now_s: float, chance: Chance, earlier: bytes | None = None
) -> bytes:
    """Make a node's identity a certificate authority for its own name; returns DER.

    `earlier`: a certificate (DER) that it takes the place of, and whose time it covers, too.
    """
    begins, ends = _period(now_s, NODE_CA_LIFE)
    if earlier is not None:
        old = x509.load_der_x509_certificate(earlier)
        begins, ends = min(begins, old.not_valid_before_utc), max(ends, old.not_valid_after_utc)
    builder = _authority(_name(f"node {node_id}"), node_id, 0, (begins, ends), chance)
    builder = builder.issuer_name(_name(f"admitter {node_id_of(admitter.public)}")).add_extension(
        x509.NameConstraints([x509.DNSName(dns_name_of(node_id))], None), critical=True
    )
    return _sign(builder, admitter)


def issue_leaf(
    node: Key, mesh_id: str, chain: tuple[bytes, ...], now_s: float, chance: Chance
) -> Leaf:
    """Make a fresh P-256 key and certificate under the node's CA (chain: DER, CA first).

    A clock before the CA's first moment, as of a device at its start, gives that moment's leaf.
    """
    authority = x509.load_der_x509_certificate(chain[0])
    node_id = node_id_of(node.public)
    private = ec.derive_private_key(int.from_bytes(chance(31), "big") + 1, ec.SECP256R1())
    begins = authority.not_valid_before_utc
    until = min(max(_at(now_s), begins) + LEAF_LIFE, authority.not_valid_after_utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, mesh_id)]))
        .issuer_name(authority.subject)
        .public_key(private.public_key())
        .serial_number(_serial(chance))
        .not_valid_before(begins)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(dns_name_of(node_id))]), critical=False
        )
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .sign(Ed25519PrivateKey.from_private_bytes(node.seed), None)
    )
    pem = certificate.public_bytes(Encoding.PEM) + to_pem(chain)
    key = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Leaf(key, pem, now_s)


def to_pem(chain: tuple[bytes, ...]) -> bytes:
    """Encode DER certificates as one PEM text."""
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in chain)


def from_pem(text: bytes) -> tuple[bytes, ...]:
    """Decode a PEM text into DER certificates; raises PeerError."""
    try:
        return tuple(c.public_bytes(Encoding.DER) for c in x509.load_pem_x509_certificates(text))
    except UNREADABLE as error:
        raise PeerError("not a list of certificates") from error


def expires_at_s(der: bytes) -> float:
    """Return when a certificate ends, in seconds since 1970."""
    return x509.load_der_x509_certificate(der).not_valid_after_utc.timestamp()


def begins_at_s(der: bytes) -> float:
    """Return from when on a certificate counts, in seconds since 1970."""
    return x509.load_der_x509_certificate(der).not_valid_before_utc.timestamp()


def renewal_from_s(der: bytes) -> float:
    """Return from when on a node's certificate is to be renewed: half of a life before its end."""
    return expires_at_s(der) - NODE_CA_LIFE.total_seconds() / 2


def renewal_due_s(chain: Sequence[bytes], now_s: float) -> float:
    """Return in how many seconds the first of a chain is to be renewed; at most 0.0: now.

    One that does not count yet is, unless its issuer's does not either: then our clock is behind.
    """
    if begins_at_s(chain[0]) > now_s >= max(map(begins_at_s, chain[1:]), default=now_s):
        return 0.0
    return renewal_from_s(chain[0]) - now_s


def counts_at(chain: Sequence[bytes], now_s: float) -> bool:
    """Whether now is within the time of each certificate of a chain."""
    return all(begins_at_s(der) <= now_s <= expires_at_s(der) for der in chain)


def issuer_of(chain: Sequence[bytes]) -> NodeId:
    """Return the node that admitted the owner of a chain; raises PeerError."""
    try:
        key = _ed25519(x509.load_der_x509_certificate(chain[1]))
    except (*UNREADABLE, TypeError, IndexError) as error:
        raise PeerError("a chain without an admitter") from error
    return node_id_of(key.public_bytes_raw())


@lru_cache(maxsize=1 << 10)
def is_own_leaf(leaf_pem: bytes, node_id: NodeId) -> bool:
    """Whether a leaf was signed with the key that the node id is, whoever vouches for the rest.

    TLS alone would let an admitter make authorities for the names of others.
    """
    try:
        leaf = x509.load_pem_x509_certificate(leaf_pem)
        return _signed_by(leaf, node_key_of(node_id))
    except (*UNREADABLE, PeerError):
        return False


def lets_admit(der: bytes, node_id: NodeId, root_key: bytes) -> bool:
    """Whether a certificate (DER) is a root's word that a node may admit others, now or once."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        limits = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        own = _ed25519(certificate).public_bytes_raw() == node_key_of(node_id)
    except (*UNREADABLE, TypeError, PeerError):
        return False
    return own and limits.ca and limits.path_length == 1 and _signed_by(certificate, root_key)


def leads_to_root(chain: Sequence[bytes], node_id: NodeId, root_keys: Collection[bytes]) -> bool:
    """Whether DER certificates prove that a root admitted a node, now or long ago.

    The node's CA comes first, then its admitter's. Times are not looked at: whoever was a member
    once has rows that all keep, and all must come to the same answer for ever (RFC 5280, 6.1,
    without the clock).
    """
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in chain[:CHAIN_MAX]]
        keys = [_ed25519(certificate) for certificate in certificates]
        if not keys or keys[0].public_bytes_raw() != node_key_of(node_id):
            return False
        for depth, certificate in enumerate(certificates):
            limits = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
            if not limits.ca or (limits.path_length is not None and limits.path_length < depth):
                return False
        for certificate, issuer in zip(certificates, keys[1:], strict=False):
            issuer.verify(certificate.signature, certificate.tbs_certificate_bytes)
    except (*UNREADABLE, TypeError, InvalidSignature, PeerError):
        return False
    return any(_signed_by(certificates[-1], root) for root in root_keys)


@lru_cache(maxsize=1 << 12)
def keys_of(chain: tuple[bytes, ...]) -> frozenset[bytes]:
    """Return the Ed25519 keys of certificates in DER: the node's and its admitter's.

    Nothing of what cannot be read. Leaves are passed over, whose keys are no Ed25519 keys.
    """
    try:
        return _keys_in(x509.load_der_x509_certificate(der) for der in chain[:CHAIN_MAX])
    except UNREADABLE:
        return frozenset()


@lru_cache(maxsize=1 << 10)
def keys_shown(pem: bytes) -> frozenset[bytes]:
    """Return the same of certificates in PEM, as TLS shows them, whatever their order.

    A chain that was proved needs its admitter's certificate, so it is among them. Raises PeerError.
    """
    try:
        return _keys_in(x509.load_pem_x509_certificates(pem))
    except UNREADABLE as error:
        raise PeerError("a chain of certificates that is none") from error


@lru_cache(maxsize=1 << 12)
def admitters_in(chain: tuple[bytes, ...], root_keys: frozenset[bytes]) -> frozenset[bytes]:
    """Return the keys that certificates in DER prove to have been made admitters by a root."""
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in chain[:CHAIN_MAX]]
        return _keys_in(
            one
            for one in certificates
            if any(_signed_by(one, root) for root in root_keys)
            and one.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length != 0
        )
    except UNREADABLE:
        return frozenset()


def _keys_in(certificates: Iterable[x509.Certificate]) -> frozenset[bytes]:
    keys = (certificate.public_key() for certificate in certificates)
    return frozenset(key.public_bytes_raw() for key in keys if isinstance(key, Ed25519PublicKey))


def _ed25519(certificate: x509.Certificate) -> Ed25519PublicKey:
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise TypeError("an identity that is no Ed25519 key")
    return parse_public(key.public_bytes_raw())


def _signed_by(certificate: x509.Certificate, public_key: bytes) -> bool:
    try:
        signed = certificate.tbs_certificate_bytes
        parse_public(public_key).verify(certificate.signature, signed)
    except InvalidSignature:
        return False
    return True


def hints_in(leaf_der: bytes) -> tuple[NodeId, str]:
    """Return the node id and mesh id that a leaf claims: where to dial, not whom to believe."""
    try:
        certificate = x509.load_der_x509_certificate(leaf_der)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        (dns_name,) = names.value.get_values_for_type(x509.DNSName)
        (mesh,) = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    except UNREADABLE as error:
        raise PeerError("the listener there is no session-mesh node") from error
    return node_id_in(dns_name), str(mesh.value)


_CA_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def _authority(
    subject: x509.Name, node_id: NodeId, path_length: int, period: Period, chance: Chance
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(parse_public(node_key_of(node_id)))
        .serial_number(_serial(chance))
        .not_valid_before(period[0])
        .not_valid_after(period[1])
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_CA_USAGE, critical=True)
    )


def _sign(builder: x509.CertificateBuilder, issuer: Key) -> bytes:
    certificate = builder.sign(Ed25519PrivateKey.from_private_bytes(issuer.seed), None)
    return certificate.public_bytes(Encoding.DER)


def _key_identifier(public_key: bytes) -> bytes:
    return sha256(public_key).digest()[:20]


def _root_name(mesh_id: str) -> x509.Name:
    return _name(f"mesh {mesh_id}")


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _serial(chance: Chance) -> int:
    return int.from_bytes(chance(16), "big") >> 1 or 1


def _period(now_s: float, life: timedelta) -> Period:
    return _at(now_s) - BACKDATED, _at(now_s) + life


def _at(at_s: float) -> datetime:
    return datetime.fromtimestamp(int(at_s), UTC)
