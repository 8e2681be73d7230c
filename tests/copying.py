"""Rows that may go their own way, as a disk or another node has them."""

from meshnode.core.feeds.rows import Rows, all_rows


def copied(rows: Rows) -> Rows:
    copy = Rows()
    for (table, key), row in all_rows(rows).items():
        copy.put(table, key, row)
    return copy
