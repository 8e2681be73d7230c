"""Why a peer is not seen: facts in, sentences out."""

import shlex

import pytest
import yaml
from msgspec.structs import replace

from meshnode.app.diagnosis.observations import Attempt, Dial, Greeting, Shown
from meshnode.app.diagnosis.peer_diagnosis import (
    Here,
    Peer,
    best_of,
    clock_of,
    judge_other_meshes,
    judge_peer,
    judge_stranger,
    judge_strangers,
)
from meshnode.app.mesh.revoking import AGAIN, ANEW, ITSELF, WITH_ADMITTER

NOW_S = 1_790_000_000.0
ANNA, BERTA, CARL = "a" * 52, "b" * 52, "c" * 52
MESH, OTHER = "m" * 52, "o" * 52
HERE = Here(ANNA, MESH, 1, NOW_S, node_runs=True)
PEER = Peer("berta", ("192.0.2.2:7707",), node_id=BERTA, state="unreachable", asked=True)
SHOWN = Shown(BERTA, MESH, NOW_S - 10, NOW_S + 10)
WELL = Attempt(
    "192.0.2.2:7707",
    Dial.CONNECTED,
    shown=SHOWN,
    greeting=Greeting(BERTA, MESH, 1, 0.2),
    greeting_address="192.0.2.2:7708",
    entered=True,
)


def judged(*attempts: Attempt, peer: Peer = PEER, here: Here = HERE) -> dict[str, object]:
    checks = judge_peer(peer, attempts, here)
    assert all(check.id.endswith(":berta") for check in checks)
    assert all(check.fix for check in checks if check.ok is False)
    return {check.id.removesuffix(":berta"): check for check in checks}


def only_fault(checks: dict) -> tuple[str, str, str]:
    (bad,) = [check for check in checks.values() if check.ok is False]
    return bad.id.partition(":")[0], bad.detail, bad.fix


def unconnected(dial: Dial) -> Attempt:
    return Attempt("192.0.2.2:7707", dial, "is not there")


def test_every_step_is_told_of_a_peer_that_was_asked_for():
    checks = judged(WELL, peer=replace(PEER, state="alive", linked=True))
    assert list(checks) == [
        f"peer_{step}" for step in ("connect", "identity", "protocol", "clock", "tls", "link")
    ]
    assert all(check.ok for check in checks.values())


def test_no_link_is_missed_with_a_peer_that_was_revoked():
    (check,) = judge_peer(replace(PEER, state="revoked"), [WELL], HERE)
    assert (check.ok, check.detail) == (None, "it was revoked: nobody links with it")


@pytest.mark.parametrize(("refusal", "hint"), [(ITSELF, ANEW), (WITH_ADMITTER, AGAIN)])
def test_a_node_that_was_revoked_is_told_what_who_refuses_it_would_tell(refusal, hint):
    refused = replace(WELL, entered=False, refusal=refusal)
    assert only_fault(judged(refused)) == ("peer_tls", f"it says: {refusal}", hint)


def test_one_line_is_told_of_a_peer_that_is_well():
    checks = judged(WELL, peer=replace(PEER, state="alive", linked=True, asked=False))
    assert list(checks) == ["peer_link"]


@pytest.mark.parametrize(
    ("dial", "fix"),
    [
        (Dial.REFUSED, "start the node on that machine"),
        (Dial.SILENT, "open TCP ports 7707 and 7708"),
        (Dial.NO_ROUTE, "under advertise: in config.yaml"),
        (Dial.NO_NAME, "IP address"),
        (Dial.FAILED, "session-mesh status"),
    ],
)
def test_each_way_not_to_connect_has_its_advice(dial, fix):
    step, detail, advice = only_fault(judged(unconnected(dial)))
    assert step == "peer_connect"
    assert "192.0.2.2:7707 is not there" in detail
    assert fix in advice


def test_ports_of_ipv6_addresses_are_named_too():
    silent = Attempt("[2001:db8::1]:7717", Dial.SILENT, "is silent")
    assert "7717 and 7718" in only_fault(judged(silent))[2]


@pytest.mark.parametrize("dial", [dial for dial in Dial if dial is not Dial.CONNECTED])
@pytest.mark.parametrize(
    "address", ["nonsense", "host:port", "[::1]", "unix:/run/x", "", "h:", ":"]
)
def test_a_member_that_says_no_address_of_itself_is_judged_like_any_other(address, dial):
    step, detail, fix = only_fault(judged(Attempt(address, dial, "is not there")))
    assert (step, detail) == ("peer_connect", f"{address} is not there")
    assert "{" not in fix


def test_a_peer_without_an_address_is_to_be_named():
    assert "no address" in only_fault(judged())[1]


@pytest.mark.parametrize(
    ("changes", "ok", "said"),
    [
        ({"linked": True, "state": "alive"}, True, "dials out only"),
        ({"state": "alive"}, None, "alive through other nodes"),
        ({"state": "down"}, None, "stopped on purpose"),
        ({"state": "left"}, None, "left the mesh for good"),
    ],
)
def test_not_to_connect_is_no_fault_when_it_is_known_why(changes, ok, said):
    (check,) = judged(unconnected(Dial.REFUSED), peer=replace(PEER, **changes)).values()
    assert check.ok is ok
    assert said in check.detail


def test_of_several_addresses_one_that_works_is_enough():
    checks = judged(unconnected(Dial.SILENT), replace(WELL, address="192.0.2.3:7707"))
    assert checks["peer_connect"].ok
    assert "192.0.2.2:7707 is not there" in checks["peer_connect"].detail
    assert best_of([unconnected(Dial.SILENT), WELL], PEER) is WELL


def test_a_listener_that_is_no_node_is_said_to_be_none():
    mute = Attempt("192.0.2.2:7707", Dial.CONNECTED, silence="says nothing")
    stranger = Peer("berta", ("192.0.2.2:7707",))
    step, detail, fix = only_fault(judged(mute, peer=stranger))
    assert (step, detail) == ("peer_identity", "192.0.2.2:7707 says nothing")
    assert "correct the port" in fix
    other = replace(mute, silence="does not speak TLS 1.3")
    assert only_fault(judged(other))[2].startswith("correct the port")


@pytest.mark.parametrize("peer", [PEER, Peer("berta", ("192.0.2.2:7707",))])
def test_a_listener_that_closes_connections_may_be_a_node_without_room(peer):
    shut = Attempt("192.0.2.2:7707", Dial.CONNECTED, silence="closes them: it is full, or no node")
    step, detail, fix = only_fault(judged(shut, peer=peer))
    assert (step, detail) == ("peer_identity", "192.0.2.2:7707 closes them: it is full, or no node")
    assert "see who holds connections to it" in fix
    assert "correct the port" in fix


@pytest.mark.parametrize("state", ["stalled", "unreachable"])
def test_a_member_that_takes_connections_and_says_nothing_is_frozen(state):
    mute = Attempt("192.0.2.2:7707", Dial.CONNECTED, silence="says nothing")
    step, detail, fix = only_fault(judged(mute, peer=replace(PEER, state=state)))
    assert step == "peer_identity"
    assert "its node says nothing: it is frozen" in detail
    assert "kill -CONT" in fix
    assert "port" not in fix


def test_the_port_for_joiners_is_recognised():
    joiners = replace(WELL, address="[::1]:7708", entered=False, for_joiners=True)
    step, detail, fix = only_fault(judged(joiners))
    assert step == "peer_tls"
    assert detail == "[::1]:7708 is the port for joiners; members listen at [::1]:7707"
    as_a_shell_reads_it, as_yaml = fix.split(", or write ")
    assert shlex.split(as_a_shell_reads_it)[-2:] == ["doctor", "[::1]:7707"]
    assert "'[::1]:7707'" in as_a_shell_reads_it, "brackets are a pattern elsewhere"
    assert yaml.safe_load(f"[{as_yaml.partition(' under seeds: ')[0]}]") == ["[::1]:7707"]


STOPPED, LEFT = replace(HERE, node_runs=False), replace(HERE, node_runs=False, has_left=True)


@pytest.mark.parametrize(
    ("here", "then"),
    [
        (HERE, "then session-mesh down --keep-sessions, then session-mesh up --detach"),
        (STOPPED, "in config.yaml, then session-mesh up --detach"),
        (LEFT, "in config.yaml, then join again with a new invite: session-mesh join -"),
    ],
)
def test_a_seed_is_taken_up_as_the_node_of_this_home_can(here, then):
    elsewhere = replace(WELL, shown=replace(SHOWN, node_id=CARL))
    of_joiners = replace(WELL, entered=False, for_joiners=True)
    for attempts in ([], [unconnected(Dial.REFUSED)], [elsewhere], [of_joiners]):
        _, _, fix = only_fault(judged(*attempts, here=here))
        assert fix.endswith(then)


def test_a_node_that_has_left_is_not_told_to_start_for_a_link():
    link = judged(WELL, here=LEFT)["peer_link"]
    assert (link.ok, link.fix) == (None, "join again with a new invite: session-mesh join -")
    assert judged(WELL, here=STOPPED)["peer_link"].fix == "session-mesh up --detach"


def test_a_seed_is_called_one():
    address = "192.0.2.2:7707"
    seed = Peer(address, (address,), is_seed=True)
    (check,) = judge_peer(seed, [unconnected(Dial.REFUSED)], HERE)
    assert check.detail == f"seed {address} is not there"
    link = judge_peer(seed, [WELL], HERE)[-1]
    assert link.detail.startswith(f"seed {address}: ")


def test_another_mesh_is_named_beside_ours():
    step, detail, fix = only_fault(judged(replace(WELL, shown=replace(SHOWN, mesh_id=OTHER))))
    assert step == "peer_identity"
    assert MESH in detail
    assert OTHER in detail
    assert "session-mesh join -" in fix


def test_another_node_where_the_peer_should_be_is_named_beside_it():
    step, detail, _ = only_fault(judged(replace(WELL, shown=replace(SHOWN, node_id=CARL))))
    assert step == "peer_identity"
    assert detail == f"another node listens at 192.0.2.2:7707 now: {CARL}, not {BERTA}"


def at_the_bridge(node_id: str) -> Attempt:
    shown = replace(SHOWN, node_id=node_id)
    return Attempt("172.17.0.1:7707", Dial.CONNECTED, shown=shown, refusal="")


@pytest.mark.parametrize("who", [ANNA, CARL])
@pytest.mark.parametrize("dial", [dial for dial in Dial if dial is not Dial.CONNECTED])
@pytest.mark.parametrize(
    "changes",
    [{"state": "alive", "linked": True}, *({"state": one} for one in ("alive", "down", "left"))],
)
def test_an_address_that_others_have_too_says_nothing_of_a_peer(who, dial, changes):
    peer, there = replace(PEER, **changes), unconnected(dial)
    (alone,), (both,) = (
        judged(*attempts, peer=peer).values() for attempts in ([there], [at_the_bridge(who), there])
    )
    assert (both.id, both.ok, both.fix) == (alone.id, alone.ok, alone.fix)
    (only,) = judged(at_the_bridge(who), peer=peer).values()
    assert (only.id, only.ok) == (alone.id, alone.ok)


@pytest.mark.parametrize(
    ("who", "said"), [(ANNA, "is this node itself"), (CARL, "is another node (cccccccccc)")]
)
def test_a_peer_that_is_not_reached_is_told_with_who_answers_instead(who, said):
    step, detail, fix = only_fault(judged(at_the_bridge(who), unconnected(Dial.REFUSED)))
    assert step == "peer_connect"
    assert detail == f"172.17.0.1:7707 {said}; 192.0.2.2:7707 is not there"
    assert "start the node on that machine" in fix


def test_a_frozen_peer_is_told_whoever_answers_elsewhere():
    mute = Attempt("192.0.2.2:7707", Dial.CONNECTED, silence="says nothing")
    assert "frozen" in only_fault(judged(at_the_bridge(ANNA), mute))[1]


def test_this_node_itself_is_recognised():
    mine = replace(WELL, shown=replace(SHOWN, node_id=ANNA))
    assert "this node itself" in only_fault(judged(mine))[1]
    seed = judged(mine, peer=Peer("berta", ("192.0.2.2:7707",)))
    assert seed["peer_identity"].ok is None


def test_a_node_that_is_asked_about_itself_is_well():
    mine = replace(
        WELL,
        shown=replace(SHOWN, node_id=ANNA),
        greeting=Greeting(ANNA, MESH, 1, 0.0),
        entered=None,
    )
    checks = judged(mine, peer=replace(PEER, node_id=ANNA, state="alive"))
    assert all(check.ok for check in checks.values())
    assert "itself" in checks["peer_tls"].detail
    assert "itself" in checks["peer_link"].detail


@pytest.mark.parametrize(("protocol", "who"), [(2, "this machine"), (0, "berta")])
def test_who_must_be_upgraded_is_said(protocol, who):
    greeting = Greeting(BERTA, MESH, protocol, 0.0)
    step, detail, fix = only_fault(judged(replace(WELL, greeting=greeting)))
    assert step == "peer_protocol"
    assert f"protocol {protocol}" in detail
    assert f"on {who}" in fix


def test_a_hello_that_is_missing_or_somebody_elses_says_nothing():
    missing = replace(WELL, greeting=None, greeting_fault="nobody listens there")
    stranger = replace(WELL, greeting=Greeting(CARL, OTHER, 9, 9999.0))
    for attempt in (missing, stranger):
        checks = judged(attempt)
        assert checks["peer_protocol"].ok is None
        assert checks["peer_protocol"].fix.startswith("if berta admits joiners there")
        assert "peer_clock" not in checks
        assert clock_of(PEER, [attempt]) is None
    assert clock_of(PEER, [WELL]).ahead_s == 0.2
    assert clock_of(PEER, []) is None


@pytest.mark.parametrize(
    ("ahead_s", "said"), [(60.0, None), (-60.0, None), (61.0, "ahead of"), (-7200.0, "2 h behind")]
)
def test_a_clock_that_is_off_is_told(ahead_s, said):
    checks = judged(replace(WELL, greeting=Greeting(BERTA, MESH, 1, ahead_s)))
    if said is None:
        assert checks["peer_clock"].ok
    else:
        assert only_fault(checks)[0] == "peer_clock"
        assert said in checks["peer_clock"].detail


@pytest.mark.parametrize(
    ("shown", "refusal", "said", "fix"),
    [
        (SHOWN, "Socket closed", "does not take this node's certificate", "compare the clocks"),
        (SHOWN, "CERTIFICATE_VERIFY_FAILED", "root of this mesh has not signed", "join again"),
        (replace(SHOWN, valid_until_s=NOW_S - 1), "x", "has expired", "compare the clocks"),
        (replace(SHOWN, valid_from_s=NOW_S + 1), "x", "is not valid yet", "compare the clocks"),
    ],
)
def test_a_handshake_that_fails_says_whose_certificate_it_was(shown, refusal, said, fix):
    attempt = replace(WELL, shown=shown, entered=False, refusal=refusal)
    step, detail, advice = only_fault(judged(attempt))
    assert step == "peer_tls"
    assert said in detail
    assert fix in advice


def test_without_a_certificate_the_handshake_is_not_tried():
    here = replace(HERE, mesh_id="", node_runs=False)
    checks = judged(replace(WELL, entered=None), here=here)
    assert checks["peer_tls"].ok is None
    assert MESH in checks["peer_identity"].detail


@pytest.mark.parametrize(
    ("peer", "here", "ok", "said"),
    [
        ({"linked": True}, {}, True, "linked"),
        ({"state": "alive"}, {}, True, "through other nodes"),
        ({}, {"node_runs": False}, None, "no node is running"),
        ({}, {}, None, "no link yet"),
        ({"trouble": "no answer"}, {}, None, "no answer"),
        ({"state": "", "node_id": ""}, {}, True, "can be dialled"),
    ],
)
def test_what_is_left_when_every_step_is_well(peer, here, ok, said):
    link = judged(WELL, peer=replace(PEER, **peer), here=replace(HERE, **here))["peer_link"]
    assert link.ok is ok
    assert said in link.detail


def test_strangers_are_told_and_no_fault():
    check = judge_stranger("192.0.2.9:7707", "belongs to another mesh (oooo)")
    assert check.ok is None
    assert "session-mesh leave" in check.fix
    assert judge_stranger(CARL, "no answer").fix == ""


def test_another_mesh_on_one_network_is_no_trouble_and_nobody_is_told_to_leave():
    check = judge_other_meshes("heard of a node of another mesh: 192.0.2.9:7707")
    assert (check.ok, check.fix) == (None, "")
    assert "192.0.2.9:7707: nothing to do" in check.detail
    assert "leave" not in check.detail


def test_many_strangers_are_one_line():
    few = [(f"192.0.2.{number}:7707", "no answer") for number in range(3)]
    assert [check.id for check in judge_strangers(few)] == [f"stranger:{one}" for one, _ in few]
    many = few + [(f"198.51.100.{number}:7707", "no answer") for number in range(40)]
    (check,) = judge_strangers(many)
    assert (check.id, check.ok) == ("strangers", None)
    assert check.detail.startswith("43 that are no members of this mesh: 192.0.2.0:7707, ")
    assert check.detail.endswith("192.0.2.2:7707 and 40 more")


def test_a_member_that_is_heard_is_slow_and_neither_frozen_nor_against_us():
    heard = replace(PEER, state="alive", linked=True)
    mute = Attempt("192.0.2.2:7707", Dial.CONNECTED, silence="says nothing in 3 s")
    late = replace(WELL, entered=False, refusal="it did not answer in time")
    for attempt, step in ((mute, "peer_identity"), (late, "peer_tls")):
        check = judged(attempt, peer=heard)[step]
        assert (check.ok, "the network to it is slow" in check.detail) == (None, True)
        assert not judged(attempt)[step].ok
