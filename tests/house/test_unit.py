"""The unit that is shipped starts a node, lets it join, and ends it without its agents."""

import os
import shlex
import shutil
import signal
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest
from e2e.fleet import PROGRAM, Fleet, wait_until

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "session-mesh.service"


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


def test_the_unit_keeps_agents_and_waits_for_network_and_time(service):
    assert service["Service"]["KillMode"] == "process", "else systemd ends every agent"
    assert service["Service"]["Delegate"] == "yes", "else agents get no cgroup of their own"
    assert service["Service"]["Restart"] == "on-failure", "down and leave are meant"
    assert {"network-online.target", "time-sync.target"} <= set(service["Unit"]["After"].split())
    home = service["Service"]["Environment"].removeprefix("SESSION_MESH_HOME=")
    assert home == f"/var/lib/{service['Service']['StateDirectory']}"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd here")
def test_systemd_takes_the_unit(tmp_path):
    here = tmp_path / UNIT.name
    here.write_text(UNIT.read_text().replace("/usr/local/bin/session-mesh", PROGRAM))
    asked = ["systemd-analyze", "verify", "--man=no", str(here)]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


@pytest.mark.timeout(120)
def test_what_the_unit_starts_joins_at_first_and_finds_its_agents_later(fleet, service):
    (desk,) = fleet.mesh("desk")
    invite = desk.json("invite", "--uses", "2")["invite"]
    pi = fleet.node("pi")
    pi.home.mkdir(mode=0o700)
    (pi.home / "config.yaml").write_text("node: pi\nlisten: 127.0.0.1:0\nmdns: off\n")
    program, *words = shlex.split(service["Service"]["ExecStart"])
    assert Path(program).name == Path(PROGRAM).name

    def start() -> subprocess.Popen[bytes]:
        environment = pi.environment | {"SESSION_MESH_INVITE": invite}
        started = subprocess.Popen([PROGRAM, *words], env=environment, stdin=subprocess.DEVNULL)
        wait_until(lambda: pi.call("status").code == 0, "the unit's node")
        return started

    first = start()
    try:
        assert pi.call("run", "--detach", "--agent-id", "echo", "--", "cat").code == 0
        pid = pi.sessions("--agent-id", "echo")["echo"]["pid"]
    finally:
        first.send_signal(signal.SIGTERM)  # to the main process alone: KillMode=process
        assert first.wait(20) == 0, "else Restart=on-failure starts it again"
    os.kill(pid, 0)
    second = start()
    try:
        assert pi.sessions("--agent-id", "echo")["echo"]["alive"]
        assert desk.states() == {"desk": "alive", "pi": "alive"}
    finally:
        pi.call("down", "--close-sessions")
        second.wait(20)
