"""Pages of lists; those of sessions as bytes, made once for all who ask the same until it changes.

Invariant: a page of sessions is never older than AGE_S, and never older than the last change that
this node has heard of; what a narrowed key may not see is not on its page. A page of anything goes
on behind the last item told, wherever that would stand by now: only what moves in the order of the
list is left out or told twice.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from meshnode.app.queries.listing import PAGE, PAGE_MAX
from meshnode.client.messages import to_plain
from meshnode.client.public import public
from meshnode.client.targets.nodes import working_links
from meshnode.gateway.strict import not_from_before
from meshnode.rpc.local import list_sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from meshnode.app.commands.bearers import Bearer
    from meshnode.app.ports import Clock
    from meshnode.app.queries.queries import Queries
    from meshnode.gateway.strict import Fields
    from meshnode.v1 import local_service_pb2 as pb

    Plain = dict[str, Any]

Item = TypeVar("Item")
BEHIND = re.compile("[0-9A-Za-z_-]+")  # `next`: the last item's place in the order
PART = ("limit", "next")  # the parameters of each list
AGE_S = 1.0  # ages and `observed_at` are as old as that at most
KEPT_MAX = 16  # pages; beyond, the one unused for longest is made anew
KEPT_BYTES_MAX = 512 << 10  # larger pages are not kept


class _Kept(msgspec.Struct, frozen=True):
    version: int
    made_at_s: float
    content: bytes


Order = tuple[int | str, ...]  # where an item stands in its list: as many, of the same types, each


class Part(msgspec.Struct, frozen=True):
    """Which part of a list is asked for: `limit` items that stand behind a place."""

    limit: int
    behind: Order = ()

    def of(self, items: Iterable[tuple[Order, Item]]) -> tuple[list[Item], str | None]:
        """Return that part of the items, in their order, and `next`: None after the last.

        Raises Problem 400 if `next` was of another list.
        """
        try:
            found = [one for one in items if one[0] > self.behind]
        except TypeError:
            raise not_from_before("next") from None
        page = sorted(found, key=itemgetter(0))[: self.limit]
        return [item for _, item in page], _token(page[-1][0]) if len(found) > len(page) else None


def part_asked(asked: Fields) -> Part:
    """Read which part of a list is asked for; raises Problem 400."""
    token = asked.place("next", BEHIND)
    return Part(asked.count("limit", PAGE_MAX) or PAGE, _order(token) if token else ())


def _token(order: Order) -> str:
    return urlsafe_b64encode(msgspec.msgpack.encode(order)).decode().rstrip("=")


def _order(token: str) -> Order:
    try:
        raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        return msgspec.msgpack.decode(raw, type=Order)
    except (ValueError, msgspec.DecodeError):
        raise not_from_before("next") from None


def coverage_for(bearer: Bearer | None, coverage: Plain) -> Plain:
    """Return a coverage as a key may see it: of some nodes only, who is missing is but counted."""
    if bearer is None or not bearer.names_nodes:
        return coverage
    unnamed = len(coverage["missing"]) + coverage["missing_more"]
    return coverage | {"missing": [], "missing_more": unnamed}


def node_for(bearer: Bearer, node: Plain) -> Plain:
    """Return a node as a key may see it: of its working links those to nodes of the key."""
    node = working_links(node)
    return node | {"links": [one for one in node["links"] if bearer.may_see_node(one)]}


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
            "coverage": coverage_for(bearer, to_plain(page.coverage)),
            "next": page.next or None,
        }
        return msgspec.json.encode(public(listed))
