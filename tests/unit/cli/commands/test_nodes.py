"""What is told after a node was let admit others."""

import shlex

from session_mesh.commands.nodes import _who_invites


def test_a_node_that_is_called_what_it_likes_is_one_word_of_the_command_that_is_told():
    name = "$(reboot); x"
    first, *_ = _who_invites({"name": name, "operator": {"role": "", "public_key": "0a"}})
    _, command = first.split(": ", 1)
    words = ["session-mesh", "operator", "add", f"{name}-admin", "0a", "--role", "admin"]
    assert shlex.split(command) == words
