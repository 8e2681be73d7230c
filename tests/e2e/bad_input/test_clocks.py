"""A clock that is an hour off."""

import pytest
from e2e.bad_input.refusal import LOCAL, refused
from e2e.clocks import clock_library_in, with_clock_off
from e2e.fleet import wait_until

HOUR_S = 3600


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
