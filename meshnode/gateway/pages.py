"""Pages of lists; those of sessions as bytes, made once for all who ask the same until it changes.

Invariant: a page of sessions is never older than AGE_S, and never older than the last change that
this node has heard of; what a narrowed key may not see is not on its page.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import msgspec

from meshnode.app.listing import PAGE, PAGE_MAX
from meshnode.client.messages import to_plain
from meshnode.client.public import public
from meshnode.rpc.local import list_sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from meshnode.app.bearers import Bearer
    from meshnode.app.ports import Clock
    from meshnode.app.queries import Queries
    from meshnode.gateway.strict import Fields
    from meshnode.v1 import local_service_pb2 as pb

Item = TypeVar("Item")
OFFSET = re.compile("[0-9]{1,9}")  # `next` of a list that keeps its order
PART = ("limit", "next")  # the parameters of each list
AGE_S = 1.0  # ages and `observed_at` are as old as that at most
KEPT_MAX = 16  # pages; beyond, the one unused for longest is made anew
KEPT_BYTES_MAX = 512 << 10  # larger pages are not kept


@dataclass(frozen=True, slots=True)
class _Kept:
    version: int
    made_at_s: float
    content: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of a list is asked for: `limit` from place `start` on, the first is 0."""

    start: int
    limit: int

    def of(self, items: Sequence[Item]) -> tuple[Sequence[Item], str | None]:
        """Return that part, and `next`: the place of what follows, None after the last."""
        end = self.start + self.limit
        return items[self.start : end], str(end) if end < len(items) else None


def part_asked(asked: Fields) -> Part:
    """Read which part of a list is asked for; raises Problem 400."""
    place = asked.place("next", OFFSET)
    return Part(int(place or 0), asked.count("limit", PAGE_MAX) or PAGE)


class Pages:
    """Makes pages; `version` counts the changes that this node has heard of."""

    def __init__(self, queries: Queries, version: Callable[[], int], clock: Clock) -> None:
        self._queries = queries
        self._version = version
        self._clock = clock
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()

    def settle(self) -> Generator[None, None, None]:
        """Prepare, piece by piece, what `get` would otherwise have to do at once."""
        yield from self._queries.settle()

    def get(self, request: pb.ListSessionsRequest, bearer: Bearer) -> bytes:
        """Return `sessions`, `coverage` and `next` as JSON; raises UsageError."""
        if bearer.is_narrowed:
            return self._made(request, bearer)
        name = request.SerializeToString(deterministic=True)
        version, now_s = self._version(), self._clock.steady_s()
        kept = self._kept.pop(name, None)
        if kept is None or kept.version != version or now_s - kept.made_at_s > AGE_S:
            kept = _Kept(version, now_s, self._made(request, None))
        if len(kept.content) <= KEPT_BYTES_MAX:
            self._kept[name] = kept
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        return kept.content

    def _made(self, request: pb.ListSessionsRequest, bearer: Bearer | None) -> bytes:
        page = list_sessions(self._queries, request, bearer.may_see if bearer else None)
        listed = {
            "sessions": list(map(to_plain, page.sessions)),
            "coverage": to_plain(page.coverage),
            "next": page.next or None,
        }
        return msgspec.json.encode(public(listed))
