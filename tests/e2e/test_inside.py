"""An agent inside a session, by command line and by SDK, while another node steers it."""

import json
import sys
from pathlib import Path

import pytest
from e2e.fleet import PROGRAM, Fleet, Node, wait_until

# What it learns goes into a file, line by line; its ticket too, for the test to look for elsewhere.
AGENT = """
import json, os, subprocess, sys
from meshnode.client.inside import Inside, Usage

notes = open(sys.argv[1], "w", buffering=1)
def note(name, value):
    print(json.dumps([name, value]), file=notes)
def call(*words, **env):
    env = os.environ | env
    done = subprocess.run([sys.argv[2], *words], capture_output=True, text=True, env=env)
    return [done.returncode, done.stdout, done.stderr]

home = sys.argv[3]
report = ("report", "--model", "m1", "--input", "100", "--output", "20", "--id", "r1")
note("environment", dict(os.environ))
note("self", call("self", "-o", "json"))
note("register", call("register", "--spec", "review", "--attr", "load=0.2"))
note("register another", call("register", "--spec", "review", "--agent-id", "boss"))
note("reported", call(*report))
note("reported again", call(*report, "-o", "json"))
note("reported otherwise", call(*report[:-1], "r1", "--reasoning", "3"))
note("list", call("list", "-o", "json"))
note("find", call("find", "review", "-q"))
note("kill", call("kill", "worker", "--force"))
kill = ("kill", "worker", "--force", "--home", home)
note("kill with the home", call(*kill, SESSION_MESH_HOME=home))
note("key", call("keys", "new", "--home", home))
note("outbox", os.path.exists(os.path.join(home, "outbox")))
with Inside() as session:
    session.report("r2", "m1", Usage(input=5))
    note("following", None)
    for steer in session.steers(follow=True):
        note("steer", steer)
        if steer["message"] == "go home":
            break
note("left", call("steer-inbox"))
"""


@pytest.fixture
def fleet():
    fleet = Fleet()
    yield fleet
    fleet.close()


class Notes:
    """What the agent has noted so far."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self, name: str) -> list:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [value for key, value in map(json.loads, lines) if key == name]

    def first(self, name: str):
        return wait_until(lambda: self.all(name), name)[0]


def argv_of_all_processes() -> bytes:
    found = b""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += path.read_bytes()
        except OSError:
            continue
    return found


def start(node: Node, notes: Notes) -> str:
    """Run the agent; returns what was printed about it."""
    script = notes.path.with_suffix(".py")
    script.write_text(AGENT)
    words = ("run", "--agent-id", "worker", "--detach", "--steer-format", "none", "-o", "json")
    agent = (sys.executable, str(script), str(notes.path), PROGRAM, str(node.home))
    started = node.call(*words, "--", *agent, env={"SESSION_MESH_ROOT_PASSPHRASE": "x"})
    assert started.code == 0, started.err
    return started.out + started.err


def spoke_for_itself(notes: Notes, environment: dict[str, str]) -> None:
    names = ("SESSION_ID", "AGENT_ID", "NODE_ID", "SOCKET", "TICKET")
    ours = {name for name in environment if name.startswith("SESSION_")}
    assert ours == {f"SESSION_MESH_{name}" for name in names}
    code, out, err = notes.first("self")
    assert (code, err) == (0, "")
    assert json.loads(out)["session_id"] == environment["SESSION_MESH_SESSION_ID"]
    assert notes.first("register")[:2] == [0, "applied: worker is registered for review\n"]
    assert notes.first("register another")[0] == 5
    assert notes.first("reported")[:2] == [0, "counted\n"]
    assert json.loads(notes.first("reported again")[1]) == {"id": "r1", "counted": False}
    assert notes.first("reported otherwise")[0] == 7
    assert json.loads(notes.first("list")[1])["coverage"]["nodes_heard"] == 2
    assert notes.first("find")[:2] == [0, "worker\n"]


def commanded_nothing(notes: Notes) -> None:
    for refused in ("kill", "kill with the home", "key"):
        code, out, err = notes.first(refused)
        assert (code, out) == (5, "")
        assert "not allowed inside a session" in err
        assert "outside the session" in err
    assert notes.first("outbox") is False, "nothing was signed"


def was_told(notes: Notes, anna: Node, berta: Node) -> None:
    notes.first("following")
    wait_until(lambda: "worker" in berta.sessions(), "the session on berta")
    steered = berta.json("steer", "worker", "--direction", "north")
    assert steered["outcome"] in {"delivered", "queued"}
    told = notes.first("steer")
    assert (told["direction"], told["command_id"]) == ("north", steered["command_id"])
    anna.end()
    anna.up()
    wait_until(lambda: berta.states()["anna"] == "alive", "anna again")
    assert berta.json("steer", "worker", "go home")["outcome"] in {"delivered", "queued"}
    left = notes.first("left")
    assert [steer["message"] for steer in notes.all("steer")] == ["", "go home"]
    # It left in the middle of the last one, which is therefore still its to take.
    assert [json.loads(line)["message"] for line in left[1].splitlines()] == ["go home"]


def test_an_agent_speaks_for_itself_and_is_steered_from_another_node_through_a_restart(fleet):
    anna, berta = fleet.mesh("anna", "berta")
    notes = Notes(fleet.directory / "notes")
    said = start(anna, notes)
    environment = notes.first("environment")
    spoke_for_itself(notes, environment)
    commanded_nothing(notes)
    secret = environment["SESSION_MESH_TICKET"].rpartition("_")[2].encode()
    notes.first("following")
    assert secret not in argv_of_all_processes()

    was_told(notes, anna, berta)
    spent = berta.json("cost", "--by", "session")["groups"]
    assert [(one["key"]["session"], one["usage"]["total"], one["records"]) for one in spent] == [
        (environment["SESSION_MESH_SESSION_ID"], 125, 2)
    ]
    kept = [path for path in fleet.directory.rglob("*") if path.is_file() and path != notes.path]
    assert len(kept) > 10
    assert not [path for path in kept if secret in path.read_bytes()]
    assert secret.decode() not in said + anna.stderr + berta.stderr
