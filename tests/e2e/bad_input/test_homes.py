"""A home that is not as it was left, one that a crash left, and one in an awkward place."""

import os
import signal
from pathlib import Path

import pytest
from e2e.bad_input.refusal import LOCAL, refused
from e2e.clocks import Surrounded


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_home_open_to_others_is_not_used(home, mode):
    home.home.chmod(mode)
    for words in (("up", *LOCAL), ("list",), ("id",), ("keys", "new"), ("init",)):
        refused(home, 5, (f"mode {mode:o}", f"chmod 700 {home.home}"), *words)
    home.home.chmod(0o700)
    assert home.call("keys", "new").code == 0


def test_a_home_that_is_a_file_is_named(fleet):
    node = fleet.node("file")
    node.home.write_text("precious")
    for words in (("up", *LOCAL), ("up", "--detach"), ("list",), ("init",), ("status",)):
        refused(node, 2, (str(node.home), "is a file", "--home"), *words)
    assert node.home.read_text() == "precious"


def test_a_home_of_another_user_is_not_used(home):
    if os.geteuid() != 0:
        pytest.skip("only root can give a home away")
    os.chown(home.home, 65534, 65534)
    try:
        for words in (("up", *LOCAL), ("list",), ("keys", "new")):
            refused(home, 5, ("belongs to another user", "--home"), *words)
    finally:
        os.chown(home.home, 0, 0)


def test_a_key_that_others_may_read_is_not_used(home):
    key = home.home / "node.key"
    key.chmod(0o644)
    for words in (("up", *LOCAL), ("up", "--detach", *LOCAL), ("list",)):
        refused(home, 5, ("open to other users", f"chmod 600 {key}"), *words)
    (home.home / "operator.key").chmod(0o640)
    refused(home, 5, ("operator.key", "chmod 600"), "keys", "new")


def test_a_key_behind_a_link_is_not_used(home):
    key, elsewhere = home.home / "node.key", home.home.parent / "elsewhere.key"
    key.rename(elsewhere)
    for target in (elsewhere, home.home / "nowhere"):
        key.symlink_to(target)
        refused(home, 5, ("node.key", "never links"), "up", *LOCAL)
        key.unlink()


@pytest.mark.parametrize(
    ("name", "code"), [("genesis.bin", 5), ("node.crt", 1), ("state.db", 5), ("joining.bin", 5)]
)
def test_a_pipe_in_the_place_of_a_file_is_named_and_not_waited_for(home, name: str, code: int):
    pipe = home.home / name
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe, 0o600)
    refused(home, code, (str(pipe), "no plain file"), "up", *LOCAL)
    for words in (("list",), ("id",), ("usage",), ("doctor",)):
        assert home.call(*words, "-o", "json").code in {0, 1, 5}, words


def test_a_key_that_is_missing_is_not_replaced_by_another(home):
    key = home.home / "node.key"
    key.unlink()
    for words in (("up", *LOCAL), ("list",), ("id",)):
        refused(home, 1, (str(key), "is missing", "backup"), *words)
    assert not key.exists()


def test_a_key_file_that_holds_no_key_is_named(home):
    (home.home / "node.key").write_text("hello\n")
    refused(home, 1, ("node.key", "holds no key", "backup"), "up", *LOCAL)


def test_a_home_that_is_not_there_is_named_and_not_made(home):
    lost = str(home.home.parent / "lost")
    for words in (("status",), ("list",), ("cost",)):
        refused(
            home,
            6,
            (f"home: {lost}, which does not exist", "SESSION_MESH_HOME"),
            *words,
            "--home",
            lost,
        )
    assert not Path(lost).exists()


# What a crash leaves, and a place that is awkward.


@pytest.mark.parametrize("kept", [0, 1, 40])
def test_a_truncated_genesis_is_named(home, kept):
    genesis = home.home / "genesis.bin"
    whole = genesis.read_bytes()
    genesis.write_bytes(whole[:kept])
    for words in (("up", *LOCAL), ("list",), ("id",), ("keys", "new")):
        refused(home, 1, (str(genesis), "backup"), *words)
    assert genesis.read_bytes() == whole[:kept]
    genesis.write_bytes(whole)
    assert home.call("list").code == 0


def test_a_socket_left_by_a_crash_is_in_nobodys_way(home):
    home.up(*LOCAL)
    home.end(signal.SIGKILL)
    assert Path(home.ready["socket"]).is_socket()
    refused(home, 6, ("no node is running", str(home.home), "session-mesh up"), "status")
    assert home.json("list")["source"] == "disk"
    home.up(*LOCAL)
    assert home.states() == {"anna": "alive"}


@pytest.mark.parametrize("name", ["100%25 mine", "a b", "50%", "caf\u00e9?#&", "'\"$x"])
def test_a_home_with_an_awkward_name_works(fleet, name):
    node = fleet.node(name)
    node.json("init", "--name", "odd")
    node.up(*LOCAL)
    assert node.states() == {"odd": "alive"}
    assert node.json("down")["kept"] == 0
    assert node.wait() == 0


def test_a_home_too_deep_for_a_socket_works(fleet):
    node = Surrounded(
        fleet.directory / ("deep" * 20) / ("down" * 20),
        "deep",
        extra={"XDG_RUNTIME_DIR": str(fleet.directory)},
    )
    fleet.nodes.append(node)
    node.json("init", "--name", "deep")
    node.up(*LOCAL)
    node.call("run", "--detach", "--agent-id", "diver", "--", "cat")
    assert node.json("steer", "diver", "hello")["outcome"] == "delivered"
    assert node.json("kill", "diver", "--yes")["outcome"] == "applied"
