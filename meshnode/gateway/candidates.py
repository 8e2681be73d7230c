"""The sessions that an order may mean: found by a look at each record, and few of them listed.

Invariant: what is left out changes no answer. Of those that live, else of those that have not
ended, else of all, the first are kept, of each node as many as of any other: one that is meant
alone is among them, and where several are meant, several. Those that the asker's key is for come
before others, so that a flood of namesakes hides none from who may act on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshnode.app.pieces import chunks
from meshnode.app.queries.crowds import some_of_each
from meshnode.client.messages import to_plain
from meshnode.client.targets.targets import CANDIDATES_COUNTED_MAX
from meshnode.core.ids import PREFIX_CHARS_MIN
from meshnode.core.sessions.sessions import is_proved
from meshnode.rpc.views import session_to_wire

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from meshnode.app.queries.queries import Queries
    from meshnode.client.targets.targets import Target
    from meshnode.core.ids import NodeId
    from meshnode.core.sessions.sessions import SessionRecord

    Owned = tuple[NodeId, SessionRecord]
    Plain = dict[str, Any]

KEPT_MAX = CANDIDATES_COUNTED_MAX + 1
ENDED = 2  # the last rank; those that live are the first


def candidates(
    queries: Queries, target: Target, is_theirs: Callable[[NodeId, SessionRecord], bool]
) -> Generator[None, None, list[Plain]]:
    """Return the sessions that a target may mean, as listed; with a pause at each yield.

    `is_theirs` tells which of them the asker's key is for. Raises NotFoundError or ConflictError
    for the node of the target.
    """
    found = yield from _without_copies((yield from _fitting(queries, target)))
    found = [owned for owned in found if owned[1].session_id == target.session_id] or found
    heard = {owner: queries.is_heard(owner) for owner in {owner for owner, _ in found}}
    ranks = [ENDED if record.ended else 1 - heard[owner] for owner, record in found]
    best = min(ranks, default=0)
    foremost = [owned for rank, owned in zip(ranks, found, strict=True) if rank == best]
    foremost.sort(key=lambda owned: owned[1].ended_at_s or owned[1].created_at_s, reverse=True)
    theirs: list[Owned] = []
    if len(foremost) > KEPT_MAX and best != ENDED:  # of those that ended the last is meant alone
        theirs, foremost = yield from _parted(foremost, is_theirs)
    listed = some_of_each(theirs, KEPT_MAX)
    listed += some_of_each(foremost, KEPT_MAX - len(listed))
    yield from queries.settle()
    views = queries.with_spent(queries.session(owner, record) for owner, record in listed)
    return [to_plain(session_to_wire(view)) for view in views]


def _fitting(queries: Queries, target: Target) -> Generator[None, None, list[Owned]]:
    tables = queries.mesh.tables
    owners = [queries.node_named(target.node)] if target.node else tables.origins()
    found: list[Owned] = []
    for owner in owners:
        for some in chunks(tables.sessions_of(owner)):
            found += [(owner, record) for record in some if _fits(record, target)]
            yield
    return found


def _fits(record: SessionRecord, target: Target) -> bool:
    wanted = target.session_id
    if not wanted:
        return record.agent_id == target.agent_id
    is_long = len(wanted) >= PREFIX_CHARS_MIN
    return record.session_id.startswith(wanted) if is_long else record.session_id == wanted


def _without_copies(found: list[Owned]) -> Generator[None, None, list[Owned]]:
    """Leave out rows whose session id is proved to be another node's."""
    own: list[bool] = []
    for some in chunks(found):
        own += [is_proved(*owned) for owned in some]
        yield
    proved = {owned[1].session_id for is_own, owned in zip(own, found, strict=True) if is_own}
    return [
        owned
        for is_own, owned in zip(own, found, strict=True)
        if is_own or owned[1].session_id not in proved
    ]


def _parted(
    found: list[Owned], is_theirs: Callable[[NodeId, SessionRecord], bool]
) -> Generator[None, None, tuple[list[Owned], list[Owned]]]:
    theirs: list[Owned] = []
    others: list[Owned] = []
    for some in chunks(found):
        for owned in some:
            (theirs if is_theirs(*owned) else others).append(owned)
        yield
    return theirs, others
