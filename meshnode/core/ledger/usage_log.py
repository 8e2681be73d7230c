"""The raw log of usage at its owner: records chained by hash, corrected by later records.

Invariant: a record is never changed. What a log says later of a response already counted becomes a
further revision, under the same `idem_key`; which of two counts depends on them alone, so the order
of reading decides nothing. No prompt text is in a record.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from meshnode.core.packing import pack_lists

if TYPE_CHECKING:
    from meshnode.core.ledger.charges import Charge
    from meshnode.core.ledger.ledger import UsageRecord

HASH_BYTES = 32
START_HASH = bytes(HASH_BYTES)  # what the first record is chained to


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A record in its place: `seq` counts from 1, `revision` from 0 for each `idem_key`."""

    seq: int
    revision: int
    recorded_ms: int
    record: UsageRecord
    charge: Charge


def preferred(known: UsageRecord, other: UsageRecord) -> UsageRecord:
    """Return what counts of two records of one response; `known` itself if nothing changes.

    The whole record of the higher rank, at the earlier time of both. Of equal ranks the larger
    total counts, then the smaller texts: a made-up order, but the same in every order of reading.
    """
    better = other if _beats(other, known) else known
    if better.at_s <= known.at_s and better.at_s <= other.at_s:
        return better
    return msgspec.structs.replace(better, at_s=min(known.at_s, other.at_s))


def says_the_same(one: UsageRecord, other: UsageRecord) -> bool:
    """Tell whether it makes no difference which of two records of one response counts.

    But for their times: an earlier one moves what counts.
    """
    return (_weight(one), _texts(one)) == (_weight(other), _texts(other))


def chained(before: bytes, entry: Entry) -> bytes:
    """Return the hash of an entry: SHA-256 over the hash before it and all that the entry says."""
    record, charge = entry.record, entry.charge
    said = (
        (entry.seq, entry.revision, entry.recorded_ms, record.rank, record.at_s, record.offset),
        (record.idem_key, record.source, record.session, record.project, record.agent),
        (record.owner, record.model, record.provider, record.tier, record.file, *record.flags),
        (*record.usage.counts, charge.cost_nusd, charge.price_source),
    )
    return sha256(before + pack_lists(said)).digest()


def _beats(one: UsageRecord, other: UsageRecord) -> bool:
    mine, theirs = _weight(one), _weight(other)
    return mine > theirs or (mine == theirs and _texts(one) < _texts(other))


def _weight(record: UsageRecord) -> tuple[object, ...]:
    return (record.rank, record.usage.total, record.usage.counts)


def _texts(record: UsageRecord) -> tuple[object, ...]:
    where = (record.session, record.project, record.agent, record.owner)
    return (*where, record.model, record.provider, record.tier, record.source, record.flags)
