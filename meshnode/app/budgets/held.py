"""Which sessions budgets have suspended and nobody has resumed, as the owners tell.

Invariant: however many a member tells of, so many are named, and those of others among them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from meshnode.app.pieces import chunks
from meshnode.app.queries.crowds import some_of_each
from meshnode.app.queries.views import HeldSession
from meshnode.app.sessions.opening import TEXT_CHARS_MAX
from meshnode.core.ids import b32
from meshnode.core.sessions.sessions import State, is_proved

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from meshnode.app.queries.queries import Queries
    from meshnode.app.queries.views import BudgetView
    from meshnode.core.ids import NodeId
    from meshnode.core.sessions.sessions import SessionRecord

    Owned = tuple[NodeId, SessionRecord]

HELD_SHOWN = 50  # sessions by name, of each budget; others are counted
SUSPENDED = "suspended"  # what a session's row says that a budget did


def held_by(
    queries: Queries, budget_ids: Iterable[bytes]
) -> Generator[None, None, dict[str, list[Owned]]]:
    """Return the sessions that these budgets hold, by budget; with a pause at each yield."""
    found: dict[str, list[Owned]] = {b32(budget_id): [] for budget_id in budget_ids}
    for some in chunks(list(queries.mesh.tables.sessions())):
        for owner, record in some:
            if record.state is State.SUSPENDED and is_proved(owner, record):
                for budget_id in found.keys() & _holders(record):
                    found[budget_id].append((owner, record))
        yield
    return found


def with_held(queries: Queries, view: BudgetView, held: list[Owned]) -> BudgetView:
    """Return a budget with the sessions that it holds."""
    shown = tuple(
        HeldSession(
            record.session_id, record.agent_id[:TEXT_CHARS_MAX], owner, queries.name_of(owner)
        )
        for owner, record in some_of_each(held, HELD_SHOWN)
    )
    return replace(view, held=shown, held_more=len(held) - len(shown))


def _holders(record: SessionRecord) -> set[str]:
    words = (told.split(" ", 2) for told in record.orders)
    return {said[0] for said in words if said[1:2] == [SUSPENDED]}
