"""What a log said of one call: what a test is about, and the rest as plain as it can be."""

from typing import Any

from msgspec.structs import replace

from meshnode.core.ledger.ledger import Buckets, UsageRecord

PLAIN = UsageRecord(
    idem_key="r1",
    source="higress",
    at_s=1800.0,
    session="s",
    project="",
    agent="",
    owner="",
    model="m",
    provider="",
    tier="standard",
    usage=Buckets(input=100),
)


def usage_record(idem_key: str = "r1", **said: Any) -> UsageRecord:
    return replace(PLAIN, idem_key=idem_key, **said)
