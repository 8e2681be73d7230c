"""A fork of a process that has loaded the command line is what a started program is."""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from e2e.fleet import CALL_S, PROGRAM
from e2e.preloaded import called

SAID = {
    "an answer": ["nodes"],
    "an answer in JSON": ["list", "-o", "json"],
    "a version": ["--version"],
    "help": ["usage", "--help"],
    "nothing": [],
    "a word that is none": ["lits"],
    "an option that is none": ["list", "--no-such"],
    "what is not found": ["show", "nobody", "-o", "json"],
    "what is read on stdin": ["join", "-"],
    "a stranger's bytes": ["kill", "\x1b[31m\udcff"],
    "what becomes another program": ["up", "--listen", "nonsense"],
    "what is shown at length": ["config", "show"],
}


@pytest.mark.parametrize("words", SAID.values(), ids=SAID)
@pytest.mark.parametrize("running", [True, False])
def test_a_fork_says_what_the_program_says(trio, fleet, words, running):
    node = trio[0] if running else fleet.node("nobody")
    begun = node.start(*words, stdin="no invite\n")
    forked = called([PROGRAM, *words], node.environment, "no invite\n", CALL_S)
    assert forked == (begun.code, begun.out, begun.err)


def test_another_environment_asks_for_the_program_itself(fleet):
    node = fleet.node("nobody")
    assert called([PROGRAM, "id"], node.environment | {"TZ": "Asia/Tokyo"}, "", CALL_S) is None


def test_what_one_call_finds_around_it_is_nothing_to_the_next(fleet):
    node, words = fleet.node("nobody"), ("init", "-o", "json", "--root-out")
    passphrase = {"SESSION_MESH_ROOT_PASSPHRASE": "one two three four"}
    refused = node.call(*words, str(fleet.directory / "root.pem"))
    made = node.call(*words, str(fleet.directory / "root.pem"), env=passphrase)
    again = fleet.node("other").call(*words, str(fleet.directory / "other.pem"))
    assert (refused.code, made.code, again.code) == (2, 0, 2)


def test_who_loses_patience_ends_the_call_and_no_other(trio):
    node = trio[0]
    words = [PROGRAM, "watch", "-o", "json"]
    with pytest.raises(subprocess.TimeoutExpired):
        called(words, node.environment, "", 0.5)
    assert node.call("nodes").code == 0


def test_many_calls_at_once_get_each_their_own_answer(fleet):
    nodes = [fleet.node(name) for name in "abcdefgh"]
    with ThreadPoolExecutor(len(nodes)) as pool:
        made = list(pool.map(lambda node: node.json("init", "--name", node.name), nodes))
    assert [one["name"] for one in made] == [node.name for node in nodes]
