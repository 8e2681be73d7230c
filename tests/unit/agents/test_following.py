"""A supervisor's last word, as its node takes it: it comes from a file that anybody may write."""

import pytest

from meshnode.agents.following import TEXT_CHARS_MAX, ending_of

TEXTS = ("reason", "signal", "killed_by_command", "closed_by_command")


@pytest.mark.parametrize("field", TEXTS)
def test_half_a_character_in_a_last_word_becomes_one_that_a_row_can_hold(field: str):
    said = getattr(ending_of({field: "no\udcffcmd: command not found"}, 1.0), field)
    assert said == "no?cmd: command not found"


def test_a_long_last_word_is_cut_and_what_is_no_text_is_left_out():
    assert ending_of({"reason": "é" * 1000}, 1.0).reason == "é" * TEXT_CHARS_MAX
    assert ending_of({"reason": ["not", "found"]}, 1.0).reason is None
