"""Whole feeds, parts of them, and proofs about them, on the wire. Headers are verified here."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from meshnode.core.errors import PeerError
from meshnode.core.feeds.feed import TABLES_MAX
from meshnode.core.feeds.headers import Header, header_from_signed
from meshnode.core.feeds.heads import Head
from meshnode.core.feeds.messages import BucketPull, BucketRows, Fork, Manifest, Snapshot
from meshnode.core.feeds.rows import BUCKETS
from meshnode.core.feeds.snapshots import hashes_from_bytes, hashes_to_bytes
from meshnode.v1 import link_service_pb2 as pb
from meshnode.wire.ids import node_id_from_wire
from meshnode.wire.signed import signed_from_wire, signed_to_wire

if TYPE_CHECKING:
    from meshnode.v1 import signed_pb2 as pb_signed

Part = Snapshot | Manifest | BucketPull | BucketRows | Fork


def feed_part_to_wire(part: Part) -> pb.Frame:
    """Encode a message about one feed."""
    match part:
        case Snapshot(header, rows):
            return pb.Frame(snapshot=pb.Snapshot(header=header_to_wire(header), rows=rows))
        case Manifest(header, buckets):
            manifest = pb.Manifest(header=header_to_wire(header), buckets=hashes_to_bytes(buckets))
            return pb.Frame(manifest=manifest)
        case BucketPull(origin, head, wanted):
            tables = [pb.TableBuckets(table=t, numbers=bytes(n)) for t, n in wanted.items()]
            at = pb.Position(origin=origin, epoch=head.epoch, seq=head.seq)
            return pb.Frame(bucket_pull=pb.BucketPull(at=at, wanted=tables))
        case BucketRows(origin, rows, last):
            return pb.Frame(bucket_rows=pb.BucketRows(origin=origin, rows=rows, last=last))
        case Fork(headers):
            return pb.Frame(fork=pb.Fork(headers=[header_to_wire(one) for one in headers]))
        case _:
            assert_never(part)


def feed_part_from_wire(frame: pb.Frame, mesh_id: str) -> Part:
    """Decode and verify a message about one feed; raises PeerError."""
    match frame.WhichOneof("kind"):
        case "snapshot":
            return Snapshot(_header(frame.snapshot.header, mesh_id), frame.snapshot.rows)
        case "manifest":
            header = _header(frame.manifest.header, mesh_id)
            return Manifest(header, hashes_from_bytes(frame.manifest.buckets))
        case "bucket_pull":
            pull = frame.bucket_pull
            if len(pull.wanted) > TABLES_MAX or any(len(w.numbers) > BUCKETS for w in pull.wanted):
                raise PeerError("a request for more buckets than there are")
            wanted = {one.table: list(one.numbers) for one in pull.wanted}
            head = Head(pull.at.epoch, pull.at.seq)
            return BucketPull(node_id_from_wire(pull.at.origin), head, wanted)
        case "bucket_rows":
            rows = frame.bucket_rows
            return BucketRows(node_id_from_wire(rows.origin), rows.rows, rows.last)
        case _:
            headers = tuple(_header(one, mesh_id) for one in frame.fork.headers[:3])
            if not 0 < len(headers) < 3:  # noqa: PLR2004 - a pair at most
                raise PeerError("a fork has one header, or two")
            return Fork(headers)


def header_to_wire(header: Header) -> pb_signed.Signed:
    """Encode a signed header."""
    if header.signed is None:
        raise ValueError("only signed headers travel")
    return signed_to_wire(header.signed)


def _header(signed: pb_signed.Signed, mesh_id: str) -> Header:
    return header_from_signed(signed_from_wire(signed), mesh_id)
