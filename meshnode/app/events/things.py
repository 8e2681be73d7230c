"""What can be told of: kinds of things, what may happen to them, and what of a thing is visible.

Invariant: two views of a thing that differ only in when it was last heard look the same.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

import msgspec
from msgspec.structs import replace

from meshnode.app.cost.cost import CostGroup
from meshnode.app.queries.views import AgentView, BudgetView, NodeView, SessionView
from meshnode.core.ledger.budgets import amount_text
from meshnode.core.ledger.prices import usd_text

if TYPE_CHECKING:
    from collections.abc import Iterable

View = SessionView | NodeView | AgentView | CostGroup | BudgetView


class Kind(StrEnum):
    """What an event is about; `watch` is the stream itself."""

    NODE = "node"
    SESSION = "session"
    AGENT = "agent"
    COST = "cost"
    BUDGET = "budget"
    WATCH = "watch"


KINDS = (Kind.NODE, Kind.SESSION, Kind.AGENT, Kind.COST, Kind.BUDGET)


class Op(StrEnum):
    """What happened; those from `snapshot` on are said by the stream itself."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"
    WARNED = "warned"  # these three of a budget, once a window
    EXCEEDED = "exceeded"
    LIFTED = "lifted"
    SNAPSHOT = "snapshot"  # how an object is now
    COMPLETE = "complete"  # that was the snapshot
    RESUMED = "resumed"  # nothing was missed since the position given
    LAGGED = "lagged"  # more has happened than was kept: forget everything, a snapshot follows
    RESET = "reset"  # the position is of no use here: forget everything, a snapshot follows


class FieldChange(msgspec.Struct, frozen=True):
    """A visible field before and after, as texts; empty is absent."""

    field: str
    before: str
    after: str


class Change(msgspec.Struct, frozen=True):
    """A visible difference. `view` is how it is now, or how it last was if it is removed."""

    kind: Kind
    op: Op
    view: View
    before: View | None = None
    quiet: bool = False  # a count or a link, not a state


def identity_of(kind: Kind, view: View) -> tuple[str, ...]:
    """Return what stays the same of an object as long as it is the same object."""
    match view:
        case SessionView():
            return (kind, view.node_id, view.record.session_id)
        case NodeView():
            return (kind, view.node_id)
        case AgentView():
            return (kind, view.agent_id, view.specialization, view.node_id)
        case CostGroup():
            return (kind, view.key["node_id"], view.key["session"], view.key["model"])
        case BudgetView():
            return (kind, view.name)


def names_of(view: View, agents: Iterable[str]) -> tuple[str, ...]:
    """Return the ids and names that a thing goes by; `agents` are those whose costs it shows."""
    match view:
        case SessionView(record=record):
            return (record.session_id, record.agent_id, view.node_name, view.node_id)
        case NodeView():
            return (view.name, view.node_id)
        case AgentView():
            session = (view.session_id,) if view.session_id else ()
            return (view.agent_id, *session, view.node_name, view.node_id)
        case CostGroup(key=key):
            return (key["session"], *sorted(agents), key["node"], key["node_id"])
        case BudgetView(terms=terms):
            whose = (terms.owner, terms.agent, terms.specialization, terms.project)
            return (view.name, *filter(None, whose))
        case _:
            assert_never(view)


def changed(
    kind: Kind, before: View | None, after: View | None, *, quiet: bool = False
) -> list[Change]:
    """Return how a thing has changed, if that can be seen; None is a thing that is not there."""
    if after is None:
        return [] if before is None else [Change(kind, Op.REMOVED, before)]
    if before is None:
        return [Change(kind, Op.ADDED, after)]
    if visible(before) == visible(after):
        return []
    return [Change(kind, Op.CHANGED, after, before, quiet or _is_active_alone(before, after))]


def _is_active_alone(before: View, after: View) -> bool:
    """Whether a session has shown no more than that it is at work, which it does all the time."""
    if not isinstance(before, SessionView) or not isinstance(after, SessionView):
        return False
    record = replace(before.record, last_activity_s=after.record.last_activity_s)
    return visible(replace(before, record=record)) == visible(after)


def cost_changed(before: CostGroup | None, after: CostGroup | None, fresh: Op) -> list[Change]:
    """`fresh` is what to call a counter that was not shown: it may be known to those who resume."""
    if before is None and after is not None:
        return [Change(Kind.COST, fresh, after, quiet=True)]
    return changed(Kind.COST, before, after, quiet=True)


def visible(view: View) -> object:
    """Leave out when it was last heard: that goes on while nothing changes."""
    match view:
        case SessionView():  # spelled out: thousands may be compared at once
            spent = (view.usage, view.cost_nusd, view.model)
            return (view.state, view.node_name, view.record, *spent)
        case NodeView():
            return replace(view, last_heard_s=None)
        case _:
            return view


def differences(change: Change) -> tuple[FieldChange, ...]:
    """Return the fields that differ, where it is known from what."""
    if change.op is not Op.CHANGED or change.before is None:
        return ()
    before, after = _told(change.before), _told(change.view)
    return tuple(
        FieldChange(name, _text(before[name]), _text(told))
        for name, told in after.items()
        if before[name] != told
    )


def _told(view: View) -> dict[str, object]:
    """Return the fields whose change is worth words."""
    match view:
        case SessionView():
            record = view.record
            return {
                "state": view.state,
                "waiting_for": record.waiting_for,
                "title": record.title,
                "end_reason": record.end_reason,
                "exit_code": record.exit_code,
                "signal": record.signal,
                "messages": record.message_count,
                "tool_calls": record.tool_calls,
                "pid": record.pid,
                "model": view.model or record.model,
                "tokens": view.usage.total,
                "cost_usd": _usd(view.cost_nusd),
                "labels": record.labels,
                "orders": record.orders,
                "node": view.node_name,
            }
        case NodeView():
            return {
                "state": view.state,
                "name": view.name,
                "addresses": view.addresses,
                "version": view.version,
                "labels": view.labels,
                "sessions": view.sessions,
                "links": len(view.links),
            }
        case AgentView():
            return {
                "session": view.session_id,
                "node": view.node_name,
                "attributes": view.attributes,
            }
        case CostGroup():
            return {
                "records": view.records,
                "tokens": view.usage.total,
                "cost_usd": _usd(view.cost_nusd),
            }
        case BudgetView(terms=terms):
            return {
                "limit": amount_text(terms.limit, terms.unit),
                "per": terms.per,
                "then": terms.then,
                "warn": f"{terms.warn_percent}%",
                "owner": terms.owner,
                "agent": terms.agent,
                "specialization": terms.specialization,
                "project": terms.project,
            }
        case _:
            assert_never(view)


def _text(told: object) -> str:
    match told:
        case None:
            return ""
        case dict():
            return ",".join(f"{key}={text}" for key, text in sorted(told.items()))
        case tuple():
            return ",".join(map(str, told))
        case _:
            return str(told)


def _usd(nusd: int | None) -> str | None:
    return None if nusd is None else usd_text(nusd)
