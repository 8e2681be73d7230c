"""TLS between nodes: who we are, whom we trust, and pinning a peer by its node id.

Both may change while a node runs: its certificate is renewed, roots are exchanged. Servers take
that up at the next handshake, clients with their next channel.

Invariant: a server shows a leaf that is at most a day old; a client only ever accepts the one DNS
name of the node it dialled. A resumed session would outlive the certificate it began with: gRPC
grants it, so `guard.check_tls` refuses every call on one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import grpc
import grpc.aio
import msgspec
from msgspec.structs import replace

from meshnode.core.membership.certificates import (
    LEAF_RENEWED_AFTER,
    Leaf,
    anchor,
    dns_name_of,
    expires_at_s,
    issue_leaf,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshnode.core.ids import Chance, MeshId, NodeId
    from meshnode.core.keys import Key
    from meshnode.core.membership.genesis import Genesis

MESSAGE_BYTES_MAX = 4 << 20
HANDSHAKE_TIMEOUT_MS = 2000
STREAMS_MAX = 256  # a connection may have open at once
# What gRPC may hold of one stream whose reader does not read: without these it grew to 6 MB, which
# no outbox counts. At 50 ms a round trip this lets 5 MB a second through, more than repair needs.
STREAM_BYTES_MAX = 256 << 10
FLOW_OPTIONS: list[tuple[str, int]] = [
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", STREAM_BYTES_MAX),
]
METADATA_BYTES_MAX = 8 << 10  # more: the call ends with RESOURCE_EXHAUSTED
STRANGERS_MESSAGE_BYTES_MAX = 64 << 10
STRANGERS_STREAMS_MAX = 16
Options = list[tuple[str, int]]
_EVERY_SERVER: Options = [
    *FLOW_OPTIONS,
    ("grpc.so_reuseport", 0),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
    ("grpc.max_metadata_size", METADATA_BYTES_MAX),
    ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX),
]
LOCAL_OPTIONS: Options = [
    *_EVERY_SERVER,
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_concurrent_streams", STREAMS_MAX),
]
MEMBERS_OPTIONS: Options = [
    *LOCAL_OPTIONS,
    ("grpc.max_connection_idle_ms", 60_000),  # without a call: a link is one
]
JOINERS_OPTIONS: Options = [
    *_EVERY_SERVER,
    ("grpc.max_receive_message_length", STRANGERS_MESSAGE_BYTES_MAX),
    ("grpc.max_concurrent_streams", STRANGERS_STREAMS_MAX),
    ("grpc.max_connection_idle_ms", 2_000),  # there are few: who connects shall call,
    ("grpc.max_connection_age_ms", 3_000),  # once, whatever else it does,
    ("grpc.max_connection_age_grace_ms", 10_000),  # and have the answer
]


class Credentials(msgspec.Struct, frozen=True):
    """A node's identity on the network. `chain` is DER: the node's CA, then its admitter's.

    `roots`: whom it trusts to make admitters; empty: those of the genesis.
    """

    key: Key
    genesis: Genesis
    chain: tuple[bytes, ...]
    wall_s: Callable[[], float]
    chance: Chance
    roots: tuple[bytes, ...] = ()


class Identity:
    """Makes TLS credentials from a node's identity; leaves live in memory only."""

    def __init__(self, credentials: Credentials) -> None:
        self._mesh_id = credentials.genesis.mesh_id
        self._take(credentials)

    def _take(self, credentials: Credentials) -> None:
        roots = credentials.roots or credentials.genesis.root_keys
        self._credentials = credentials
        self._anchor = b"".join(anchor(root, self._mesh_id) for root in roots)
        self._leaf: Leaf | None = None

    @property
    def chain(self) -> tuple[bytes, ...]:
        """What makes this node a member (DER): its CA, then its admitter's certificate."""
        return self._credentials.chain

    @property
    def anchors(self) -> bytes:
        """The roots that this node trusts, as PEM certificates."""
        return self._anchor

    def exchange(self, chain: tuple[bytes, ...], roots: tuple[bytes, ...]) -> None:
        """Show another chain from now on, and trust other roots."""
        known = self._credentials
        if (chain, roots) != (known.chain, known.roots or known.genesis.root_keys):
            self._take(replace(known, chain=chain, roots=roots))

    def leaf(self) -> Leaf:
        """Return the present leaf, a new one each day."""
        now_s = self._credentials.wall_s()
        leaf = self._leaf
        if leaf is None or not 0 <= now_s - leaf.issued_at_s < LEAF_RENEWED_AFTER.total_seconds():
            mine = self._credentials
            leaf = issue_leaf(mine.key, self._mesh_id, mine.chain, now_s, mine.chance)
            self._leaf = leaf
        return leaf

    def ca_expires_at_s(self) -> float:
        """Return when this node's membership must have been renewed."""
        return expires_at_s(self._credentials.chain[0])

    def for_members(self) -> grpc.ServerCredentials:
        """Serve members: a client certificate of this mesh is required."""
        return self._served(require_client_authentication=True)

    def for_joiners(self) -> grpc.ServerCredentials:
        """Serve strangers: no client certificate is asked for."""
        return self._served(require_client_authentication=False)

    def _served(self, *, require_client_authentication: bool) -> grpc.ServerCredentials:
        shown = self.leaf()

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            """Return a configuration only if it is another one, which is once a day.

            gRPC asks at each handshake, and exchanges what it is given while other threads use it:
            with an answer each time, two dozen strangers at the door abort the process in seconds.
            """
            nonlocal shown
            leaf = self.leaf()
            if leaf is shown:
                return None
            shown = leaf
            return self._configuration(leaf)

        return grpc.dynamic_ssl_server_credentials(
            self._configuration(shown),
            renewed,  # type: ignore[arg-type] # None keeps the present one, says gRPC's documentation
            require_client_authentication=require_client_authentication,
        )

    def _configuration(self, leaf: Leaf) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(leaf.private_key, leaf.chain)], self._anchor
        )

    def channel(self, peer: NodeId, address: str) -> grpc.aio.Channel:
        """Open a channel to one member, pinned to its node id."""
        leaf = self.leaf()
        credentials = grpc.ssl_channel_credentials(self._anchor, leaf.private_key, leaf.chain)
        return grpc.aio.secure_channel(target_of(address), credentials, options=pinned(peer))


def target_of(address: str) -> str:
    """Return what gRPC takes for host:port, whoever wrote it; what is none resolves to nothing.

    Bare, `unix:/path` were a socket of this machine, and `dns://server/name` asked that server.
    """
    return "dns:///" + quote(address, safe="[]:")


def pinned(peer: NodeId) -> list[tuple[str, str | int]]:
    """Return channel options that accept one node only, and never reconnect behind our back."""
    return [
        ("grpc.ssl_target_name_override", dns_name_of(peer)),
        ("grpc.default_authority", dns_name_of(peer)),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),  # it is there for the web, and leads to no node
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.use_local_subchannel_pool", 1),
        *FLOW_OPTIONS,
    ]


def joining_channel(
    root_key: bytes, mesh_id: MeshId, admitter: NodeId, address: str
) -> grpc.Channel:
    """Open a channel to an admitter, trusting only the root that the invite names."""
    credentials = grpc.ssl_channel_credentials(anchor(root_key, mesh_id))
    return grpc.secure_channel(target_of(address), credentials, options=pinned(admitter))
