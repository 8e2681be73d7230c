"""What equal nodes of a big mesh share: the states of replicas.

Invariant: to its owner a SharedReplica is a Replica: applying the same verified flush to the same
state is a pure function, so it is done once by the real Replica on a copy, and the outcome, never
changed again, is handed to everybody. A state is forgotten with the last replica that holds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from copying import copied
from msgspec.structs import replace as struct_replace

from meshnode.core.feeds.feed import Change, Flush, Replica
from meshnode.core.feeds.heads import NOTHING, Head
from meshnode.core.feeds.rows import Rows, all_rows

if TYPE_CHECKING:
    from meshnode.core.feeds.headers import Header
    from meshnode.core.ids import NodeId
    from meshnode.core.membership.genesis import Limits

EMPTY_MAX = 20_000  # origins; then all are forgotten


class State:
    """Rows that nobody changes, the header that proves them, and where flushes lead from here."""

    __slots__ = ("__weakref__", "head", "header", "limits", "next", "origin", "rows", "whole")

    def __init__(
        self, origin: NodeId, limits: Limits, header: Header | None = None, rows: Rows | None = None
    ) -> None:
        self.origin, self.limits, self.header = origin, limits, header
        self.rows = Rows() if rows is None else rows
        self.head: Head = NOTHING if header is None else header.head
        self.next: dict[bytes, tuple[Flush, State, Change]] = {}
        self.whole: Change | None = None

    def after(self, flush: Flush) -> tuple[State, Change]:
        """Return the state after a flush; raises PeerError as Replica.apply does."""
        signed = flush.header.signed
        mark = b"" if signed is None else signed.signature
        known = self.next.get(mark)
        if known is not None and _same(known[0], flush):
            return known[1], known[2]
        replica = Replica(self.origin, self.limits)
        replica.header, replica.rows = self.header, copied(self.rows)
        change = replica.apply(flush)
        state = _interned(State(self.origin, self.limits, change.header, replica.rows))
        self.next = {mark: (flush, state, change)}  # but for forks, one flush follows a state
        return state, change


def _same(one: Flush, other: Flush) -> bool:
    """Whether two flushes say the same, whichever way they travelled."""
    if one is other:
        return True
    same = one.header is other.header or one.header == other.header
    return same and one.delta == other.delta


_states: WeakValueDictionary[tuple[NodeId, bytes], State] = WeakValueDictionary()
_empty: dict[tuple[NodeId, Limits], State] = {}  # where every replica begins


def _interned(state: State) -> State:
    """Return the state that everybody else already holds, if it is proved by the same header."""
    header = state.header
    if header is None or header.signed is None:
        return state
    known = _states.get((state.origin, header.signed.signature))
    if known is not None and (known.header is header or known.header == header):
        return known
    _states[state.origin, header.signed.signature] = state
    return state


class SharedReplica(Replica):
    """A replica that is no more than a reference to a state which others hold too."""

    __slots__ = ("state",)

    def __init__(self, origin: NodeId, limits: Limits) -> None:
        state = _empty.get((origin, limits))
        if state is None:
            if len(_empty) >= EMPTY_MAX:
                _empty.clear()
            state = _empty[origin, limits] = State(origin, limits)
        self.state = state

    @property
    def origin(self) -> NodeId:  # type: ignore[override] # a property on purpose
        return self.state.origin

    @property
    def rows(self) -> Rows:  # type: ignore[override] # a property on purpose
        return self.state.rows

    @property
    def header(self) -> Header | None:  # type: ignore[override] # a property on purpose
        return self.state.header

    @property
    def _limits(self) -> Limits:  # type: ignore[override] # a property on purpose
        return self.state.limits

    @property
    def head(self) -> Head:
        return self.state.head

    def apply(self, flush: Flush) -> Change:
        self.state, change = self.state.after(flush)
        return change if change.flush == flush else struct_replace(change, flush=flush)

    def replace(self, header: Header, rows: Rows) -> Change:
        state = _known(self.state, header)
        if state is None:
            state = _interned(State(self.state.origin, self.state.limits, header, rows))
        self.state = state
        if state.whole is None:
            state.whole = Change(state.origin, header, None, all_rows(state.rows))
        return state.whole


def _known(present: State, header: Header) -> State | None:
    signed = header.signed
    known = None if signed is None else _states.get((present.origin, signed.signature))
    return known if known is not None and known.header is header else None
