"""What neighbours say, on the wire. Flush headers are verified here, at the border."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from meshnode.core.errors import PeerError
from meshnode.core.feed import Flush, Head, Header, header_from_signed
from meshnode.core.ids import NodeId, node_key_of
from meshnode.core.keys import Signed
from meshnode.core.messages import (
    Digest,
    Farewell,
    Members,
    Message,
    Pull,
    Pulse,
    SnapshotChunk,
    Vector,
)
from meshnode.v1 import link_service_pb2 as pb
from meshnode.wire.signed import signed_from_wire, signed_to_wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshnode.v1 import signed_pb2 as pb_signed

FRAME_BYTES_MAX = 1 << 20  # larger: PeerError, the link is kept
POSITIONS_MAX = 10_000
PROTOCOL = 1


@dataclass(frozen=True, slots=True)
class Introduction:
    """The first frame on every stream."""

    boot: int
    addresses: tuple[str, ...]


def introduction_to_wire(introduction: Introduction) -> pb.Frame:
    """Encode the first frame."""
    return pb.Frame(
        introduction=pb.Introduction(
            boot=introduction.boot, protocol=PROTOCOL, addresses=introduction.addresses
        )
    )


def introduction_from_wire(frame: pb.Frame) -> Introduction:
    """Decode the first frame; raises PeerError if it is another, or of another protocol."""
    if frame.WhichOneof("kind") != "introduction":
        raise PeerError("a stream that does not begin with an introduction")
    message = frame.introduction
    if message.protocol != PROTOCOL:
        raise PeerError(f"the peer speaks protocol {message.protocol}, this node {PROTOCOL}")
    return Introduction(message.boot, tuple(message.addresses)[:8])


def message_to_wire(message: Message) -> pb.Frame:  # noqa: C901, PLR0911 - one case a message
    """Encode a message."""
    match message:
        case Pulse():
            return pb.Frame(pulse=pb.Pulse(count=message.count))
        case Flush():
            header = _header_to_wire(message.header)
            return pb.Frame(flush=pb.Flush(header=header, delta=message.delta))
        case SnapshotChunk():
            header = _header_to_wire(message.header)
            chunk = pb.SnapshotChunk(header=header, rows=message.rows, last=message.last)
            return pb.Frame(snapshot_chunk=chunk)
        case Digest():
            digest = pb.Digest(feeds_root=message.feeds_root, control_root=message.control_root)
            return pb.Frame(digest=digest)
        case Vector():
            vector = pb.Vector(
                positions=_positions_to_wire(message.positions),
                control_ids=sorted(message.control_ids),
                full=message.full,
            )
            return pb.Frame(vector=vector)
        case Pull():
            after = _positions_to_wire(message.after)
            return pb.Frame(pull=pb.Pull(after=after, control_ids=sorted(message.control_ids)))
        case Signed():
            return pb.Frame(control=signed_to_wire(message))
        case Members():
            members = [
                pb.MemberAddress(node_id=node_id, addresses=addresses)
                for node_id, addresses in message.addresses.items()
            ]
            return pb.Frame(members=pb.Members(members=members))
        case Farewell():
            return pb.Frame(farewell=pb.Farewell(reason=message.reason))
        case _:
            assert_never(message)


def message_from_wire(  # noqa: C901, PLR0911, PLR0912 - one case a message
    frame: pb.Frame, mesh_id: str
) -> Message | None:
    """Decode and verify; None for a kind of a newer version; raises PeerError."""
    match frame.WhichOneof("kind"):
        case "pulse":
            return Pulse(frame.pulse.count)
        case "flush":
            header = header_from_signed(signed_from_wire(frame.flush.header), mesh_id)
            return Flush(header, frame.flush.delta)
        case "snapshot_chunk":
            chunk = frame.snapshot_chunk
            header = header_from_signed(signed_from_wire(chunk.header), mesh_id)
            return SnapshotChunk(header, chunk.rows, chunk.last)
        case "digest":
            return Digest(frame.digest.feeds_root, frame.digest.control_root)
        case "vector":
            positions = _positions_from_wire(frame.vector.positions)
            return Vector(positions, frozenset(frame.vector.control_ids), frame.vector.full)
        case "pull":
            after = _positions_from_wire(frame.pull.after)
            return Pull(after, frozenset(frame.pull.control_ids))
        case "control":
            return signed_from_wire(frame.control)
        case "members":
            return Members(
                {_node_id(m.node_id): tuple(m.addresses)[:8] for m in frame.members.members[:64]}
            )
        case "farewell":
            return Farewell(frame.farewell.reason[:200])
        case "introduction":
            raise PeerError("a second introduction on one stream")
        case _:
            return None


def _header_to_wire(header: Header) -> pb_signed.Signed:
    if header.signed is None:
        raise ValueError("only signed headers travel")
    return signed_to_wire(header.signed)


def _positions_to_wire(positions: dict[NodeId, Head]) -> list[pb.Position]:
    return [
        pb.Position(origin=origin, epoch=head.epoch, seq=head.seq)
        for origin, head in positions.items()
    ]


def _positions_from_wire(positions: Sequence[pb.Position]) -> dict[NodeId, Head]:
    if len(positions) > POSITIONS_MAX:
        raise PeerError(f"more than {POSITIONS_MAX} positions in one frame")
    return {_node_id(p.origin): Head(p.epoch, p.seq) for p in positions}


def _node_id(text: str) -> NodeId:
    node_key_of(text)
    return NodeId(text)
