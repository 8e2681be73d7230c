"""What a home's and a node's facts are judged to mean: every sentence, without a network."""

import ast
import re
from inspect import getsource

import pytest
from msgspec.structs import replace

from meshnode.app.audit.alarms import Alarm
from meshnode.app.diagnosis import diagnosis, peer_diagnosis
from meshnode.app.diagnosis.diagnosis import (
    CLOCK_OFF_S_MAX,
    NAME_A_NODE,
    START,
    from_error,
    judge_agents,
    judge_alarms,
    judge_certificate,
    judge_clock,
    judge_disk,
    judge_joiners,
    judge_listening,
    judge_loop,
    judge_multicast,
    judge_not_checked,
    judge_silence,
    judge_version,
    named,
    span,
    unknown,
)
from meshnode.app.diagnosis.observations import (
    Attempt,
    CertificateFacts,
    ClockFact,
    Dial,
    Edition,
    Greeting,
    MulticastFacts,
    NodeFacts,
    OwnAddress,
    Shown,
)
from meshnode.core.errors import DamagedError, NotPermittedError

DAY_S = 86400.0
NOW_S = 1_790_000_000.0
ANNA, BERTA = "a" * 52, "b" * 52
WELL = Attempt("192.0.2.1:7707", Dial.CONNECTED, shown=Shown(ANNA, "m", 0, 9e9))
REFUSED = Attempt("192.0.2.1:7707", Dial.REFUSED, "refuses connections")


def certificate(**changes):
    fields = {
        "valid_from_s": NOW_S - DAY_S,
        "valid_until_s": NOW_S + 100 * DAY_S,
        "is_for_our_key": True,
        "chains_to_root": True,
    }
    return judge_certificate(CertificateFacts(**fields | changes), NOW_S)


def node(**changes) -> NodeFacts:
    fields = {
        "name": "anna",
        "node_id": ANNA,
        "pid": 7,
        "edition": Edition("1.0", "aa", 12),
        "mdns": "on",
        "heard_by_mdns": 0,
        "links": 0,
        "listen": "0.0.0.0:7707",
        "answers_s": (0.003, 0.004),
    }
    return NodeFacts(**fields | changes)


def own(attempt: Attempt = WELL, *, is_local: bool = True, is_loopback: bool = False):
    return OwnAddress(is_local, is_loopback, attempt)


def test_a_file_that_is_refused_brings_its_own_advice():
    check = from_error("keys", NotPermittedError("node.key is open", "run: chmod 600 node.key"))
    assert (check.id, check.ok, check.detail, check.fix) == (
        "keys",
        False,
        "node.key is open",
        "run: chmod 600 node.key",
    )
    assert from_error("home", DamagedError("broken")).fix


def test_a_certificate_that_is_good_says_for_how_long():
    check = certificate()
    assert (check.ok, check.detail, check.fix) == (
        True,
        "a member of this mesh for another 100 d",
        "",
    )


def test_a_certificate_that_ends_soon_is_well_and_says_what_to_do():
    check = certificate(valid_until_s=NOW_S + 10 * DAY_S)
    assert check.ok
    assert "one that admits" in check.fix


@pytest.mark.parametrize(
    ("changes", "said", "fix"),
    [
        ({"is_for_our_key": False}, "another key", "join again"),
        ({"chains_to_root": False}, "root of this mesh", "join again"),
        ({"valid_from_s": NOW_S + 5 * DAY_S}, "clock is behind", "set this machine's clock"),
        ({"valid_from_s": NOW_S + 5 * DAY_S}, "or its issuer's was ahead", "start the node again"),
        ({"valid_until_s": NOW_S - 5 * DAY_S}, "expired 5 d ago", "join again"),
    ],
)
def test_a_certificate_that_is_no_good_says_why(changes, said, fix):
    check = certificate(**changes)
    assert check.ok is False
    assert said in check.detail
    assert fix in check.fix


def test_a_node_of_another_version_is_to_be_restarted():
    ours = Edition("1.1", "aa", 12)
    check = judge_version(node(edition=Edition("1.0")), ours)
    assert check.ok is False
    assert check.detail == "the node runs 1.0, this command line is 1.1 (build aa, database 12)"
    assert "--keep-sessions" in check.fix


@pytest.mark.parametrize("changed", [{"build": "bb"}, {"build": ""}, {"schema": 11}])
def test_a_node_of_another_build_of_the_same_version_is_to_be_restarted(changed):
    assert judge_version(node(), Edition("1.0", "aa", 12)).ok
    other = node(edition=replace(Edition("1.0", "aa", 12), **changed))
    assert judge_version(other, Edition("1.0", "aa", 12)).ok is False
    silent = judge_version(node(edition=Edition("1.0")), Edition("1.0", "", 12))
    assert "the node runs 1.0 of an older build" in silent.detail


def test_a_node_that_answers_slowly_is_short_of_something():
    assert judge_loop(node()).detail == "the node answers within 4 ms"
    assert judge_loop(node(answers_s=(0.1, 2.5))).ok is False
    assert judge_loop(node(answers_s=())).ok is None
    assert judge_loop(node(answers_s=(0.1, 2.5), lag_s=7.0)).ok is False


def test_a_stop_that_has_passed_is_told_as_past_and_no_fault():
    held_up = judge_loop(node(lag_s=7.0))
    assert held_up.ok is None
    assert "was held up for 7.0 s within the last minute" in held_up.detail
    assert "the node answers within 4 ms" in held_up.detail


def test_a_silent_node_is_let_go_on_if_stopped_and_else_ended():
    stopped = judge_silence("7", 3.0, is_stopped=True)
    assert (stopped.ok, "kill -CONT 7" in stopped.fix) == (False, True)
    stuck = judge_silence("7", 3.0, is_stopped=False)
    assert "(pid 7) does not answer in 3 s" in stuck.detail
    assert "kill -KILL 7" in stuck.fix


def test_an_address_that_leads_here_is_well():
    assert judge_listening([own()], ANNA).detail == "reached from here at 192.0.2.1:7707"
    only_here = judge_listening([own(is_loopback=True)], ANNA)
    assert only_here.ok
    assert "only this machine" in only_here.detail


def test_an_address_behind_translation_is_no_fault_when_it_does_not_lead_back():
    check = judge_listening([own(), own(REFUSED, is_local=False)], ANNA)
    assert check.ok
    assert "no interface of this machine carries 192.0.2.1:7707" in check.detail


def test_where_nothing_was_reached_nothing_is_said_to_be():
    check = judge_listening([own(REFUSED, is_local=False)], ANNA)
    assert (check.ok, check.detail.startswith("not reached from here")) == (None, True)
    assert "192.0.2.1:7707 refuses connections" in check.detail
    assert "no interface of this machine carries 192.0.2.1:7707" in check.detail
    assert check.fix


def test_an_address_of_ours_that_nobody_answers_at_is_a_fault():
    check = judge_listening([own(REFUSED)], ANNA)
    assert check.ok is False
    assert "refuses connections" in check.detail
    assert "under advertise: in config.yaml" in check.fix


def test_one_good_address_is_enough_and_the_bad_one_is_named():
    check = judge_listening([own(), own(REFUSED)], ANNA)
    assert check.ok
    assert "refuses connections" in check.detail


def test_an_advertised_address_of_another_node_is_a_fault():
    check = judge_listening([own(is_local=False)], BERTA)
    assert check.ok is False
    assert "another node" in check.detail
    assert judge_listening([], ANNA).ok is False


def test_the_joiners_port_answers_for_this_node_or_is_a_fault():
    asked = Attempt("h:1", Dial.CONNECTED, greeting_address="h:1", greeting_fault="nobody")
    assert "nobody" in judge_joiners(asked, ANNA, "h:0").detail
    heard = Attempt(
        "h:1", Dial.CONNECTED, greeting=Greeting(ANNA, "m", 1, 0.0), greeting_address="h:1"
    )
    well = judge_joiners(heard, ANNA, "h:0")
    assert (well.ok, well.detail) == (True, "Hello is answered at h:1")
    other = judge_joiners(heard, BERTA, "h:0")
    assert other.ok is False
    assert "another node" in other.detail


def test_a_joiners_port_whose_certificate_does_not_count_is_not_mended_by_a_restart():
    fault = "CERTIFICATE_VERIFY_FAILED: certificate is not yet valid"
    asked = Attempt("h:0", Dial.CONNECTED, greeting_address="h:1", greeting_fault=fault)
    check = judge_joiners(asked, ANNA, "h:0")
    assert "whether the clock is right" in check.fix
    assert "down" not in check.fix


def test_a_joiners_port_that_is_not_the_next_one_is_named_to_whoever_opens_ports():
    heard = Attempt(
        "h:9", Dial.CONNECTED, greeting=Greeting(ANNA, "m", 1, 0.0), greeting_address="h:9"
    )
    check = judge_joiners(heard, ANNA, "[::]:7707")
    assert check.ok
    assert "not on port 7708: firewalls and routers must let 9 through" in check.detail


@pytest.mark.parametrize(
    ("ahead", "ok", "said"),
    [
        ([], None, "no peer told its time"),
        ([0.2], True, "within 0.2 s of p0"),
        ([-CLOCK_OFF_S_MAX], True, "within 60.0 s of p0"),
        ([3600.0], False, "60 min behind p0"),
        ([-3600.0], False, "60 min ahead of p0"),
        ([0.1, 3600.0], True, "within 0.1 s of p0, but not of p1"),
        ([0.1, 3600.0, 3601.0], False, "60 min behind p1, p2"),
        ([0.1, 3600.0, -3600.0], True, "within 0.1 s of p0, but not of p1, p2"),
        ([-3600.0, 90000.0], None, "it is they that disagree: p0, p1"),
        ([3600.0, 3600.0, -3600.0], False, "60 min behind p0, p1"),
        ([3600.0, -3600.0, -3600.0], False, "60 min ahead of p1, p2"),
    ],
)
def test_this_clock_is_wrong_when_most_peers_say_so(ahead, ok, said):
    check = judge_clock([ClockFact(f"p{place}", one) for place, one in enumerate(ahead)])
    assert check.ok is ok
    assert check.detail.endswith(said)
    assert bool(check.fix) is (ok is False)


def test_of_two_clocks_either_may_be_wrong():
    assert "one of the two" in judge_clock([ClockFact("berta", 3600.0)]).fix


HEARD = MulticastFacts(heard_on=("192.0.2.1",))


@pytest.mark.parametrize(
    ("facts", "observed", "alone", "ok", "said"),
    [
        ({"mdns": "off"}, None, False, None, "mDNS is off"),
        ({"mdns": "unavailable: no device"}, None, False, False, "no device"),
        ({"mdns": "starting"}, None, False, None, "starting"),
        ({}, MulticastFacts(), False, None, "on no IPv4 network"),
        ({}, MulticastFacts(silent_on=("192.0.2.1",)), False, False, "came back on 192.0.2.1"),
        ({}, MulticastFacts(fault="no such device"), False, False, "no such device"),
        ({}, HEARD, False, None, "has heard nobody"),
        ({}, HEARD, True, True, "has heard nobody"),
        ({"links": 1}, HEARD, False, True, "has heard nobody"),
        ({"heard_by_mdns": 1}, HEARD, False, True, "heard 1 announcement;"),
        ({"heard_by_mdns": 3}, HEARD, False, True, "3 announcements"),
        ({"links": 1}, MulticastFacts(("a",), ("b",)), False, True, "works on a, not on b"),
    ],
)
def test_multicast(facts, observed, alone, ok, said):
    check = judge_multicast(node(**facts), observed, alone=alone)
    assert check.ok is ok
    assert said in check.detail
    assert check.ok is not False or "under seeds: in config.yaml" in check.fix


def test_a_machine_without_ipv4_is_to_name_a_node():
    check = judge_multicast(node(), MulticastFacts(), alone=True)
    assert (check.ok, check.fix) == (None, NAME_A_NODE)


def test_many_names_are_counted():
    names = [str(number) for number in range(12)]
    assert named(names) == "0, 1, 2, 3, 4, 5, 6, 7 and 4 more"
    check = judge_not_checked([(name, "") for name in names])
    assert check.ok is None
    assert check.fix == "ask: session-mesh doctor 0 1 2 3 4 5 6 7"
    assert judge_not_checked([("[::1]:7707", "")]).fix == "ask: session-mesh doctor '[::1]:7707'"


def test_a_command_names_nodes_by_their_ids_and_addresses_in_quotes():
    peers = [("x; reboot #", "csj7fuievhgfftplotz"), ("[fe80::1%$(reboot)]:7707", "")]
    check = judge_not_checked(peers)
    assert check.fix == "ask: session-mesh doctor csj7fuievh '[fe80::1%$(reboot)]:7707'"


def test_nothing_is_said_of_what_is_not_known():
    assert unknown("version", "no node is running").ok is None


@pytest.mark.parametrize(
    ("seconds", "said"), [(3.21, "3.2 s"), (300, "5 min"), (7200, "2 h"), (40 * DAY_S, "40 d")]
)
def test_spans_read_easily(seconds, said):
    assert span(seconds) == said


def test_every_alarm_is_a_check_that_fails_and_says_what_to_do():
    alarms = [Alarm("disk", "the disk is full", "free some"), Alarm("feed:x", "damaged", "wait")]
    checks = judge_alarms(alarms)
    assert [(check.id, check.ok, check.fix) for check in checks] == [
        ("alarm:disk", False, "free some"),
        ("alarm:feed:x", False, "wait"),
    ]
    assert [check.ok for check in judge_alarms([])] == [True]


def test_a_stopped_nodes_damaged_rows_are_left_out_when_it_starts():
    assert judge_disk("", 3).ok
    damaged = judge_disk("damaged on the disk are feeds of others: 1", 3)
    assert not damaged.ok
    assert "up" in damaged.fix


def test_how_surely_a_kill_finds_an_agents_processes_is_said():
    assert judge_agents("").ok is True
    check = judge_agents("no cgroup v2 is mounted")
    assert check.ok is None, "nothing is wrong with the node"
    assert "no cgroup v2 is mounted" in check.detail
    assert "Delegate=yes" in check.fix


@pytest.mark.parametrize("module", [diagnosis, peer_diagnosis], ids=lambda module: module.__name__)
def test_no_fix_starts_a_node_that_runs_or_lasts_for_one_run(module):
    """`up` is refused while a node runs, and what its flags say of addresses goes with it."""
    starts = [
        (node.value[: found.start()], node.value[found.end() :])
        for node in ast.walk(ast.parse(getsource(module)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for found in re.finditer("session-mesh up", node.value)
    ]
    for before, after in starts:
        alone = (before, after) == ("", START.removeprefix("session-mesh up"))
        assert alone or before.endswith("session-mesh down --keep-sessions, then ")
        assert after in {" --detach", " --detach --name NODE"}  # it keeps its name
    assert starts or module is not diagnosis
