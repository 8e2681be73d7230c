"""What the certificates of a home say, without anybody at the other end."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from meshnode.app.diagnosis.observations import CertificateFacts
from meshnode.client.home import read_plain
from meshnode.core.errors import DamagedError, PeerError
from meshnode.core.ids import node_id_of, node_key_of
from meshnode.core.membership.certificates import UNREADABLE, anchor, from_pem, renewal_from_s

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshnode.client.home import Home
    from meshnode.core.membership.genesis import Genesis


def membership_in(
    chain: Sequence[bytes], genesis: Genesis, node_id: str, roots: Sequence[bytes] = ()
) -> CertificateFacts:
    """Read a chain (DER: the node's CA, then its admitter's); raises DamagedError.

    `roots`: whom this home trusts by now; none: those of the genesis.
    """
    try:
        found = [x509.load_der_x509_certificate(der) for der in chain]
        own = found[0].public_key().public_bytes_raw()  # type: ignore[union-attr] # others raise
    except (*UNREADABLE, IndexError, AttributeError) as error:
        raise DamagedError(
            "node.crt holds no certificate of a node", "restore it, or join again"
        ) from error
    return CertificateFacts(
        valid_from_s=max(one.not_valid_before_utc for one in found).timestamp(),
        valid_until_s=min(one.not_valid_after_utc for one in found).timestamp(),
        is_for_our_key=own == node_key_of(node_id),
        chains_to_root=_chains(found, genesis.mesh_id, roots or genesis.root_keys),
        renewal_from_s=renewal_from_s(chain[0]),
    )


def certificates_of(home: Home) -> tuple[bytes, ...]:
    """Return a home's certificates (DER: the node's CA, then its admitter's).

    Raises DamagedError.
    """
    try:
        return from_pem(read_plain(home.certificates))
    except (OSError, PeerError) as error:
        raise DamagedError(
            f"cannot read {home.certificates}: {error}", "restore it, or join again"
        ) from error


def check_identity(home: Home, node_id: str) -> None:
    """Raise DamagedError if a home's key is not the one that its certificate was made for.

    Such a node would publish as somebody whom nobody has admitted. A certificate that is unreadable
    is told where it is used.
    """
    try:
        (first, *_) = from_pem(read_plain(home.certificates))
        certified = x509.load_der_x509_certificate(first).public_key().public_bytes_raw()  # type: ignore[union-attr] # others raise
    except (*UNREADABLE, OSError, PeerError, AttributeError):
        return
    if certified != node_key_of(node_id):
        raise DamagedError(
            f"{home.node_key} is not the key of {home.certificates}: one of them was replaced",
            f"restore {home.node_key} of node {node_id_of(certified)} from a backup, or move"
            f" {home.path} away and join again",
        )


def _chains(found: Sequence[x509.Certificate], mesh_id: str, roots: Sequence[bytes]) -> bool:
    anchors = [x509.load_pem_x509_certificate(anchor(root, mesh_id)) for root in roots]
    links = all(_issued(one, above) for one, above in pairwise(found))
    return links and any(_issued(found[-1], root) for root in anchors)


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (*UNREADABLE, TypeError, InvalidSignature):
        return False
    return True
