"""Records with nothing in them: what a table has for columns that has no rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.message import Message


def blank(listed: str) -> dict[str, Any]:
    """Return a record of a list with each of its fields, as `sessions` of a page of them.

    With none for a list whose records are of several shapes, or made by its verb.
    """
    from meshnode.client.messages import to_plain  # noqa: PLC0415 - rarely needed

    message = _messages().get(listed)
    return to_plain(message()) if message else {}


def _messages() -> dict[str, type[Message]]:
    from meshnode.v1 import (  # noqa: PLC0415 - as above
        agent_pb2,
        budget_pb2,
        node_pb2,
        order_service_pb2,
        session_pb2,
        usage_pb2,
    )

    return {
        "agents": agent_pb2.Agent,
        "budgets": budget_pb2.Budget,
        "groups": usage_pb2.CostGroup,
        "nodes": node_pb2.Node,
        "orders": order_service_pb2.StandingOrder,
        "sessions": session_pb2.Session,
    }
