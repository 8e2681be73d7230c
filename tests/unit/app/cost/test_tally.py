"""Which model was used last, as far as slots of half an hour tell."""

import pytest

from meshnode.app.cost.tally import Use, used_last


@pytest.mark.parametrize(
    ("uses", "model"),
    [
        ([], None),
        ([Use(0.0, "b", 9), Use(1800.0, "a", 1)], "a"),
        ([Use(1800.0, "a", 9), Use(1800.0, "b", 1), Use(0.0, "c", 99)], "a"),
        ([Use(1800.0, "a", 2), Use(1800.0, "b", 3), Use(1800.0, "a", 2)], "a"),
        ([Use(1800.0, "a", 2), Use(1800.0, "b", 2)], "b"),
    ],
    ids=["none", "the latest", "the most", "the most in all", "as many"],
)
def test_of_the_models_of_the_last_slot_the_one_with_most_tokens_was_used_last(uses, model):
    assert used_last(uses) == used_last(reversed(uses)) == model
