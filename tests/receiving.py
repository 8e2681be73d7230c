"""What a node does about a message when only its feeds and its control set are looked at."""

from typing import Any

from meshnode.core.feeds.intake import Outcome
from meshnode.core.feeds.messages import (
    BucketHashes,
    BucketPull,
    BucketRows,
    Digest,
    Flush,
    Fork,
    Manifest,
    Pull,
    Snapshot,
    Vector,
)
from meshnode.core.feeds.reconcile import Replication
from meshnode.core.ids import NodeId
from meshnode.core.keys import Signed


def received(held: Replication, peer: NodeId, message: Any, now_s: float) -> Outcome:
    """Hand a message over as `app/mesh/incoming.py` does; KeyError for what no such node sends."""
    handlers = {
        Flush: lambda: held.on_flush(peer, message, now_s),
        Snapshot: lambda: held.on_snapshot(peer, message, now_s),
        Manifest: lambda: held.on_manifest(peer, message, now_s),
        BucketPull: lambda: held.on_bucket_pull(peer, message),
        BucketRows: lambda: held.on_bucket_rows(peer, message, now_s),
        Fork: lambda: held.on_fork(peer, message, now_s),
        Digest: lambda: held.on_digest(peer, message),
        BucketHashes: lambda: held.on_bucket_hashes(peer, message),
        Vector: lambda: held.on_vector(peer, message, now_s),
        Pull: lambda: held.on_pull(peer, message),
        Signed: lambda: held.on_control(message, now_s),
    }
    return handlers[type(message)]()
