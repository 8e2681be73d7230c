"""What the mesh has spent, over HTTP: the one place that knows how that is asked.

Invariant: every field that the question has is a parameter of the same name, so that this follows
when the question gets another one.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor

from meshnode.app.cost.cutting import BY, check_grouping, zone_named
from meshnode.app.cost.tally import MOST_MAX
from meshnode.client.durations import parse_instant
from meshnode.client.messages import to_plain
from meshnode.core.errors import NotFoundError
from meshnode.gateway.openapi import query
from meshnode.gateway.pages import PART, part_asked
from meshnode.gateway.strict import about, parse_query
from meshnode.rpc.local import cost_in_pieces
from meshnode.v1 import local_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from meshnode.app.queries.queries import Queries
    from meshnode.gateway.pages import Order, Part
    from meshnode.gateway.strict import Fields
    from meshnode.v1 import usage_pb2

MOMENTS = frozenset({"since", "until"})  # and what ends in _at
_FIELDS = {field.name: field for field in pb.GetCostRequest.DESCRIPTOR.fields}
_REPEATED = tuple(name for name, field in _FIELDS.items() if field.is_repeated)
_COUNTS_MAX = {"most": MOST_MAX}  # of each field that is a number
WHOLE_ID = (
    "give the whole id: GET /sessions?filter=all lists those that are known,"
    " GET /api/session-mesh/cost?by=session those counted"
)
_WORD_MAX = (1 << 63) - 1  # beyond, groups are told by their names


def _schema(field: FieldDescriptor) -> dict[str, Any]:
    if field.name == "by":
        return {"type": "array", "items": {"type": "string", "enum": list(BY)}}
    if field.type == FieldDescriptor.TYPE_BOOL:
        return {"type": "boolean"}
    if field.type == FieldDescriptor.TYPE_STRING:
        return {"type": "string", "minLength": 1, "maxLength": 64}
    return {"type": "integer", "minimum": 1, "maximum": _COUNTS_MAX[field.name]}


def _what(name: str) -> str:
    said = f"s session-mesh cost --{name.removesuffix('_id').replace('_', '-')}."
    if name == "session_id":  # the start of an id, or an agent's name, is for people who type
        return f"By its whole id; 404 where it is neither listed nor counted. Else a{said}"
    return f"A{said}"


PARAMETERS = tuple(query(name, _what(name), _schema(field)) for name, field in _FIELDS.items())


def asked_of(parameters: bytes, now_s: float) -> tuple[pb.GetCostRequest, Part]:
    """Read a question, and which groups of its answer to give; raises Problem 400."""
    asked = parse_query(parameters, (*_FIELDS, *PART), _REPEATED)
    request = pb.GetCostRequest(
        **{name: _value(asked, field, now_s) for name, field in _FIELDS.items() if name in asked}
    )
    with about("by"):
        for word in request.by:
            check_grouping(word)
    with about("tz"):
        zone_named(request.tz)
    return request, part_asked(asked)


def _value(asked: Fields, field: FieldDescriptor, now_s: float) -> Any:  # noqa: ANN401 - by its field
    name = field.name
    if field.is_repeated:
        return asked.texts(name)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return asked.flag(name)
    if field.type == FieldDescriptor.TYPE_STRING:
        text = asked.text(name, chars_max=64)
        if name in MOMENTS or name.endswith("_at"):
            with about(name):
                return parse_instant(text, now_s)
        return text
    return asked.count(name, _COUNTS_MAX[name])


async def answer(queries: Queries, request: pb.GetCostRequest, part: Part) -> dict[str, Any]:
    """Sum the ledgers of the whole mesh, and give a part of the groups.

    Raises Problem 400, and NotFoundError for a session that nobody knows.
    """
    said = await cost_in_pieces(queries, request)
    if request.session_id and not said.records:
        await _check_known(queries, request.session_id)
    groups, following = part.of(_in_order(said.groups, said.groups_more))
    del said.groups[:]
    return to_plain(said) | {"groups": list(map(to_plain, groups)), "next": following}


async def _check_known(queries: Queries, session: str) -> None:
    """Raise NotFoundError unless a session is listed or counted: else a typo looks free."""
    tables = queries.mesh.tables
    if any(tables.session(origin, session) for origin in tables.origins()):
        return
    ever = await cost_in_pieces(queries, pb.GetCostRequest(session_id=session))
    if not ever.records:
        raise NotFoundError(f"no session {session!r} is listed or counted", WHOLE_ID)


def _in_order(
    groups: Sequence[usage_pb2.CostGroup], more: int
) -> Iterator[tuple[Order, usage_pb2.CostGroup]]:
    """Say where each stands: the dearest first, and last the one that `more` are joined in."""
    alone = len(groups) - bool(more)
    for place, group in enumerate(groups):
        nusd = int(Decimal(group.cost_usd or 0).scaleb(9))
        values = (-min(nusd, _WORD_MAX), -min(group.usage.total, _WORD_MAX))
        words = (value for _, value in sorted(group.key.items()))
        yield (int(place >= alone), *values, *words), group
