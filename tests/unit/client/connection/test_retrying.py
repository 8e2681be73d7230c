"""What failed for the moment is tried again, once after each of the pauses."""

import pytest

from meshnode.client.connection.retrying import PAUSES_S, tried
from meshnode.core.errors import NotFoundError, UnreachableError


class Asked:
    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.pauses = []

    def __call__(self):
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def tried(self):
        return tried(
            self, lambda error: isinstance(error, UnreachableError), pause=self.pauses.append
        )


def test_it_is_tried_again_with_pauses_that_double():
    asked = Asked(UnreachableError("1"), UnreachableError("2"), "answer")
    assert asked.tried() == "answer"
    first, second = asked.pauses
    assert second == 2 * first > 0


def test_the_failure_after_the_last_pause_is_told():
    asked = Asked(*(UnreachableError(str(number)) for number in range(9)))
    with pytest.raises(UnreachableError) as raised:
        asked.tried()
    assert raised.value.message == str(len(PAUSES_S))
    assert asked.pauses == list(PAUSES_S)


def test_what_will_not_pass_is_told_at_once():
    asked = Asked(NotFoundError("no"))
    with pytest.raises(NotFoundError):
        asked.tried()
    assert asked.pauses == []
