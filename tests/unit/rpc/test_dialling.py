"""One place is dialled so often and no more, whoever is said to listen there."""

from meshnode.core.ids import NodeId
from meshnode.rpc.dialling import (
    BURST,
    DIAL_TIMEOUT_S,
    FAILED_MAX,
    HOST_BURST,
    HOST_PER_S,
    PER_S,
    SILENT_TIMEOUT_S,
    STALLED_TIMEOUT_S,
    DialPace,
    Failures,
    Patience,
)


def dialled(pace: DialPace, addresses: list[str], for_s: int) -> int:
    """Try every address ten times a second."""
    moments = [step / 10 for step in range(10 * for_s)]
    return sum(pace.allows(address, now_s) for now_s in moments for address in addresses)


def test_one_address_is_dialled_at_its_pace():
    assert dialled(DialPace(), ["192.0.2.1:7707"], 60) <= BURST + 60 * PER_S


def test_one_host_is_dialled_at_its_pace_whatever_its_ports():
    ports = [f"192.0.2.1:{port}" for port in range(1, 500)]
    assert dialled(DialPace(), ports, 20) <= HOST_BURST + 20 * HOST_PER_S


def test_other_hosts_are_dialled_meanwhile():
    pace = DialPace()
    dialled(pace, [f"192.0.2.1:{port}" for port in range(1, 500)], 5)
    assert pace.allows("192.0.2.2:7707", 5.0)
    assert pace.allows("[2001:db8::1]:7707", 5.0)


def test_a_fleet_on_one_host_is_dialled_at_once():
    pace = DialPace()
    assert all(pace.allows(f"127.0.0.1:{7707 + number}", 0.0) for number in range(HOST_BURST))


def test_addresses_that_failed_come_after_the_others_the_last_one_last():
    failures, one = Failures(), NodeId("one")
    assert failures.ordered(one, ("a:1", "b:1", "c:1")) == ["a:1", "b:1", "c:1"]
    for address in ("b:1", "a:1"):
        failures.failed(one, address)
    assert failures.ordered(one, ("a:1", "b:1", "c:1")) == ["c:1", "b:1", "a:1"]
    failures.failed(one, "b:1")
    assert failures.ordered(one, ("a:1", "b:1", "c:1")) == ["c:1", "a:1", "b:1"]
    assert failures.ordered(NodeId("other"), ("a:1", "c:1")) == ["a:1", "c:1"]
    failures.answered(one, "a:1")
    assert failures.ordered(one, ("a:1", "b:1", "c:1")) == ["a:1", "c:1", "b:1"]


def test_so_many_failures_are_remembered_the_longest_ago_goes_first():
    failures, one = Failures(), NodeId("one")
    for number in range(FAILED_MAX + 1):
        failures.failed(one, f"a:{number}")
    assert failures.ordered(one, ("a:1", "a:0")) == ["a:0", "a:1"]


def test_who_answers_too_late_is_waited_for_longer_and_who_does_not_answer_a_little():
    patience, one = Patience(), NodeId("one")
    assert patience.of(one, "a:1") == DIAL_TIMEOUT_S
    for stalled, most_s in ((False, SILENT_TIMEOUT_S), (True, STALLED_TIMEOUT_S)):
        for _ in range(9):
            patience.given_up(one, "a:1", stalled=stalled)
        assert patience.of(one, "a:1") == most_s
    assert patience.of(one, "b:1") == patience.of(NodeId("two"), "a:1") == DIAL_TIMEOUT_S
    patience.given_up(one, "a:1", stalled=False)  # its machine is gone by now
    assert patience.of(one, "a:1") == SILENT_TIMEOUT_S


def test_of_several_addresses_the_first_gets_more_time_and_who_is_linked_no_more_than_any():
    patience, one, two = Patience(), NodeId("one"), NodeId("two")
    for peer, address in ((one, "a:1"), (one, "b:1"), (two, "a:1")):
        patience.given_up(peer, address, stalled=True)
    assert patience.of(one, "a:1") == 2 * DIAL_TIMEOUT_S
    assert patience.of(one, "a:1", first=False) == DIAL_TIMEOUT_S
    patience.linked(one)
    assert patience.of(one, "a:1") == patience.of(one, "b:1") == DIAL_TIMEOUT_S
    assert patience.of(two, "a:1") == 2 * DIAL_TIMEOUT_S
