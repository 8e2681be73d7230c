"""Whatever is wrong with what a node is given, it says so in a sentence, and loses nothing.

Each case asks for the exit code of the contract, for words that name the fault, and for nothing
else on stderr: no traceback, and nothing that a library has to say.
"""

import contextlib
import os
import pty
import signal
import socket
import subprocess
import threading
import time
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from e2e.clocks import Surrounded, clock_library_in, with_clock_off
from e2e.fleet import PROGRAM, Answer, Node, wait_until

LOCAL = ("--listen", "127.0.0.1:0", "--no-mdns")
NASTY = "a\x1b[31mred\nline two\x07\u202eoverride"
LONG = "x" * 5000
HOUR_S = 3600


@pytest.fixture(autouse=True)
def orderly(fleet, shared_fleet):
    """No node may end a test with a traceback or a background task that failed."""
    yield
    for node in (*fleet.nodes, *shared_fleet.nodes):
        for file in (node.home.parent / f"{node.name}.err", node.home / "node.log"):
            said = file.read_text() if file.is_file() else ""
            assert "Traceback" not in said, said
            assert "ssl_transport_security" not in said, said


@pytest.fixture
def home(fleet):
    """A mesh of one whose node does not run."""
    node = fleet.node("anna")
    node.json("init", "--mesh", "one", "--name", "anna")
    return node


@pytest.fixture(scope="module")
def anna(shared_fleet):
    """A running mesh of one that tests leave as it was."""
    anna = shared_fleet.node("anna")
    anna.json("init", "--mesh", "one", "--name", "anna")
    anna.up(*LOCAL)
    return anna


@pytest.fixture(scope="module")
def stopped(shared_fleet):
    """A mesh of one whose node does not run, for tests that leave it as it was."""
    node = shared_fleet.node("stopped")
    node.json("init", "--name", "stopped")
    return node


def refused(node: Node, code: int, said: tuple[str, ...], *words: str, stdin: str = "") -> str:
    """Ask for something impossible; returns what stderr says, which is one error and no more."""
    answer = node.call(*words, "-o", "json", stdin=stdin)
    told = [line for line in answer.err.splitlines() if not line.startswith("warning: ")]
    assert answer.code == code, (words, answer)
    assert len(told) == 1, (words, answer.err)
    assert answer.out == "", answer.out
    error = answer.error
    for one in said:
        assert one in error["message"] + error["hint"], (one, error)
    return error["message"]


# A home that is not as it was left.


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


def test_a_key_that_is_missing_is_not_replaced_by_another(home):
    key = home.home / "node.key"
    key.unlink()
    for words in (("up", *LOCAL), ("list",), ("id",)):
        refused(home, 1, (str(key), "is missing", "backup"), *words)
    assert not key.exists()


def test_a_key_file_that_holds_no_key_is_named(home):
    (home.home / "node.key").write_text("hello\n")
    refused(home, 1, ("node.key", "holds no key", "backup"), "up", *LOCAL)


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


# A database that is not what it was.


def in_the_middle(raw: bytes) -> bytes:
    third = len(raw) // 3
    return raw[:third] + os.urandom(third) + raw[2 * third :]


DAMAGES = {
    "random bytes in the middle": in_the_middle,
    "no database": lambda raw: os.urandom(len(raw)),
    "truncated": lambda raw: raw[: len(raw) // 2 + 100],
    "one row changed": lambda raw: raw.replace(b"survivor", b"survives"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_database_is_left_alone_and_peers_return_what_it_held(fleet, damage):
    anna, berta = fleet.mesh("anna", "berta")
    berta.call("run", "--detach", "--agent-id", "survivor", "--", "cat")
    wait_until(lambda: "survivor" in anna.sessions())
    before = berta.json("status")
    berta.end()
    database = berta.home / "state.db"
    damaged = damage(database.read_bytes())
    assert damaged != database.read_bytes()
    database.write_bytes(damaged)
    for words in (("up", *LOCAL), ("list",)):
        refused(berta, 1, (str(database), "damaged", f"mv {database} "), *words)
        assert database.read_bytes() == damaged
    database.rename(berta.home / "state.db.damaged")
    berta.up(*LOCAL)
    wait_until(lambda: berta.sessions().get("survivor", {}).get("alive"))
    wait_until(lambda: set(berta.states().values()) == {"alive"})
    after = berta.json("status")
    for name in ("node_id", "name", "mesh_id", "role"):
        assert after[name] == before[name]
    wait_until(lambda: anna.states() == {"anna": "alive", "berta": "alive"})
    wait_until(lambda: anna.call("steer", "survivor", "still yours?").code == 0)
    assert anna.json("kill", "survivor", "--yes")["outcome"] == "applied"


def test_a_damaged_database_is_not_touched_by_what_its_journal_still_holds(home):
    home.up(*LOCAL)
    home.call("run", "--agent-id", "past", "--", "true")
    home.end(signal.SIGKILL)
    database = home.home / "state.db"
    assert (home.home / "state.db-wal").stat().st_size > 0
    damaged = in_the_middle(database.read_bytes())
    database.write_bytes(damaged)
    refused(home, 1, ("damaged", "mv "), "up", *LOCAL)
    refused(home, 1, ("damaged", "mv "), "list")
    assert database.read_bytes() == damaged


def test_a_mesh_of_one_whose_database_is_lost_still_has_its_admin(home):
    (home.home / "state.db").unlink()
    home.up(*LOCAL)
    status = home.json("status")
    assert (status["name"], status["role"]) == ("anna", "admin")
    assert home.call("invite").code == 0


# A configuration that does not say what it means.

CONFIGS = {
    "node: a\nlistn: 127.0.0.1:0\n": (2, 'unknown key "listn"', 'did you mean "listen"?'),
    "node: a\nseeds: 127.0.0.1:7707\n": (2, '"seeds" should be a list'),
    "labels: [a]\n": (1, '"labels" should be a map'),
    "labels:\n  a: [b]\n": (2, '"labels.a" should be a text'),
    "mdns: perhaps\n": (1, '"mdns" should be true or false'),
    "on_exit: kep\n": (1, '"on_exit" cannot be "kep"', 'did you mean "keep"?'),
    "node: a\nnode: b\n": (2, 'key "node" stands twice'),
    "node: &a b\nlabels: *a\n": (2, "aliases are not allowed", "write it out"),
    "labels:\n\ta: b\n": (2, "'\\t'"),
    "node: a\nlabels: {a: b\n": (3, "expected"),
    "ingest:\n  - source: higres\n    path: x\n": (2, '"source"', 'did you mean "higress"?'),
    "ingest:\n  - source: higress\n    pth: x\n": (3, '"pth"', 'did you mean "path"?'),
    "node: a\nlisten: nonsense\n": (2, '"listen" should be host:port', "nonsense"),
    "seeds: ['127.0.0.1:99999']\n": (1, '"seeds" should be host:port', "99999"),
    "ingest:\n  - source: higress\n    path: x\n    refresh_interval: 5 parsecs\n": (
        4,
        '"refresh_interval"',
        "5 parsecs",
        "15m",
    ),
    "labels: {a: b}\nnode: two words\n": (2, '"node"', "two words", "letters"),
    "just words\n": (1, "should be a map"),
}


@pytest.mark.parametrize(("text", "said"), CONFIGS.items(), ids=range(len(CONFIGS)))
def test_a_configuration_is_refused_by_file_line_and_key(stopped, text, said):
    line, *words = said
    (stopped.home / "config.yaml").write_text(text)
    message = refused(stopped, 2, tuple(words), "up", *LOCAL)
    assert message.startswith(f"config.yaml:{line}: ")


def test_a_configuration_that_is_no_text_is_named(stopped):
    (stopped.home / "config.yaml").write_bytes(b"node: \xff\xfe\n")
    for words in (("up", *LOCAL), ("up", "--detach", *LOCAL)):
        refused(stopped, 2, ("config.yaml", "UTF-8"), *words)


def test_a_configuration_that_does_not_exist_is_not_found(fleet):
    node = fleet.node("anna")
    for words in (("up", *LOCAL), ("up", "--detach", *LOCAL)):
        refused(node, 3, ("nowhere.yaml", "missing"), *words, "--config", "nowhere.yaml")
    assert not (node.home / "genesis.bin").exists(), "a mistake makes no mesh"


# An address that cannot be listened on.


@pytest.mark.parametrize("flag", ["--listen", "--advertise", "--seed"])
@pytest.mark.parametrize(
    "address", ["nonsense", "127.0.0.1:99999", ":7707", "127.0.0.1:", "127.0.0.1:x"]
)
def test_what_is_no_address_is_refused_before_a_mesh_is_made(fleet, flag, address):
    node = fleet.node("anna")
    refused(node, 2, (address, "HOST:PORT"), "up", "--no-mdns", flag, address)
    assert not (node.home / "genesis.bin").exists()


def test_an_ipv6_address_without_brackets_is_told_about_them(fleet):
    words = ("up", "--no-mdns", "--listen", "::1:7707")
    refused(fleet.node("anna"), 2, ("::1:7707", "in brackets"), *words)


def test_a_port_that_something_else_uses_is_named(home):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        for words in (("up", "--no-mdns"), ("up", "--detach", "--no-mdns")):
            refused(home, 7, (address, "in use", "--listen"), *words, "--listen", address)
    home.up(*LOCAL)


@pytest.mark.parametrize("address", ["203.0.113.1:7707", "no-such-host.invalid:7707"])
def test_an_address_of_another_machine_is_named(home, address):
    refused(home, 7, (address, "not an address of this machine"), "up", "--listen", address)


# An invite that does not admit.


def test_an_expired_invite_admits_nobody(anna, fleet):
    made = anna.json("invite", "--ttl", "1s")
    ends_s = datetime.fromisoformat(made["expires_at"]).timestamp()
    wait_until(lambda: time.time() > ends_s + 1, "the end of it")
    guest = fleet.node("guest")
    refused(guest, 5, ("expired", "ask for a new one"), "join", "-", stdin=made["invite"])
    guest.up(*LOCAL)  # what the attempt left behind is in nobody's way
    assert guest.json("status")["role"] == "admin"


def test_an_invite_for_one_is_not_used_by_two(anna, fleet):
    invite = anna.json("invite", "--node-only")["invite"]
    first, second = fleet.node("first"), fleet.node("second")
    assert first.call("join", "-", stdin=invite).code == 0
    refused(second, 5, ("used up", "ask for a new one"), "join", "-", stdin=invite)
    refused(first, 7, ("already a member", "session-mesh up"), "join", "-", stdin=invite)


def test_a_home_with_members_leaves_before_it_joins_another_mesh(fleet, anna):
    berta, carl = fleet.mesh("berta", "carl")
    invite = anna.json("invite")["invite"]
    refused(carl, 7, ("already runs", "session-mesh down"), "join", "-", stdin=invite)
    for node in (berta, carl):
        node.end()
        refused(node, 7, ("other members", "session-mesh leave"), "join", "-", stdin=invite)
        node.up()
        wait_until(lambda: set(berta.states().values()) == {"alive"})
    assert len(carl.states()) == len((berta, carl))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda invite: invite[:-1],
        lambda invite: invite[:20],
        lambda invite: invite[:60] + ("a" if invite[60] != "a" else "b") + invite[61:],
        lambda invite: invite[:-1] + ("a" if invite[-1] != "a" else "b"),
        lambda invite: invite[1:],
        lambda invite: invite + "A",
        lambda _: "smj1_",
        lambda _: "smj1_" + "A" * 100_000,
        lambda _: "hello",
        lambda _: "smj1_\x1b[31m\u00e9",
    ],
)
def test_a_damaged_invite_is_known_as_such(anna, fleet, spoil):
    text = spoil(anna.json("invite")["invite"])
    guest = fleet.node("guest")
    refused(guest, 2, ("not an invite", "copy the whole line"), "join", "-", stdin=text)
    assert not guest.home.exists()


@pytest.mark.parametrize("text", ["", "\n", "   \n\n"])
def test_no_invite_is_said_to_be_missing(fleet, text):
    guest = fleet.node("guest")
    refused(guest, 2, ("no invite", "SESSION_MESH_INVITE"), "join", "-", stdin=text)


def test_an_invite_whose_host_is_down_works_once_it_is_back(home, fleet):
    home.up(*LOCAL)
    invite = home.json("invite")["invite"]
    home.end()
    guest = fleet.node("guest")
    refused(guest, 6, ("does not answer", "--seed HOST:PORT"), "join", "-", stdin=invite)
    refused(guest, 2, ("nonsense",), "join", "-", "--seed", "nonsense", stdin=invite)
    home.up(*LOCAL)
    moved_to = home.ready["enrolment"]
    assert guest.call("join", "-", "--seed", moved_to, stdin=invite).code == 0


def test_an_invite_for_one_device_admits_no_other(anna, fleet):
    meant, other = fleet.node("meant"), fleet.node("other")
    key = meant.json("id")["public_key"]
    invite = anna.json("invite", "--for-key", key)["invite"]
    refused(other, 5, ("another device", "--for-key"), "join", "-", stdin=invite)
    assert meant.call("join", "-", stdin=invite).code == 0
    refused(anna, 2, ("public key", "session-mesh id"), "invite", "--for-key", "nonsense")


@pytest.mark.parametrize("flags", [("--ttl", "0"), ("--ttl", "90d"), ("--ttl", "for ever")])
def test_an_invite_lives_no_longer_than_it_may(anna, flags):
    refused(anna, 2, (), "invite", *flags)


# A clock that is an hour off.


@pytest.fixture(scope="module")
def clock_library(tmp_path_factory):
    return clock_library_in(tmp_path_factory.mktemp("clock"))


def test_clocks_an_hour_off_cut_nobody_off_and_are_named_where_they_matter(fleet, clock_library):
    anna = fleet.node("anna")
    anna.json("init", "--name", "anna")
    anna.up(*LOCAL)
    early = with_clock_off(fleet, "early", clock_library, HOUR_S)
    late = with_clock_off(fleet, "late", clock_library, -HOUR_S)
    for node, side in ((early, "ahead of"), (late, "behind")):
        joined = fleet.join(anna, node, "--ttl", "2h")
        assert side in joined["warnings"][0]
        assert "clock" in joined["warnings"][0]
        assert abs(joined["clock_off_s"]) == pytest.approx(HOUR_S, abs=60)
        node.up(*LOCAL)
    nodes = (anna, early, late)
    everybody = {"anna": "alive", "early": "alive", "late": "alive"}
    for node in nodes:
        node.call("run", "--detach", "--agent-id", f"at-{node.name}", "--", "cat")
    for node in nodes:
        wait_until(lambda node=node: node.states() == everybody, node.name)
        wait_until(lambda node=node: len(node.sessions()) == len(nodes), node.name)
    for sender in nodes:
        for owner in nodes:
            target = f"at-{owner.name}"
            if sender is owner:
                assert sender.call("steer", target, "hello").code == 0
                continue
            ahead = nodes.index(sender) == 1 or nodes.index(owner) == 2
            words = ("future", "clock") if ahead else ("expired", "clock")
            refused(sender, 8 if ahead else 6, words, "steer", target, "hello")
    for sender, owner in ((early, anna), (late, early), (anna, late)):
        killed = sender.json("kill", f"at-{owner.name}", "--yes")
        assert (killed["outcome"], killed["receipt_verified"]) == ("applied", True)


def test_an_invite_that_only_a_wrong_clock_takes_for_expired_blames_the_clock(
    anna, fleet, clock_library
):
    invite = anna.json("invite", "--ttl", "15m")["invite"]
    early = with_clock_off(fleet, "early", clock_library, HOUR_S)
    refused(early, 5, ("expired", "clock is off"), "join", "-", stdin=invite)


# Peers that are none.


class NoNode(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def web_server():
    with ThreadingHTTPServer(("127.0.0.1", 0), NoNode) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def troubles(node: Node) -> dict[str, str]:
    return {one["peer"]: one["reason"] for one in node.json("status")["troubles"]}


def test_seeds_that_are_no_members_are_told_and_harm_nobody(anna, fleet):
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        socket.create_server(("127.0.0.1", 0)) as closed,
        web_server() as web,
    ):
        nobody = f"127.0.0.1:{closed.getsockname()[1]}"
        closed.close()
        expected = {
            anna.ready["listen"]: "belongs to another mesh",
            anna.ready["enrolment"]: "belongs to another mesh",
            f"127.0.0.1:{silent.getsockname()[1]}": "does not answer",
            web: "is no session-mesh node",
            nobody: "connection refused",
            "no-such-host.invalid:7707": "cannot be reached",
        }
        flags = [word for seed in expected for word in ("--seed", seed)]
        berta, carl = fleet.mesh("berta", "carl", flags=("--no-mdns", *flags))

        def all_told():
            told = troubles(berta)
            return all(words in told.get(seed, "") for seed, words in expected.items()) or None

        wait_until(all_told, "a word about each seed")
        assert "belongs to another mesh" in berta.call("status").out
        carl.call("run", "--detach", "--agent-id", "unmoved", "--", "cat")
        wait_until(lambda: "unmoved" in berta.sessions())
        assert berta.json("kill", "unmoved", "--yes")["outcome"] == "applied"
        assert berta.states() == {"berta": "alive", "carl": "alive"}
    assert anna.states() == {"anna": "alive"}
    assert anna.sessions("--filter", "alive") == {}


def test_another_mesh_on_the_same_network_is_told_and_left_alone(fleet):
    anna, zoe = fleet.node("anna"), fleet.node("zoe")
    for node in (anna, zoe):
        node.json("init", "--mesh", f"of-{node.name}", "--name", node.name)
        node.up("--listen", "127.0.0.1:0", "--mdns")
    if "unavailable" in anna.json("status")["mdns"]:
        pytest.skip("multicast is not to be had on this machine")
    for node, other in ((anna, zoe), (zoe, anna)):
        wait_until(
            lambda node=node, other=other: (
                "belongs to another mesh" in troubles(node).get(other.ready["listen"], "")
            ),
            node.name,
        )
        assert node.states() == {node.name: "alive"}


# What a crash leaves, and a place that is awkward.


def test_a_socket_left_by_a_crash_is_in_nobodys_way(home):
    home.up(*LOCAL)
    home.end(signal.SIGKILL)
    assert Path(home.ready["socket"]).is_socket()
    refused(home, 6, ("no node is running", "session-mesh up"), "status")
    assert home.json("list")["source"] == "disk"
    home.up(*LOCAL)
    assert home.states() == {"anna": "alive"}


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


# Words that are too long, or not words.

TOO_LONG = [
    ("list", "--node", LONG),
    ("list", "--agent-id", LONG),
    ("list", "--spec", LONG),
    ("list", "--owner", LONG),
    ("list", "--label", f"{LONG}=x"),
    ("show", LONG),
    ("logs", LONG),
    ("steer", LONG, "hello"),
    ("steer", "patient", "y" * 40_000),
    ("steer", "patient", "\u20ac" * 20_000),
    ("steer", "patient", "--direction", LONG),
    ("kill", LONG, "--yes"),
    ("kill", "patient", "--yes", "--grace", "1h"),
    ("register", "--spec", LONG, "--agent-id", "a"),
    ("register", "--spec", "s", "--agent-id", LONG),
    ("register", "--spec", "s", "--agent-id", "a", "--attr", f"k={LONG}"),
    ("register", "--spec", "s", "--agent-id", "a", "--attr", f"{LONG}=v"),
    ("run", "--agent-id", LONG, "--detach", "--", "cat"),
    ("run", "--title", LONG, "--detach", "--", "cat"),
    ("run", "--label", f"k={LONG}", "--detach", "--", "cat"),
    ("run", "--label", f"{LONG}=v", "--detach", "--", "cat"),
]


@pytest.fixture(scope="module")
def patient(anna):
    anna.call("run", "--detach", "--agent-id", "patient", "--", "cat")
    yield anna
    anna.call("kill", "patient", "--force")


@pytest.mark.parametrize("words", TOO_LONG, ids=lambda words: " ".join(words)[:24])
def test_what_is_too_long_is_refused_and_not_repeated_at_length(patient, words):
    answer = patient.call(*words[:1], "-o", "json", *words[1:])
    assert answer.code == 2, answer
    assert len(answer.err.splitlines()) == 1
    assert len(answer.err) < 1000
    alive = patient.sessions("--filter", "alive")
    assert set(alive) <= {"patient", NASTY}
    assert alive["patient"]["message_count"] == 0


def test_a_message_from_stdin_that_is_too_long_or_no_text_is_refused(patient):
    refused(patient, 2, ("at most",), "steer", "patient", "-", stdin="y" * 100_000)
    for words in ((b"steer", b"patient", b"-"), (b"join", b"-")):
        done = subprocess.run(
            [PROGRAM.encode(), *words],
            input=b"\xff\xfe\x00",
            env=patient.environment | {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:strict"},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 2, done
        assert b"UTF-8" in done.stderr


def test_words_that_are_not_utf_8_are_refused(patient):
    for words in ((b"steer", b"patient", b"\xff"), (b"run", b"--title", b"\xff", b"--", b"true")):
        argv = [PROGRAM.encode(), *words]
        done = subprocess.run(argv, env=patient.environment, capture_output=True, check=False)
        assert done.returncode == 2, done
        assert b"not UTF-8" in done.stderr
    argv = [PROGRAM.encode(), b"run", b"--", b"printf", b"%s", b"\xff"]
    done = subprocess.run(argv, env=patient.environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"\xff"), "names of files are nobody's to judge"


def on_terminal(node: Node, *words: str) -> Answer:
    """Call the command line with a terminal for all its streams; what is shown comes as `out`."""
    ours, its = pty.openpty()
    call = subprocess.Popen(
        [PROGRAM, *words], env=node.environment, stdin=its, stdout=its, stderr=its
    )
    os.close(its)
    shown = b""
    with contextlib.suppress(OSError), os.fdopen(ours, "rb", 0) as terminal:  # it ends with EIO
        while piece := terminal.read(4096):
            shown += piece
    return Answer(call.wait(60), shown.decode(), "")


@pytest.fixture(scope="module")
def nasty(anna):
    """A session whose every word tries to do something to the terminal."""
    words = ("--agent-id", NASTY, "--title", NASTY, "--owner", NASTY, "--spec", NASTY)
    label = ("--label", f"k{NASTY}={NASTY}")
    anna.call("run", "--detach", *words, *label, "--", "cat")
    session = anna.sessions("--filter", "alive")[NASTY]["session_id"]
    anna.json("register", "--spec", NASTY, "--agent-id", NASTY, "--attr", f"k={NASTY}")
    yield session
    anna.call("kill", session, "--force")


NASTY_CALLS = [
    ("list",),
    ("list", "-o", "csv"),
    ("list", "-o", "yaml"),
    ("list", "-o", "json"),
    ("list", "--node", NASTY),
    ("list", "--filter", NASTY),
    ("list", "--label", NASTY),
    ("show", NASTY),
    ("show", f"other{NASTY}"),
    ("find", NASTY),
    ("steer", NASTY, "hello"),
    ("steer", f"other{NASTY}", "hello"),
    ("steer", NASTY, "hello", "--command-id", NASTY),
    ("steer", NASTY, "hello", "--timeout", NASTY),
    ("logs", NASTY),
    ("kill", f"other{NASTY}", "--yes"),
    ("kill", NASTY, "--dry-run"),
    ("register", "--spec", NASTY, "--agent-id", NASTY),
    ("run", "--detach", "--agent-id", NASTY, "--", "true"),
    ("keys", "new", "--action", NASTY),
    ("join", NASTY),
    ("nodes", "--label", NASTY),
    (NASTY,),
    ("list", f"--{NASTY}"),
]


@pytest.mark.parametrize("words", NASTY_CALLS, ids=range(len(NASTY_CALLS)))
def test_no_word_of_others_reaches_a_terminal_raw(anna, nasty, words):
    assert nasty
    shown = on_terminal(anna, *words).out
    printed = shown.replace("\r\n", "\n")
    assert printed
    assert "Traceback" not in printed
    for raw in ("\x1b", "\x07", "\u202e"):
        assert raw not in printed, printed
    allowed = ("yaml", "json")  # their newlines are their own; those of the title are spelled out
    if not set(allowed) & set(words):
        assert "\nline two" not in printed


def test_the_question_before_a_kill_is_escaped_too(anna, nasty):
    ours, its = pty.openpty()
    asking = subprocess.Popen(
        [PROGRAM, "kill", nasty], env=anna.environment, stdin=its, stdout=its, stderr=its
    )
    os.close(its)
    shown = b""
    with contextlib.suppress(OSError), os.fdopen(ours, "r+b", 0) as terminal:
        while b"[y/N]" not in shown:
            shown += terminal.read(4096)
        terminal.write(b"n\n")
        while piece := terminal.read(4096):
            shown += piece
    assert asking.wait(60) == 1
    assert b"\x1b" not in shown
    assert b"nothing was killed" in shown
