"""What the mesh has spent, on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs
from msgspec.structs import asdict

from meshnode.app.cost.cutting import CostQuery
from meshnode.app.cost.tally import MOST_MAX
from meshnode.core.errors import UsageError
from meshnode.core.ledger.ledger import Buckets
from meshnode.core.ledger.prices import usd_text
from meshnode.v1 import local_service_pb2, usage_pb2
from meshnode.wire.times import time_from_wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshnode.app.cost.cost import CostAnswer, CostGroup
    from meshnode.core.ids import NodeId
    from meshnode.v1 import coverage_pb2


def buckets_to_wire(usage: Buckets) -> usage_pb2.Buckets:
    """Encode token counts, their sum included."""
    return usage_pb2.Buckets(**structs.asdict(usage), total=usage.total)


def buckets_from_wire(message: usage_pb2.Buckets) -> Buckets:
    """Decode token counts; their sum is not read."""
    return Buckets(*(getattr(message, field.name) for field in structs.fields(Buckets)))


def query_from_wire(
    request: local_service_pb2.GetCostRequest, node_named: Callable[[str], NodeId]
) -> CostQuery:
    """Decode a question; raises UsageError, and what `node_named` does for a node not known."""
    if request.most > MOST_MAX:
        raise UsageError(f"at most {MOST_MAX} groups are told apart, not {request.most}")
    return CostQuery(
        by=tuple(request.by),
        since_s=time_from_wire(request.since) if request.HasField("since") else None,
        until_s=time_from_wire(request.until) if request.HasField("until") else None,
        tz=request.tz or "UTC",
        node_id=node_named(request.node) if request.node else None,
        session=request.session_id,
        prices_at_s=time_from_wire(request.prices_at) if request.HasField("prices_at") else None,
        most=request.most,
    )


def answer_to_wire(
    answer: CostAnswer, coverage: coverage_pb2.Coverage
) -> local_service_pb2.GetCostResponse:
    """Encode an answer."""
    diagnostics = asdict(answer.diagnostics)
    del diagnostics["records"]
    return local_service_pb2.GetCostResponse(
        records=answer.records,
        totals=buckets_to_wire(answer.totals),
        cost_usd=_usd(answer.cost_nusd),
        groups=[group_to_wire(group) for group in answer.groups],
        unpriced=[
            usage_pb2.Unpriced(model=one.model, records=one.records, total=one.total)
            for one in answer.unpriced
        ],
        diagnostics=usage_pb2.LedgerDiagnostics(**diagnostics),
        coverage=coverage,
        price_source=answer.price_source,
        tz_exact=answer.tz_exact,
        sessions=answer.sessions,
        notes=answer.notes,
        groups_more=answer.groups_more,
    )


def group_to_wire(group: CostGroup) -> usage_pb2.CostGroup:
    """Encode one row of an answer."""
    return usage_pb2.CostGroup(
        key=group.key,
        records=group.records,
        sessions=group.sessions,
        models=group.models,
        usage=buckets_to_wire(group.usage),
        cost_usd=_usd(group.cost_nusd),
    )


def _usd(nusd: int | None) -> str | None:
    return None if nusd is None else usd_text(nusd)
