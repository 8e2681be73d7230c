"""Agents whose sessions a home has forgotten are told of, with what ends them."""

import os
import signal

from e2e.bad_input.refusal import LOCAL
from e2e.fleet import wait_until

RUN = ("run", "--detach", "--agent-id", "w", "-o", "json", "--", "sleep", "601")


def alarm_of(node) -> dict | None:
    alarms = node.json("status")["alarms"]
    return next((one for one in alarms if one["id"] == "unlisted_agents"), None)


def test_a_home_without_its_database_names_the_agents_that_live_on(fleet):
    node = fleet.node("anna")
    node.json("init", "--name", "anna")
    node.up(*LOCAL)
    opened = node.call(*RUN).json
    node.end()
    for file in node.home.glob("state.db*"):
        file.rename(file.with_suffix(".aside"))
    node.up(*LOCAL)
    wait_until(lambda: alarm_of(node), "the alarm")
    alarm = alarm_of(node)
    assert opened["session_id"] in alarm["detail"]
    assert node.json("down", "--close-sessions")["kept"] == 1
    node.wait()
    node.up(*LOCAL)
    wait_until(lambda: alarm_of(node), "the alarm, again")
    os.kill(int(alarm["fix"].rpartition("kill ")[2]), signal.SIGTERM)
    wait_until(lambda: not alarm_of(node), "the end of the alarm")


def test_a_home_that_knows_its_agents_raises_no_alarm(fleet):
    node = fleet.node("anna")
    node.json("init", "--name", "anna")
    node.up(*LOCAL)
    node.call(*RUN)
    node.end()
    node.up(*LOCAL)
    wait_until(lambda: node.sessions()["w"]["alive"])
    assert alarm_of(node) is None
    assert node.json("down", "--close-sessions")["closed"] == 1
    node.wait()
