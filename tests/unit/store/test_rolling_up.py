"""Pieces of a roll-up: each is one flush, however long the names in its rows are."""

import sqlite3
from contextlib import closing

import pytest

from meshnode.core.feeds.feed import delta_from_bytes
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.keys import Key
from meshnode.core.ledger.ledger import LEDGER, TEXT_CHARS_MAX, Buckets, Slot, SlotKey
from meshnode.core.ledger.ledger_rows import key_to_row, slot_to_row
from meshnode.core.membership.genesis import Limits
from meshnode.store import counters, rollups
from meshnode.store.migrations import migrate

LIMITS = Limits()
ROWS = 300
NOW_S = 1_790_000_000.0


@pytest.mark.parametrize("text", ["", "anna", "\u6f22" * TEXT_CHARS_MAX])
def test_a_piece_is_a_flush_that_the_mesh_takes(text):
    slot = Slot(1, Buckets(5), *[text] * 4)
    feed = OwnFeed(Key(bytes(range(32))), "mesh", LIMITS, 1)
    pieces, after = 0, b""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection)
        keys = [SlotKey(f"s{number}", "m", "standard", number) for number in range(ROWS)]
        counters.keep_counted(connection, [(key, counters.Counted(slot, 1)) for key in keys])
        while after is not None:
            piece = rollups.plan(connection, NOW_S, after, LIMITS.flush_bytes_max // 2)
            rows = {key_to_row(k): one and slot_to_row(one) for k, one in piece.said.items()}
            feed.write_together(LEDGER, rows)
            rollups.apply(connection, piece.moved)
            flushed = feed.flush(NOW_S)
            assert len(delta_from_bytes(flushed.flush.delta, LIMITS)) >= len(piece.moved)
            pieces, after = pieces + 1, piece.after
        held = counters.counted(connection)
    assert [one for _, one in held] == [slot] * ROWS
    assert not {key for key, _ in held} & set(keys)
    assert pieces <= (2 if len(text) < 10 else 20)
