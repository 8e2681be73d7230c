"""Nothing new is called by a name with a comma; what is called so can be read and taken back."""

import pytest
from viewing import Viewer

from meshnode.app.queries.listing import page_of
from meshnode.app.queries.views import Selection
from meshnode.app.sessions.opening import Opening, check_opening
from meshnode.core.control.settings import Budget, Terms, budget_from_map
from meshnode.core.errors import UsageError
from meshnode.core.ledger.budgets import budget_of
from meshnode.core.sessions.registry import (
    Birth,
    Specialist,
    place_of,
    registration_from_row,
    registry_key,
    registry_row,
    specialist,
)

TWO = "a,b"


@pytest.mark.parametrize(
    "begin",
    [
        lambda: check_opening(Opening(specializations=("x", TWO))),
        lambda: specialist("agent", TWO, {}),
        lambda: budget_of({"name": "n", "limit": "1usd", "per": "day", "spec": TWO}),
    ],
    ids=["a session", "an entry", "a budget"],
)
def test_nothing_new_is_called_like_two(begin):
    with pytest.raises(UsageError, match="no comma in its name: 'a,b'"):
        begin()


def test_a_session_that_is_called_like_two_is_listed_and_found():
    viewer = Viewer()
    viewer.session(2, "old", specializations=(TWO,))
    views, _ = page_of(viewer.queries, Selection(specialization=TWO))
    assert [view.record.session_id for view in views] == ["old"]
    assert views[0].record.specializations == (TWO,)


def test_an_entry_and_a_budget_that_are_called_like_two_are_read_and_named():
    place = place_of("agent", TWO)
    row = registry_row(Specialist("agent", TWO), Birth(1, 1))
    assert registration_from_row(registry_key(place), row).entry.place == place
    budget = Budget("n", Terms(1, "nusd", "day", "suspend", 80, specialization=TWO))
    assert budget_from_map(budget.to_map()) == budget
