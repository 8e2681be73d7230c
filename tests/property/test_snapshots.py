"""Any feed that fits can be taken whole: each frame of it is one that a link lets through."""

from collections.abc import Iterator
from functools import cache
from itertools import count, islice
from random import Random

import pytest

from meshnode.core.feeds.feed import BUCKET_BYTES_MAX, SEQ_MAX, TABLE_CHARS_MAX, fits
from meshnode.core.feeds.headers import Header, sign_header
from meshnode.core.feeds.messages import BucketPull, BucketRows, Manifest, Message, Snapshot
from meshnode.core.feeds.rows import ROW_BYTES, Row, Rows, bucket_of
from meshnode.core.feeds.snapshots import Assemblies, answers, rows_of, whole
from meshnode.core.ids import NodeId, node_id_of
from meshnode.core.keys import Key
from meshnode.core.membership.genesis import Genesis, Limits
from meshnode.wire.links import FRAME_BYTES_MAX, message_from_wire, message_to_wire

KEY = Key(bytes(32))
ORIGIN = node_id_of(KEY.public)
LIMITS = Limits()
MESH = Genesis((KEY.public,), 1, "test", bytes(16), LIMITS).mesh_id
PEER = NodeId("peer")
LONG = "\U0001f600" * TABLE_CHARS_MAX


@cache
def keys_of_one_bucket(length: int, wanted: int) -> list[bytes]:
    keys = (number.to_bytes(length, "big") for number in count())
    return list(islice((key for key in keys if bucket_of(key) == 5), wanted))


def header_of(rows: Rows) -> Header:
    fields = (SEQ_MAX, 1, SEQ_MAX, SEQ_MAX, bytes(32), rows.state_hash(), 1.0)
    return sign_header(KEY, Header(MESH, ORIGIN, *fields))


def sent(message: Message) -> Message:
    frame = message_to_wire(message)
    assert frame.ByteSize() <= FRAME_BYTES_MAX
    return message_from_wire(frame, MESH)


def taken(rows: Rows) -> Rows:
    """Let somebody who holds nothing ask for a feed until it is whole."""
    first = sent(whole(header_of(rows), rows))
    if isinstance(first, Snapshot):
        return rows_of(first, LIMITS)
    assert isinstance(first, Manifest)
    assemblies = Assemblies(LIMITS)
    assembly = assemblies.begin(PEER, first, None, 0.0)
    assert assembly is not None
    while assembly.missing:
        pull = sent(assembly.asks())
        assert isinstance(pull, BucketPull)
        for part in list(answers(pull, rows)):
            came = sent(part)
            assert isinstance(came, BucketRows)
            assert assemblies.take(came, 0.0)
    return assembly.rows


@pytest.mark.parametrize("table", ["t", "ledger", LONG])
@pytest.mark.parametrize("size", [0, 1, 200, 300, 16 << 10])
@pytest.mark.parametrize("length", [3, 255, 256, 1024])
def test_a_bucket_that_is_as_full_as_it_may_be_fits_one_frame(table: str, size: int, length: int):
    rows = Rows()
    most = BUCKET_BYTES_MAX // (length + size + ROW_BYTES)
    for key in keys_of_one_bucket(3, BUCKET_BYTES_MAX // ROW_BYTES)[:most]:
        wide = key if length == len(key) else next(_wider(key, length))
        rows.put(table, wide, Row(SEQ_MAX, SEQ_MAX, bytes(size)))
    assert fits(rows, LIMITS)
    assert taken(rows).tables == rows.tables


def _wider(key: bytes, length: int) -> Iterator[bytes]:
    """Yield longer keys of the same bucket."""
    for number in count():
        wide = key + bytes(length - len(key) - 2) + number.to_bytes(2, "big")
        if bucket_of(wide) == 5:
            yield wide


@pytest.mark.parametrize("seed", range(40))
def test_whatever_feed_fits_is_taken_whole(seed: int):
    rng, rows = Random(seed), Rows()
    tables = [LONG[: rng.randrange(1, TABLE_CHARS_MAX + 1)] + "x" * (n % 2) for n in range(5)]
    tables = [table[:TABLE_CHARS_MAX] for table in tables]
    places = keys_of_one_bucket(3, BUCKET_BYTES_MAX // ROW_BYTES)
    for number in range(rng.choice([20, 700, 3000])):
        crowded = rng.random() < 0.8
        key = places[number] if crowded else rng.randbytes(rng.choice([0, 1, 40, 1024]))
        value = bytes(rng.choice([0, 0, 0, 3, 260, rng.randrange(2000)]))
        table = rng.choice(tables)
        rows.put(table, key, Row(rng.randrange(1, SEQ_MAX), number + 1, value))
        if rows.bucket_bytes(table, bucket_of(key)) > BUCKET_BYTES_MAX:
            rows.put(table, key, None)
    assert fits(rows, LIMITS)
    assert taken(rows).tables == rows.tables
