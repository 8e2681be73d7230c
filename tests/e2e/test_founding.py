"""Two that would make one home a member at once, and a home that a crash left half made."""

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from e2e.bad_input.refusal import LOCAL, refused
from e2e.doctoring import asked
from e2e.fleet import PROGRAM, Fleet, wait_until

from meshnode.client.home import Home
from meshnode.client.keys.keyfiles import write_whole
from meshnode.node.homes import founding, joining
from meshnode.node.lock import HomeLock

KEPT = {".bin", ".crt", ".key", ".pub"}


@pytest.fixture
def started():
    """Begin a command of a node in the background; what still runs at the end is killed."""
    processes: list[subprocess.Popen[str]] = []

    def start(node, *words: str, stdin: str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [PROGRAM, *words],
            env=node.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        process.stdin.write(stdin)
        process.stdin.close()
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_of_two_that_come_up_on_a_new_home_one_does_and_the_other_says_so(fleet: Fleet, started):
    anna = fleet.node("anna")
    both = [started(anna, "up", "--detach", *LOCAL, "-o", "json") for _ in range(2)]
    said = {process.wait(60): process.stderr.read() for process in both}
    try:
        assert sorted(said) == [0, 7], said
        assert "already runs" in said[7], "not that the winner's root key is to be moved away"
        assert anna.states() == {anna.json("status")["name"]: "alive"}
    finally:
        anna.call("down")


def test_nothing_is_founded_on_a_home_that_another_process_makes_a_member(fleet, started):
    (host,) = fleet.mesh("anna")
    guest = fleet.node("guest")
    invite = host.json("invite")["invite"]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        seed = f"127.0.0.1:{silent.getsockname()[1]}"
        joining = started(guest, "join", "-", "--seed", seed, stdin=invite)
        answering, _ = silent.accept()
        with answering:  # which says nothing
            joining.send_signal(signal.SIGSTOP)  # it would turn to the next address some time
            words = (f"session-mesh join is at work on {guest.home}", f"(pid {joining.pid})")
            for other in (("up", *LOCAL), ("up", "--detach", *LOCAL), ("init",)):
                refused(guest, 7, words, *other)
            assert not (guest.home / "genesis.bin").exists()
            assert not (guest.home / "root.key").exists()
            joining.kill()
            joining.wait(60)
    assert guest.json("join", "-", stdin=invite)["mesh_name"] == "test"


def test_init_waits_for_nobody_and_says_what_is_at_work(fleet):
    anna = fleet.node("anna")
    anna.home.mkdir(mode=0o700)
    with HomeLock(Home(anna.home)):
        refused(anna, 7, ("already runs", f"(pid {os.getpid()})"), "init")
    assert not (anna.home / "genesis.bin").exists()


def test_a_founding_that_a_crash_cut_short_is_begun_anew(fleet):
    whole, anna = fleet.node("whole"), fleet.node("anna")
    whole.json("init", "--mesh", "never")
    whole.home.rename(anna.home)
    (anna.home / "genesis.bin").unlink()  # it comes last
    left = (anna.home / "root.key").read_text()
    made = anna.json("init", "--mesh", "one", "--name", "anna")
    assert (anna.home / "root.key").read_text() != left
    aside = Path(made["earlier_root_key"])
    assert aside.read_text() == left, "it may be all that is left of a mesh"
    anna.up(*LOCAL)
    status = anna.json("status")
    assert (status["mesh_name"], status["role"], status["alarms"]) == ("one", "admin", [])


def test_up_founds_a_mesh_where_a_crash_left_a_root_key(fleet):
    anna = fleet.node("anna")
    anna.json("init")
    (anna.home / "genesis.bin").unlink()
    anna.up(*LOCAL)
    wait_until(lambda: list(anna.states().values()) == ["alive"])


def kept(home: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in home.iterdir() if one.suffix in KEPT}


@pytest.mark.parametrize("left", ["all", "state.db", "roots.bin and authority.bin"])
def test_a_home_that_was_of_a_mesh_founds_none_and_may_join(fleet, left):
    anna, berta = fleet.mesh("anna", "berta")
    berta.end()
    genesis = berta.home / "genesis.bin"
    had = genesis.read_bytes()
    genesis.unlink()
    gone = {"all": [], "state.db": ["roots.bin", "authority.bin"]}.get(left, ["state.db"])
    for name in gone:
        (berta.home / name).unlink(missing_ok=True)
    before = kept(berta.home)
    words = ("this home was of a mesh", str(genesis), "from a backup", "session-mesh join -")
    for verb in (("up", *LOCAL), ("up", "--detach", *LOCAL), ("init",)):
        refused(berta, 1, words, *verb)
    assert berta.call("run", "--detach", "--", "true").code == 1
    assert kept(berta.home) == before
    if left == "all":
        genesis.write_bytes(had)
    else:
        fleet.join(anna, berta)
    berta.up(*LOCAL)
    wait_until(lambda: anna.states() == {"anna": "alive", "berta": "alive"}, "berta in anna's")


def test_who_lost_the_genesis_is_not_told_to_found_a_mesh(fleet):
    (anna,) = fleet.mesh("anna")
    anna.end()
    genesis = anna.home / "genesis.bin"
    genesis.write_bytes(b"")
    refused(anna, 1, ("is damaged", "stop what starts a node", "join again"), "up", *LOCAL)
    genesis.unlink()
    refused(anna, 6, ("genesis.bin is missing", "session-mesh join -"), "status")
    check = asked(anna, 1)["home"]
    assert "was of a mesh" in check["detail"]
    assert "session-mesh init" not in check["fix"]


@pytest.mark.parametrize("fresh", [True, False], ids=["new home", "stopped node"])
def test_of_two_runs_without_a_node_both_start_their_agent(fleet, started, fresh):
    anna = fleet.node("anna")
    if not fresh:
        anna.json("init", "--name", "anna")
    anna.home.mkdir(mode=0o700, exist_ok=True)
    (anna.home / "config.yaml").write_text("listen: 127.0.0.1:0\nmdns: false\n")
    both = [started(anna, "run", "--agent-id", name, "--", "echo", name) for name in "ab"]
    said = [(one.wait(60), one.stdout.read(), one.stderr.read()) for one in both]
    try:
        assert [(code, out) for code, out, _ in said] == [(0, "a\n"), (0, "b\n")], said
        assert set(anna.sessions("--filter", "all")) == {"a", "b"}
    finally:
        anna.call("down", "--close-sessions")


def test_a_run_whose_node_cannot_come_up_says_why(fleet):
    (bert,) = fleet.mesh("bert")
    anna = fleet.node("anna")
    anna.home.mkdir(mode=0o700)
    (anna.home / "config.yaml").write_text(f"listen: {bert.ready['listen']}\nmdns: false\n")
    for words, code in ((("run",), 125), (("run", "--detach"), 7)):
        answer = anna.call(*words, "--", "true")
        assert (answer.code, bert.ready["listen"] in answer.err) == (code, True), answer


def test_a_run_in_front_that_its_node_refuses_ends_as_no_agent_of_its_own_would(fleet):
    (anna,) = fleet.mesh("anna")
    anna.json("budget", "set", "none", "--limit", "1tok", "--per", "day", "--owner", "olga")
    used = ("report", "--model", "gpt-4o", "--input", "9", "--output", "0", "--id", "first")
    anna.call("run", "--detach", "--owner", "olga", "--", PROGRAM, *used)

    def refused_now():
        return anna.call("run", "--owner", "olga", "-o", "json", "--", "true")

    answer = wait_until(lambda: (one := refused_now()).code and one)
    assert (answer.code, answer.error["code"]) == (125, "refused")
    assert anna.call("run", "--detach", "--owner", "olga", "--", "true").code == 8


def test_a_join_that_was_killed_between_two_files_is_finished_by_up(fleet, monkeypatch):
    anna, berta = fleet.node("anna"), fleet.node("berta")
    for node in (anna, berta):
        node.json("init", "--mesh", f"of-{node.name}", "--name", node.name)
    anna.up(*LOCAL)
    invite = anna.json("invite", "--node-only")["invite"]
    home = Home(berta.home)

    def killed(path: Path, content: bytes) -> None:
        if path == home.genesis:
            raise KeyboardInterrupt
        write_whole(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(founding, "write_whole", killed)
        with pytest.raises(KeyboardInterrupt):
            joining.join(home, invite)
    assert home.root_key.exists()
    berta.up(*LOCAL)
    wait_until(lambda: berta.states() == {"anna": "alive", "berta": "alive"}, "berta in anna's")
    assert not home.root_key.exists()
    assert list(home.path.glob("root.key.*"))
