"""Records of responses that a transcript tells of, whichever program wrote it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from meshnode.core.ledger.ledger import UsageRecord
from meshnode.core.ledger.tiers import tier_of

if TYPE_CHECKING:
    from meshnode.core.ledger.ledger import Buckets


class Response(msgspec.Struct, frozen=True):
    """Which response it is, and what its transcript says of it beside the tokens."""

    key: str  # see UsageRecord.idem_key
    at_s: float
    session: str
    project: str
    model: str  # "" if nobody says
    provider: str
    file: str
    offset: int
    service: str = ""  # the service tier that was asked for
    formerly: str = ""  # see UsageRecord


def record_of(source: str, response: Response, usage: Buckets, rank: int) -> UsageRecord:
    """Make the record of a response."""
    return UsageRecord(
        idem_key=response.key,
        source=source,
        at_s=response.at_s,
        session=response.session,
        project=response.project,
        agent="",
        owner="",
        model=response.model or "unknown",
        provider=response.provider,
        tier=tier_of(response.service, usage.prompt),
        usage=usage,
        rank=rank,
        file=response.file,
        offset=response.offset,
        formerly=response.formerly,
    )
