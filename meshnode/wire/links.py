"""What neighbours say, on the wire. Flush headers are verified here, at the border."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import msgspec

from meshnode.core.control.entries import ENTRY_ID_BYTES
from meshnode.core.control.shares import ENTRIES_MAX
from meshnode.core.errors import PeerError
from meshnode.core.feeds.feed import Flush
from meshnode.core.feeds.headers import Header, parse_header, verify_header
from meshnode.core.feeds.heads import Head
from meshnode.core.feeds.messages import (
    BucketHashes,
    BucketPull,
    BucketRows,
    Digest,
    Farewell,
    Fork,
    Have,
    Known,
    Manifest,
    Members,
    Message,
    Prune,
    Pull,
    Pulse,
    Routed,
    Snapshot,
    Vector,
)
from meshnode.core.keys import Signed
from meshnode.core.membership.certificates import CHAIN_MAX
from meshnode.core.summary import BUCKET_HASH_BYTES, BUCKETS
from meshnode.v1 import link_service_pb2 as pb
from meshnode.wire.feeds import feed_part_from_wire, feed_part_to_wire, header_to_wire
from meshnode.wire.ids import node_id_from_wire
from meshnode.wire.routed import routed_from_wire, routed_to_wire
from meshnode.wire.signed import signed_from_wire, signed_to_wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshnode.core.ids import NodeId

FRAME_BYTES_MAX = 1 << 20  # larger: PeerError, the link is kept
POSITIONS_MAX = 10_000
ADDRESSES_MAX = 8  # of one member; the rest is passed over
ADDRESS_CHARS_MAX = 262  # a name of 255 characters and a port; longer ones are passed over
MEMBERS_MAX = 64  # the rest of a frame is passed over
PROTOCOL = 1


class Introduction(msgspec.Struct, frozen=True):
    """The first frame on every stream."""

    boot: int
    addresses: tuple[str, ...]
    certificates: tuple[bytes, ...] = ()  # DER: the sender's CA, then its admitter's


def introduction_to_wire(introduction: Introduction) -> pb.Frame:
    """Encode the first frame."""
    return pb.Frame(
        introduction=pb.Introduction(
            boot=introduction.boot,
            protocol=PROTOCOL,
            addresses=introduction.addresses,
            certificates=introduction.certificates,
        )
    )


def introduction_from_wire(frame: pb.Frame) -> Introduction:
    """Decode the first frame; raises PeerError if it is another, or of another protocol."""
    if frame.WhichOneof("kind") != "introduction":
        raise PeerError("a stream that does not begin with an introduction")
    message = frame.introduction
    if message.protocol != PROTOCOL:
        raise PeerError(f"the peer speaks protocol {message.protocol}, this node {PROTOCOL}")
    certificates = tuple(message.certificates[:CHAIN_MAX])
    return Introduction(message.boot, _addresses(message.addresses), certificates)


def message_to_wire(  # noqa: C901, PLR0911, PLR0912 - one case a message
    message: Message,
) -> pb.Frame:
    """Encode a message."""
    match message:
        case Pulse():
            return pb.Frame(pulse=pb.Pulse(count=message.count))
        case Flush():
            header = header_to_wire(message.header)
            flush = pb.Flush(
                header=header, delta=message.delta, eager=message.eager, flooded=message.flooded
            )
            return pb.Frame(flush=flush)
        case Snapshot() | Manifest() | BucketPull() | BucketRows() | Fork():
            return feed_part_to_wire(message)
        case Digest():
            digest = pb.Digest(
                feeds_root=message.feeds_root,
                control_root=message.control_root,
                cut_s=message.cut_s,
                asks=message.asks,
            )
            return pb.Frame(digest=digest)
        case Vector():
            vector = pb.Vector(
                positions=_positions_to_wire(message.positions, message.states),
                control_ids=sorted(message.control_ids),
                feed_buckets=sorted(message.feed_buckets),
                control_buckets=sorted(message.control_buckets),
            )
            return pb.Frame(vector=vector)
        case BucketHashes():
            hashes = pb.BucketHashes(feeds=message.feeds, control=message.control)
            return pb.Frame(bucket_hashes=hashes)
        case Have():
            return pb.Frame(have=pb.Have(positions=_positions_to_wire(message.positions)))
        case Prune():
            return pb.Frame(prune=pb.Prune(origins=sorted(message.origins)))
        case Routed():
            return pb.Frame(routed=routed_to_wire(message))
        case Pull():
            after = _positions_to_wire(message.after)
            return pb.Frame(
                pull=pb.Pull(
                    after=after, control_ids=sorted(message.control_ids), graft=message.graft
                )
            )
        case Signed():
            return pb.Frame(control=signed_to_wire(message))
        case Members():
            members = [
                pb.MemberAddress(node_id=node_id, addresses=addresses)
                for node_id, addresses in message.addresses.items()
            ]
            return pb.Frame(members=pb.Members(members=members, full=message.full))
        case Farewell():
            return pb.Frame(farewell=pb.Farewell(reason=message.reason))
        case _:
            assert_never(message)


def message_from_wire(  # noqa: C901, PLR0911, PLR0912 - one case a message
    frame: pb.Frame, mesh_id: str, holds: Callable[[Header], bool] = lambda _: False
) -> Message | Known | None:
    """Decode and verify; None for a kind of a newer version; raises PeerError.

    News that `holds` says are here already are not verified: most of what is flooded, and a
    signature costs ten times as much as all the rest.
    """
    match frame.WhichOneof("kind"):
        case "pulse":
            return Pulse(frame.pulse.count)
        case "flush":
            signed = signed_from_wire(frame.flush.header)
            header = parse_header(signed)
            if holds(header):
                return Known(header.origin, frame.flush.eager, header.head)
            verify_header(header, mesh_id)
            return Flush(header, frame.flush.delta, frame.flush.eager, frame.flush.flooded)
        case "snapshot" | "manifest" | "bucket_pull" | "bucket_rows" | "fork":
            return feed_part_from_wire(frame, mesh_id)
        case "digest":
            digest = frame.digest
            return Digest(digest.feeds_root, digest.control_root, digest.cut_s, digest.asks)
        case "vector":
            return _vector_from_wire(frame.vector)
        case "bucket_hashes":
            return BucketHashes(
                _hashes(frame.bucket_hashes.feeds), _hashes(frame.bucket_hashes.control)
            )
        case "have":
            return Have(_positions_from_wire(frame.have.positions))
        case "prune":
            return Prune(
                frozenset(node_id_from_wire(o) for o in frame.prune.origins[:POSITIONS_MAX])
            )
        case "routed":
            return routed_from_wire(frame.routed)
        case "pull":
            after = _positions_from_wire(frame.pull.after)
            return Pull(after, _ids(frame.pull.control_ids), frame.pull.graft)
        case "control":
            return signed_from_wire(frame.control)
        case "members":
            members = frame.members.members[:MEMBERS_MAX]
            addresses = {node_id_from_wire(m.node_id): _addresses(m.addresses) for m in members}
            return Members(addresses, frame.members.full)
        case "farewell":
            return Farewell(frame.farewell.reason[:200])
        case "introduction":
            raise PeerError("a second introduction on one stream")
        case _:
            return None


def _vector_from_wire(vector: pb.Vector) -> Vector:
    buckets = (*vector.feed_buckets, *vector.control_buckets)
    if len(buckets) > 2 * BUCKETS or any(number >= BUCKETS for number in buckets):
        raise PeerError("a vector of buckets that do not exist")
    return Vector(
        _positions_from_wire(vector.positions),
        _ids(vector.control_ids),
        frozenset(vector.feed_buckets),
        frozenset(vector.control_buckets),
        {node_id_from_wire(p.origin): p.state for p in vector.positions if p.state},
    )


def _addresses(addresses: Sequence[str]) -> tuple[str, ...]:
    return tuple(a for a in addresses[:ADDRESSES_MAX] if len(a) <= ADDRESS_CHARS_MAX)


def _ids(ids: Sequence[bytes]) -> frozenset[bytes]:
    if len(ids) > ENTRIES_MAX or any(len(one) != ENTRY_ID_BYTES for one in ids):
        raise PeerError("ids of control entries that cannot be any")
    return frozenset(ids)


def _hashes(hashes: Sequence[bytes]) -> tuple[bytes, ...]:
    if len(hashes) != BUCKETS or any(len(one) != BUCKET_HASH_BYTES for one in hashes):
        raise PeerError(f"not the hashes of {BUCKETS} buckets")
    return tuple(hashes)


def _positions_to_wire(
    positions: dict[NodeId, Head], states: dict[NodeId, bytes] | None = None
) -> list[pb.Position]:
    known = states or {}
    return [
        pb.Position(origin=origin, epoch=head.epoch, seq=head.seq, state=known.get(origin, b""))
        for origin, head in positions.items()
    ]


def _positions_from_wire(positions: Sequence[pb.Position]) -> dict[NodeId, Head]:
    if len(positions) > POSITIONS_MAX:
        raise PeerError(f"more than {POSITIONS_MAX} positions in one frame")
    return {node_id_from_wire(p.origin): Head(p.epoch, p.seq) for p in positions}
