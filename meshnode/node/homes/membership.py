"""What the certificates of a home say, without anybody at the other end."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from meshnode.app.diagnosis.observations import CertificateFacts
from meshnode.client.home import read_plain
from meshnode.client.keys.keyfiles import write_whole
from meshnode.core.errors import DamagedError, PeerError
from meshnode.core.ids import node_id_of, node_key_of
from meshnode.core.membership.certificates import (
    UNREADABLE,
    anchor,
    from_pem,
    leads_to_root,
    renewal_from_s,
    to_pem,
)
from meshnode.core.membership.members import NODE, ONLY_ROW, node_from_row
from meshnode.node.homes.founding import read_genesis
from meshnode.node.homes.roots import known_roots
from meshnode.store import feeds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshnode.client.home import Home
    from meshnode.core.ids import NodeId
    from meshnode.core.membership.genesis import Genesis
    from meshnode.store.database import Database

_log = logging.getLogger("session_mesh.node")


PUT_BACK = "session-mesh up --detach puts it back, if state.db has what it said"
RESTORE = (
    "restore it from a backup; without one, in a home of its own, join again (session-mesh join -),"
    " or found a new mesh, if this node was all of it (session-mesh init)"
)


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
            "node.crt holds no certificate of a node", f"move it away; then {PUT_BACK}"
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
    except FileNotFoundError:
        raise DamagedError(
            f"{home.certificates} is missing",
            PUT_BACK,
        ) from None
    except (OSError, PeerError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        hint = f"move it away; then {PUT_BACK}"
        raise DamagedError(f"cannot read {home.certificates}: {said}", hint) from error


def put_back(home: Home, database: Database, node_id: NodeId) -> None:
    """Write certificates that are missing as our own feed on the disk has them.

    Raises DamagedError where it has none that lead to a root of this home.
    """
    if os.path.lexists(home.certificates):
        return
    chain: tuple[bytes, ...] = ()
    row = database.run_now(feeds.load_own, node_id).get(NODE, ONLY_ROW)
    with suppress(PeerError):
        chain = node_from_row(row.value).certificates if row else ()
    if not leads_to_root(chain, node_id, known_roots(home, read_genesis(home))):
        said = f"{home.certificates} is missing, and {home.database} does not say what was in it"
        raise DamagedError(said, RESTORE)
    write_whole(home.certificates, to_pem(chain))
    _log.warning("%s was missing, and is put back as this node had it last", home.certificates)


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
