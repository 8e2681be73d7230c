"""What identifiers look like to people."""

import shlex

import pytest

from meshnode.core.ids import pasted

NODE = "csj7fuievhgfftplotzv4xik3u47kvoqyib3mvpgvyprt5ygnaba"


@pytest.mark.parametrize("name", ["berta", "$(reboot)", "a; reboot #", "it's", "\n", "`id`", "*"])
def test_a_name_in_a_command_is_one_word_and_nothing_else(name):
    assert shlex.split(f"session-mesh doctor {pasted(name)}") == ["session-mesh", "doctor", name]


@pytest.mark.parametrize("name", ["--yes", "$(reboot)", ""])
def test_a_node_in_a_command_is_the_start_of_its_id_whatever_it_is_called(name):
    assert pasted(name, NODE) == NODE[:10]
