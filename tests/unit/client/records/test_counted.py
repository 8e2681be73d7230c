"""Which session the start of an id means, of those that ledgers have."""

import pytest

from meshnode.client.records.counted import TOO_MANY, begun, logged_session_id
from meshnode.core.errors import ConflictError, UsageError

SESSIONS = ("11111111-2222", "11111111-3333", "22222222-4444")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("22222222", "22222222-4444"),
        ("11111111-3", "11111111-3333"),
        ("2222222", ""),
        ("3" * 8, ""),
    ],
)
def test_the_start_of_an_id_is_eight_characters_or_more(word, meant):
    assert begun(word, SESSIONS) == meant


def test_a_start_that_fits_several_lists_them():
    with pytest.raises(ConflictError, match="fits 2 sessions: 11111111-2222, 11111111-3333"):
        begun("11111111", SESSIONS)


class Crowded:
    """A mesh with more sessions than an answer holds."""

    def cost(self, by, of=("", "")):
        if not of[1]:
            raise UsageError("an answer holds 3 groups, and these are more", "ask about less")
        return {"records": 0, "groups": []}


def test_among_very_many_sessions_the_whole_id_is_asked_for():
    with pytest.raises(UsageError, match="an answer holds 3 groups") as told:
        logged_session_id(Crowded(), "11111111")
    assert told.value.hint == TOO_MANY
