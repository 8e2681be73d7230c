"""The unit that is shipped starts a node, lets it join, and ends it without its agents.

Agents run where `run` was called, so docs/fleet.md shows how to give them a service of their own.
"""

import os
import shlex
import shutil
import signal
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest
from e2e.fleet import PROGRAM, Fleet, wait_until

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "systemd" / "session-mesh.service"
CONFLICT = 7
needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="there is no systemd here"
)


@pytest.fixture
def fleet():
    fleet = Fleet()
    yield fleet
    fleet.close()


@pytest.fixture
def service():
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read(UNIT)
    return parser


@pytest.fixture
def agents() -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Return how the guide starts an agent: flags and properties of systemd-run, and our words."""
    guide = (ROOT / "docs" / "fleet.md").read_text().replace("\\\n", " ")
    (line,) = (line for line in guide.splitlines() if line.startswith("sudo systemd-run "))
    words = shlex.split(line)[2:]
    program = words.index("session-mesh")
    flags, properties = {}, {}
    asked = iter(words[:program])
    for word in asked:
        name, _, value = (next(asked) if word == "-p" else word).partition("=")
        (properties if word == "-p" else flags)[name] = value
    return flags, properties, words[program + 1 :]


def test_the_unit_keeps_agents_and_waits_for_network_and_time(service):
    assert service["Service"]["KillMode"] == "process", "else systemd ends what runs inside"
    assert service["Service"]["Restart"] == "on-failure", "down and leave are meant"
    assert {"network-online.target", "time-sync.target"} <= set(service["Unit"]["After"].split())
    home = service["Service"]["Environment"].removeprefix("SESSION_MESH_HOME=")
    assert home == f"/var/lib/{service['Service']['StateDirectory']}"


def test_agents_get_a_service_that_is_the_nodes_user_at_its_home_with_cgroups(service, agents):
    flags, properties, _ = agents
    assert flags["--uid"] == service["Service"]["User"]
    assert flags["--setenv"] == service["Service"]["Environment"]
    assert properties["Delegate"] == "yes", "else mesh may not write its cgroup"
    assert properties["KillMode"] == "process", "else agents end with the verb that started them"


@needs_systemd
def test_systemd_takes_the_unit(tmp_path):
    verify(tmp_path, UNIT.read_text().replace("/usr/local/bin/session-mesh", PROGRAM))


@needs_systemd
def test_systemd_takes_what_is_said_of_a_service_for_agents(tmp_path, agents):
    _, properties, words = agents
    lines = [f"{name}={value}" for name, value in properties.items()]
    verify(tmp_path, "\n".join(["[Service]", f"ExecStart={PROGRAM} {shlex.join(words)}", *lines]))


def verify(directory: Path, unit: str) -> None:
    here = directory / UNIT.name
    here.write_text(unit)
    asked = ["systemd-analyze", "verify", "--man=no", str(here)]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


@pytest.mark.timeout(120)
def test_what_the_unit_starts_joins_at_first_and_finds_its_agents_later(fleet, service, agents):
    (desk,) = fleet.mesh("desk")
    invite = desk.json("invite", "--uses", "2")["invite"]
    pi = fleet.node("pi")
    pi.home.mkdir(mode=0o700)
    (pi.home / "config.yaml").write_text("node: pi\nlisten: 127.0.0.1:0\nmdns: off\n")
    program, *words = shlex.split(service["Service"]["ExecStart"])
    assert Path(program).name == Path(PROGRAM).name

    def begin() -> subprocess.Popen[bytes]:
        environment = pi.environment | {"SESSION_MESH_INVITE": invite}
        return subprocess.Popen([PROGRAM, *words], env=environment, stdin=subprocess.DEVNULL)

    def start() -> subprocess.Popen[bytes]:
        started = begin()
        wait_until(lambda: pi.call("status").code == 0, "the unit's node")
        return started

    first = start()
    try:
        assert pi.call(*agents[2]).code == 0
        pid = pi.sessions("--agent-id", "echo")["echo"]["pid"]
    finally:
        first.send_signal(signal.SIGTERM)  # to the main process alone: KillMode=process
        assert first.wait(20) == 0, "else Restart=on-failure starts it again"
    os.kill(pid, 0)
    assert pi.call("run", "--detach", "--", "true").code == 0, "it starts a node, outside the unit"
    assert begin().wait(20) == CONFLICT, "then Restart=on-failure tries again, every RestartSec"
    for_good = service["Service"]["RestartPreventExitStatus"].split()
    assert str(CONFLICT) not in for_good
    assert pi.call("down", "--keep-sessions").code == 0
    second = start()
    try:
        assert pi.sessions("--agent-id", "echo")["echo"]["alive"]
        assert desk.states() == {"desk": "alive", "pi": "alive"}
        assert pi.call("leave", "--yes", "--close-sessions").code == 0
        assert second.wait(20) == 0
    finally:
        pi.call("down", "--close-sessions")
        second.wait(20)
    assert str(begin().wait(20)) in for_good, "after a reboot it would start every RestartSec"
