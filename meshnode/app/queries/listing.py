"""A page of sessions: which are listed, in which order, and where the next page begins.

Invariant: whatever is not on the page costs a look at its record and no more, so a page of many
thousand sessions is made in milliseconds. Hence the plain loops: in a mesh that changes each second
a page is made anew each second, for each who looks. The next page goes on behind the last session
of this one, wherever that stands by then: only what has moved meanwhile may be passed over, or told
twice. Sorted by `created` nothing moves.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from meshnode.app.cost.spending import Spent
from meshnode.core.errors import UsageError
from meshnode.core.ids import PREFIX_CHARS_MIN
from meshnode.core.sessions.sessions import SessionRecord, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from meshnode.app.queries.queries import Queries
    from meshnode.app.queries.views import Selection, SessionView
    from meshnode.core.ids import NodeId

    Found = tuple[NodeId, SessionRecord]
    Condition = Callable[[NodeId, SessionRecord, State], bool]
    MaySee = Callable[[NodeId, SessionRecord], bool]
    Place = tuple[float, str]  # in the order of a list: a value, and the beginning of an id

PAGE = 200
PAGE_MAX = 1000
ID_CHARS = 32  # of a session id decide between equals; ours have 26
NEXT = re.compile(
    "[0-9a-f]{16}(?:[0-9a-f]{2}){0,128}"
)  # `next`: a value, and what of an id decides
ENDED_LATELY_S = 600.0
LATER_S = 2.0**36  # beyond all times of day, and a float still tells microseconds there
_ACTIVE = frozenset({State.RUNNING, State.WAITING_PERMISSION})
_FAILED = frozenset({State.FAILED, State.EXPIRED})  # not as it was meant to: nobody ordered it

FILTERS: dict[str, Callable[[SessionRecord, State], bool]] = {
    "alive": lambda record, state: state is not State.UNREACHABLE and not record.ended,
    "active": lambda _record, state: state in _ACTIVE,
    "idle": lambda _record, state: state is State.IDLE,
    "waiting": lambda _record, state: state is State.WAITING_PERMISSION,
    "suspended": lambda _record, state: state is State.SUSPENDED,
    "unreachable": lambda _record, state: state is State.UNREACHABLE,
    "ended": lambda record, _state: record.ended,
    "closed": lambda _record, state: state is State.CLOSED,
    "failed": lambda _record, state: state in _FAILED,
    "killed": lambda _record, state: state is State.KILLED,
    "all": lambda _record, _state: True,
}
BY_RECORD: dict[str, Callable[[SessionRecord], float]] = {
    # Who has not ended comes first, as in `watch`: nobody moves by falling silent.
    "updated": lambda record: (LATER_S if record.ended else 0.0) - record.last_activity_s,
    "created": lambda record: -record.created_at_s,
}
BY_SPENT: dict[str, Callable[[Spent], float]] = {
    "cost": lambda spent: -(spent.nusd or 0),
    "tokens": lambda spent: -spent.usage.total,
}


def page_of(
    queries: Queries, selection: Selection, may_see: MaySee | None = None
) -> tuple[list[SessionView], str]:
    """Return a page of sessions and where the next one begins; raises UsageError.

    `may_see`: whether whoever asks may read a session, None: all.
    """
    sort = selection.sort or "updated"
    if selection.filter and selection.filter not in FILTERS:
        raise UsageError(f"no such filter: {selection.filter[:40]}", _one_of(FILTERS))
    if sort not in BY_RECORD | BY_SPENT:
        raise UsageError(f"cannot sort by {sort[:40]}", _one_of([*BY_RECORD, *BY_SPENT]))
    limit = selection.limit or PAGE
    if limit > PAGE_MAX:
        raise UsageError(f"a page has at most {PAGE_MAX} sessions", "follow `next` for more")
    behind = _place(selection.next)
    conditions = _conditions(queries, selection)
    if may_see is not None:
        conditions.append(lambda owner, record, _s: may_see(owner, record))
    found = _found(queries, conditions)
    owners: dict[str, NodeId] = {}
    if sort in BY_SPENT:
        owners = {record.session_id: owner for owner, record in found}
    spent = queries.spent(owners)
    first, following = _first(limit, found, _values(found, sort, spent), behind)
    page = [queries.session(owner, record) for owner, record in first]
    return queries.with_spent(page, spent or None), following


def _found(queries: Queries, conditions: list[Condition]) -> list[Found]:
    found: list[Found] = []
    for owner in queries.mesh.tables.origins():
        heard = queries.is_heard(owner)
        for record in queries.mesh.tables.sessions_of(owner):
            state = record.state if heard or record.ended else State.UNREACHABLE
            for condition in conditions:
                if not condition(owner, record, state):
                    break
            else:
                found.append((owner, record))
    return found


def _conditions(queries: Queries, selection: Selection) -> list[Condition]:
    """Return only what was asked for."""
    conditions: list[Condition] = []
    if selection.session_id:
        conditions.append(lambda _o, record, _s: _named(record, selection.session_id))
    if selection.node:
        node = queries.node_named(selection.node)
        conditions.append(lambda owner, _r, _s: owner == node)
    if selection.owner:
        conditions.append(lambda _o, record, _s: record.owner == selection.owner)
    if selection.agent_id:
        conditions.append(lambda _o, record, _s: record.agent_id == selection.agent_id)
    if selection.specialization:
        conditions.append(lambda _o, r, _s: selection.specialization in r.specializations)
    if selection.labels:
        conditions.append(lambda _o, record, _s: selection.labels.items() <= record.labels.items())
    if selection.filter != "all":
        conditions.append(_of_state(selection.filter, queries.now_s()))
    return conditions


def _of_state(name: str, now_s: float) -> Condition:
    if name:
        chosen = FILTERS[name]
        return lambda _o, record, state: chosen(record, state)
    limit_s = now_s - ENDED_LATELY_S
    return lambda _o, record, _s: not record.ended or (record.ended_at_s or 0.0) >= limit_s


def _values(found: list[Found], sort: str, spent: dict[str, Spent]) -> list[float]:
    """Return by what each is sorted, the least first."""
    if sort in BY_RECORD:
        value = BY_RECORD[sort]
        return [value(record) for _, record in found]
    amount, nothing = BY_SPENT[sort], Spent()
    return [float(amount(spent.get(record.session_id, nothing))) for _, record in found]


def _first(
    count: int, found: list[Found], values: list[float], behind: Place | None
) -> tuple[list[Found], str]:
    """Return those with the least values behind a place, in their order, and what follows them."""

    def order(place: int) -> Place:
        return values[place], found[place][1].session_id[:ID_CHARS]

    places: Sequence[int] = range(len(found))
    if behind is not None:
        places = [place for place in places if values[place] >= behind[0] and order(place) > behind]
    has_more = count < len(places)
    if has_more:  # whatever is beyond the page is not put in order
        last = sorted(values[place] for place in places)[count - 1]
        places = [place for place in places if values[place] <= last]
    first = sorted(places, key=order)[:count]
    following = _token(order(first[-1])) if has_more else ""
    return [found[place] for place in first], following


def _named(record: SessionRecord, name: str) -> bool:
    if name == record.session_id:
        return True
    return len(name) >= PREFIX_CHARS_MIN and record.session_id.startswith(name)


def _token(place: Place) -> str:
    value, session_id = place
    return struct.pack(">d", value).hex() + session_id.encode().hex()


def _place(token: str) -> Place | None:
    if not token:
        return None
    try:
        raw = bytes.fromhex(token if NEXT.fullmatch(token) else "?")
        return float(struct.unpack(">d", raw[:8])[0]), raw[8:].decode()
    except ValueError:
        raise UsageError("`next` is not from an earlier answer") from None


def _one_of(words: Iterable[str]) -> str:
    return f"one of {', '.join(words)}"
