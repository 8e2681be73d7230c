"""Real networks that break: whatever happened, afterwards all nodes give the same answers.

Ten nodes, so that rings decide who links to whom, live through one fault after the other in one
test: each fault is a subtest, and one mesh is enough for all, whichever worker runs it. A fault
begins when all is well, says what shall be seen meanwhile, and ends when all is well again.
"""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from e2e.fleet import POLL_S_MAX
from e2e.hosts import HostedNode
from e2e.town import (
    Town,
    essence,
    eventually,
    let_nobody_in,
    look,
    not_lost,
    settle,
    still_listed,
    tell,
)

NAMES = ("anna", "berta", "carl", "dora", "emil", "frida", "georg", "hanna", "ivan", "jana")
SEEDED = ("ivan", "jana")  # told where anna is; the others find each other by mDNS alone
LOSS_S = 15.0
LOSS_PERCENT = 20
UNREACHABLE = 6  # the exit code
FROZEN = {"stalled", "unreachable"}


def a_silent_cut_between_two_loses_nobody(town: Town) -> None:
    berta = town.nodes[1]
    peer = town.linked_to(berta)
    town.hosts.cut(berta.host, peer.host)
    eventually(
        "the link across a silent cut is gone for all, and nobody is lost",
        lambda: still_listed([look(node) for node in town.nodes], berta, peer),
    )
    town.start(berta, "behind-the-cut")
    eventually(
        "a session travels around a silent cut",
        lambda: [n.name for n in town.nodes if "behind-the-cut" not in look(n).sessions],
    )


def a_one_way_cut_loses_nobody(town: Town) -> None:
    dora = town.nodes[3]
    peer = town.linked_to(dora)
    town.hosts.cut_one_way(dora.host, peer.host)
    eventually(
        "the link across a one-way cut is gone for all, and nobody is lost",
        lambda: still_listed([look(node) for node in town.nodes], dora, peer),
    )


def a_node_that_is_cut_off_turns_unreachable_and_then_dead(town: Town) -> None:
    jana = town.nodes[9]
    others = town.others(jana)
    town.hosts.partition([jana.host], [node.host for node in others])
    eventually(
        "a node is cut off, and both sides say so",
        lambda: [
            *not_lost(look(jana), town.names - {"jana"}, town.names),
            *(c for node in others for c in not_lost(look(node), {"jana"}, town.names)),
        ],
    )
    eventually(
        "a node that was cut off is dead for all others",
        lambda: [n.name for n in others if look(n).states["jana"] != "dead"],
    )


def loss_makes_nobody_stop(town: Town) -> None:
    georg = town.nodes[6]
    town.hosts.lose(LOSS_PERCENT)
    began_at = time.monotonic()
    looks = lost = 0
    town.start(georg, "in-the-rain")
    while time.monotonic() < began_at + LOSS_S:
        for node in town.nodes:
            looks += 1
            lost += look(node).states != town.all_alive
        time.sleep(POLL_S_MAX)  # between two looks at real nodes there is nothing to wait on
    tell(began_at, f"of {LOSS_PERCENT} % loss: {lost} of {looks} views had lost somebody")


def a_partition_is_told_on_both_sides_and_what_happened_there_is_kept(town: Town) -> None:
    town.start(town.nodes[1], "ends-left")
    town.start(town.nodes[8], "ends-right")
    town.wait_until_all_is_well("before a partition")
    sides = left, right = town.nodes[:4], town.nodes[4:]
    town.hosts.partition([n.host for n in left], [n.host for n in right])

    def not_apart() -> list[str]:
        found = []
        for here, there in (sides, sides[::-1]):
            lost = {node.name for node in there}
            found += [c for node in here for c in not_lost(look(node), lost, town.names)]
        return found

    eventually("a partition is told by both sides", not_apart)
    town.start(left[2], "begun-left")
    town.start(right[2], "begun-right")
    town.kill(left[0], "ends-left")
    town.kill(right[0], "ends-right")
    seen = {
        agent: {n.name for n in town.nodes if agent in look(n).sessions} for agent in town.agents
    }
    assert seen["begun-left"] <= {node.name for node in left}
    assert seen["begun-right"] <= {node.name for node in right}
    assert left[0].call("steer", "begun-left", "hello").code == 0
    assert left[0].call("steer", "stays-on-jana", "hello").code == UNREACHABLE
    assert not_apart() == []


def a_killed_node_returns_with_its_rows(town: Town) -> None:
    georg = town.nodes[6]
    others = town.others(georg)
    before = look(georg)
    node_id = georg.ready["node_id"]
    georg.end(signal.SIGKILL)
    try:
        eventually(
            "a killed node is lost for all",
            lambda: [c for node in others for c in not_lost(look(node), {"georg"}, town.names)],
        )
        town.start(others[0], "begun-without-georg")
    finally:
        georg.up(*georg.flags)
    assert georg.ready["node_id"] == node_id
    assert set(before.sessions) <= set(look(georg).sessions), "its disk answers at once"
    town.wait_until_all_is_well("after a kill -9 and a restart with the old disk")
    after = look(georg)
    assert essence(before).items() <= essence(after).items()
    assert after.epochs == before.epochs, "no row was lost, so no epoch is new"


def a_frozen_node_is_not_alive_until_it_thaws(town: Town) -> None:
    dora = town.nodes[3]
    others = town.others(dora)
    before = look(dora)
    dora.process.send_signal(signal.SIGSTOP)
    try:
        eventually(
            "a frozen node is alive for nobody",
            lambda: [n.name for n in others if look(n).states["dora"] not in FROZEN],
        )
        town.start(others[0], "begun-without-dora")
    finally:
        dora.process.send_signal(signal.SIGCONT)
    town.wait_until_all_is_well("after a thaw")
    assert look(dora).epochs == before.epochs


def a_node_that_lets_nobody_in_is_a_member_like_any(town: Town) -> None:
    let_nobody_in(town, "kurt")


FAULTS = (
    a_silent_cut_between_two_loses_nobody,
    a_one_way_cut_loses_nobody,
    a_frozen_node_is_not_alive_until_it_thaws,
    a_killed_node_returns_with_its_rows,
    loss_makes_nobody_stop,
    a_partition_is_told_on_both_sides_and_what_happened_there_is_kept,
    a_node_that_is_cut_off_turns_unreachable_and_then_dead,
    a_node_that_lets_nobody_in_is_a_member_like_any,
)
SAID = [str(number) for number in range(1, 30_001)]  # three pieces of output
TALKING = ("sh", "-c", f"seq 1 {len(SAID)}; exec sleep 10000")
HARMS_NO_PACKET = (a_frozen_node_is_not_alive_until_it_thaws, a_killed_node_returns_with_its_rows)


@pytest.mark.timeout(600)
def test_after_every_fault_all_nodes_give_the_same_answers(hosted_fleet, subtests):
    began_at = time.monotonic()
    town = settle(hosted_fleet, NAMES, SEEDED)
    town.wait_until_all_is_well("after ten nodes have found each other")
    tell(began_at, "for all that")
    for node in town.nodes[::3]:
        town.start(node, f"stays-on-{node.name}")
    town.wait_until_all_is_well("with four sessions")
    for fault in FAULTS:
        with subtests.test(fault.__name__):
            try:
                fault(town)
            finally:
                dropped = town.hosts.heal()
            town.wait_until_all_is_well(f"after {fault.__name__} ({dropped} packets dropped)")
            assert dropped or fault in HARMS_NO_PACKET
    with subtests.test("all nodes end in order"), ThreadPoolExecutor(len(town.nodes)) as pool:
        codes = list(pool.map(HostedNode.end, town.nodes))
        assert set(codes) == {0}
        assert [node.stderr for node in town.nodes if "Traceback" in node.stderr] == []


@pytest.fixture
def walled_town(hosted_fleet):
    """Three nodes, and dora, who has a session and lets nobody in."""
    town = settle(hosted_fleet, NAMES[:3])
    let_nobody_in(town, "dora")
    return town


def test_orders_reach_a_node_that_lets_nobody_in(walled_town):
    for node in walled_town.nodes[:3]:
        steer(node, "behind-the-wall")
    kill(walled_town.nodes[2], "behind-the-wall")


def test_orders_are_relayed_to_a_node_that_only_others_can_reach(walled_town):
    anna, dora = walled_town.nodes[0], walled_town.nodes[3]
    assert dora.call("run", "--detach", "--agent-id", "talks", "--", *TALKING).code == 0
    walled_town.hosts.cut(anna.host, dora.host)
    eventually(
        "the link across a cut is gone",
        lambda: still_listed([look(node) for node in walled_town.nodes], anna, dora),
    )
    steer(anna, "behind-the-wall")
    kill(anna, "behind-the-wall")
    eventually(
        "output is read over the links of others, all of it and in order",
        lambda: anna.call("logs", "talks").out.split() != SAID,
    )
    verified = anna.json("audit", "--node", "dora", "--verify")
    assert (verified["ok"], verified["node_name"]) == (True, "dora")
    killed = anna.json("audit", "--node", "dora", "--kind", "session_killed")["records"]
    assert [record["agent_id"] for record in killed] == ["behind-the-wall"]
    with ThreadPoolExecutor(1) as beside:
        followed = beside.submit(anna.call, "logs", "talks", "--follow")
        steer(anna, "talks")
        kill(anna, "talks")
        assert (followed.result().code, followed.result().out.split()) == (0, SAID)


def steer(node: HostedNode, agent: str) -> None:
    began_at = time.monotonic()
    receipt = node.json("steer", agent, "hello")
    tell(began_at, f"{node.name} steers")
    assert (receipt["outcome"], receipt["receipt_verified"]) == ("delivered", True)


def kill(node: HostedNode, agent: str) -> None:
    began_at = time.monotonic()
    receipt = node.json("kill", agent, "--force")
    tell(began_at, f"{node.name} kills")
    assert (receipt["outcome"], receipt["receipt_verified"]) == ("applied", True)
