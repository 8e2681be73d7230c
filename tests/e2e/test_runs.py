"""How `run` was told to run an agent: for how long, and through what."""

import os
import signal
import subprocess
from contextlib import suppress

import psutil
import pytest
from e2e.fleet import PATIENCE_S, PROGRAM, Fleet, Node, wait_until

pytestmark = pytest.mark.e2e

LIMITS = {"--timeout": "timed out after 1 s", "--idle-timeout": "timed out: idle for 1 s"}


@pytest.fixture(scope="module")
def anna(shared_fleet: Fleet) -> Node:
    return shared_fleet.mesh("anna")[0]


def ended(node: Node, agent: str) -> dict:
    def shown() -> dict | None:
        session = node.json("show", agent)
        return session if session["ended_at"] else None

    return wait_until(shown, agent)


@pytest.mark.parametrize("option", LIMITS)
def test_an_agent_that_takes_too_long_is_stopped_with_all_that_it_started(anna: Node, option: str):
    agent = "slow" + option
    answer = anna.call(
        *("run", "--agent-id", agent, option, "1s", "--"),
        *("sh", "-c", "trap '' TERM; sleep 600 & echo $!; trap 'echo asked; exit 3' TERM; wait"),
    )
    child, *said = answer.out.split()
    assert (answer.code, said) == (124, ["asked"])
    assert answer.err.endswith(f"session-mesh: the agent {LIMITS[option]}\n")
    assert not psutil.pid_exists(int(child))
    session = ended(anna, agent)
    assert session["state"] == "expired"
    assert session["end_reason"] == LIMITS[option]
    assert (session["exit_code"], session["ended_by"]) == (3, None)
    listed = anna.sessions("--filter", "failed")[agent]
    assert listed["end_reason"] == session["end_reason"]
    audited = anna.json("audit", "--session", session["session_id"], "--kind", "session_expired")
    assert [one["detail"] for one in audited["records"]] == [LIMITS[option]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("option", LIMITS)
def test_a_detached_agent_is_stopped_without_its_node(
    anna: Node, option: str, number: signal.Signals
):
    agent = f"alone{option}-{number}"
    run = anna.call("run", "--detach", "--agent-id", agent, option, "2s", "--", "sleep", "60")
    assert run.code == 0
    pid = anna.json("show", agent)["pid"]
    anna.end(number)
    wait_until(lambda: not psutil.pid_exists(pid))
    anna.up()
    assert ended(anna, agent)["end_reason"] == LIMITS[option].replace("1", "2")


def test_an_agent_that_ends_in_time_ends_as_it_likes(anna: Node):
    answer = anna.call("run", "--agent-id", "quick", "--timeout", "8h", "--", "sh", "-c", "exit 7")
    assert answer.code == 7
    assert "the agent" not in answer.err, "its own end says itself"
    assert ended(anna, "quick")["state"] == "failed"
    for option in LIMITS:
        for word in ("0", "soon", "-1s", "99999999d"):
            assert anna.call("run", option, word, "--", "true").code == 2
        assert option in anna.call("run", option, "0s", "--", "true").err


@pytest.mark.parametrize(
    ("words", "said"),
    [(("kill", "--force"), "killed"), (("close", "--grace", "0s"), "closed")],
    ids=["kill", "close"],
)
def test_who_waits_in_front_is_told_whose_order_ended_the_agent(
    anna: Node, words: tuple[str, ...], said: str
):
    with subprocess.Popen(
        [PROGRAM, "run", "-q", "--agent-id", said, "--", "sleep", "600"],
        env=anna.environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as front:
        wait_until(lambda: said in anna.sessions() and anna.sessions()[said]["pid"], said)
        anna.json("suspend", said)
        assert "session-mesh resume" in front.stderr.readline()
        receipt = anna.json(words[0], said, *words[1:])
        shown = front.stderr.read()
        assert front.wait(PATIENCE_S) == (137 if said == "killed" else 143)
    key = ended(anna, said)["ended_by"]
    assert shown == f"session-mesh: the agent was {said} by order of key {key}\n"
    assert ("TERM was needed" in receipt["detail"]) == (said == "closed")


def test_an_agent_begins_although_nobody_reads_what_is_said_of_it(anna: Node):
    reader, full = os.pipe()
    os.set_blocking(full, False)
    with suppress(BlockingIOError):
        while True:
            os.write(full, bytes(4096))
    os.set_blocking(full, True)
    words = [PROGRAM, "run", "--agent-id", "unread", "--", "sleep", "600"]
    with subprocess.Popen(words, env=anna.environment, stderr=full) as front:
        wait_until(lambda: anna.sessions().get("unread", {}).get("pid"), "it to begin")
        anna.json("kill", "unread", "--force")
        os.close(full)
        shown = b"".join(iter(lambda: os.read(reader, 65536), b""))
        assert front.wait(PATIENCE_S) == 137
    os.close(reader)
    assert b"agent unread\nsession-mesh: the agent was killed" in shown


def test_who_starts_an_agent_under_a_name_that_one_has_is_told_how_to_name_each(anna: Node):
    started = [
        anna.call("run", "--detach", "--agent-id", "twin", "-o", "json", "--", "cat")
        for _ in range(2)
    ]
    first, second = (one.json["session_id"][:10] for one in started)
    assert "ambiguous" not in started[0].err
    assert f"say {second} for this session, and for the others {first} (anna)" in started[1].err
    assert anna.call("steer", "twin", "hello").code == 7
    assert anna.call("steer", first, "hello").code == 0
    anna.json("kill", first, second, "--force")
    third = anna.call("run", "--agent-id", "twin", "--", "true")
    assert (third.code, "ambiguous" in third.err) == (0, False)


@pytest.mark.parametrize("where", [(), ("--detach",)], ids=["in front", "detached"])
def test_a_command_of_bytes_that_are_no_text_fails_like_any_that_is_not_there(
    anna: Node, where: tuple[str, ...]
):
    agent = "mistyped" + "".join(where)
    environment = {"LOGNAME": os.fsdecode(b"j\xf6rg")}
    run = anna.call("run", *where, "--agent-id", agent, "--", b"no\xffcmd", env=environment)
    assert run.code == 127
    session = ended(anna, agent)
    assert (session["state"], session["exit_code"]) == ("failed", 127)
    assert session["end_reason"] == "no?cmd: command not found"
    assert session["owner"] == "j\ufffdrg"
    assert anna.json("status")["alarms"] == []
