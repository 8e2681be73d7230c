import socket
from ipaddress import ip_address
from types import SimpleNamespace

import psutil
import pytest

from meshnode.core.errors import UsageError
from meshnode.core.membership.members import ADDRESSES_MAX
from meshnode.node.presence.addresses import (
    Listening,
    interface_hosts,
    joined,
    joiners_at,
    listening_at,
)


def an_entry(address: str):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return SimpleNamespace(family=family, address=address)


@pytest.fixture
def interfaces(monkeypatch):
    """Let a test say which interfaces there are: name, whether up, addresses."""

    def are(*interfaces: tuple[str, bool, list[str]]) -> None:
        stats = {name: SimpleNamespace(isup=up) for name, up, _ in interfaces}
        entries = {
            name: [an_entry(address) for address in addresses] for name, _, addresses in interfaces
        }
        monkeypatch.setattr(psutil, "net_if_stats", lambda: stats)
        monkeypatch.setattr(psutil, "net_if_addrs", lambda: entries)

    return are


def test_an_ipv6_address_stands_in_brackets():
    assert joined("::1", 1) == "[::1]:1"
    assert joined("127.0.0.1", 1) == "127.0.0.1:1"
    assert joined("anna.example", 1) == "anna.example:1"


def test_a_listener_on_one_address_is_found_there():
    listening = listening_at("192.0.2.1", 7707, None)
    assert listening.addresses == ("192.0.2.1:7707",)
    assert listening.bound == "192.0.2.1:7707"
    assert listening.ipv4 == ("192.0.2.1",)
    assert not listening.loopback_only


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_a_listener_on_the_loopback_is_for_this_machine_only(host):
    assert listening_at(host, 1, None).loopback_only


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "anna.example"])
def test_any_other_listener_is_for_others_too(host):
    assert not listening_at(host, 1, None).loopback_only


def test_names_and_ipv6_addresses_are_not_announced_with_mdns():
    assert Listening("::", 1, ("2001:db8::1", "anna", "192.0.2.1"), 1).ipv4 == ("192.0.2.1",)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_listener_on_every_address_is_found_at_those_of_the_machine(interfaces, host):
    interfaces(("lo", True, ["127.0.0.1"]), ("eth0", True, ["192.0.2.1"]))
    listening = listening_at(host, 7707, None)
    assert listening.addresses == ("192.0.2.1:7707",)
    assert listening.host == host


def test_what_is_advertised_counts_and_nothing_else(interfaces):
    interfaces(("eth0", True, ["192.0.2.1"]))
    listening = listening_at("0.0.0.0", 7707, "anna.example:443")
    assert listening.addresses == ("anna.example:443",)
    assert not listening.ipv4


def test_what_is_advertised_moves_no_listener():
    listening = listening_at("192.0.2.1", 7707, "anna.example:443")
    assert (listening.bound, listening.port) == ("192.0.2.1:7707", 7707)


@pytest.mark.parametrize(
    ("port", "told"),
    [(7708, "anna.example:444"), (45123, "anna.example:45123")],
    ids=["forwarded beside the members' port", "free by chance, and forwarded by nobody"],
)
def test_joiners_are_sent_to_the_port_after_the_advertised_one_if_theirs_is_the_next_here(
    port, told
):
    members = listening_at("0.0.0.0", 7707, "anna.example:443")
    joiners = joiners_at(port, members)
    assert joiners.addresses == (told,)
    assert joiners.bound == f"0.0.0.0:{port}"


def test_no_joiner_is_sent_beyond_the_last_port():
    members = listening_at("0.0.0.0", 7707, "anna.example:65535")
    assert joiners_at(7708, members).addresses == ("anna.example:7708",)


def test_without_advertising_joiners_are_sent_to_where_their_port_is(interfaces):
    interfaces(("eth0", True, ["192.0.2.1"]))
    members = listening_at("0.0.0.0", 7707, None)
    assert joiners_at(7708, members).addresses == ("192.0.2.1:7708",)
    assert joiners_at(45123, members).addresses == ("192.0.2.1:45123",)


def test_a_port_of_zero_is_advertised_as_the_one_that_was_bound():
    assert listening_at("0.0.0.0", 7707, "[2001:db8::1]:0").addresses == ("[2001:db8::1]:7707",)


def test_advertising_what_is_no_address_is_the_callers_fault():
    with pytest.raises(UsageError):
        listening_at("0.0.0.0", 7707, "anna.example")


def test_ipv4_addresses_come_first(interfaces):
    interfaces(("eth0", True, ["2001:db8::1", "192.0.2.1"]), ("wlan0", True, ["198.51.100.1"]))
    assert interface_hosts() == ("192.0.2.1", "198.51.100.1", "2001:db8::1")


def test_interfaces_that_are_down_and_addresses_of_one_link_do_not_count(interfaces):
    interfaces(
        ("lo", True, ["127.0.0.1", "::1"]),
        ("eth0", False, ["192.0.2.1"]),
        ("eth1", True, ["169.254.1.1", "fe80::1%eth1", "192.0.2.2"]),
    )
    assert interface_hosts() == ("192.0.2.2",)


def test_a_machine_without_a_network_is_found_on_its_loopback(interfaces):
    interfaces(("lo", True, ["127.0.0.1"]))
    assert interface_hosts() == ("127.0.0.1",)


def test_a_machine_without_ipv4_is_found_on_the_loopback_that_it_has(interfaces):
    interfaces(("lo", True, ["::1"]), ("eth0", True, ["fe80::1%eth0"]))
    assert interface_hosts() == ("::1",)
    assert listening_at("::", 7707, None).loopback_only
    interfaces(("lo", True, ["::1", "127.0.0.1"]))
    assert interface_hosts() == ("127.0.0.1",)
    interfaces(("lo", False, ["::1"]))
    assert interface_hosts() == ("127.0.0.1",)


def test_a_machine_with_many_addresses_tells_as_many_as_a_member_may(interfaces):
    interfaces(("eth0", True, [f"192.0.2.{number}" for number in range(1, 30)]))
    assert len(interface_hosts()) == ADDRESSES_MAX


def test_the_addresses_of_this_very_machine_make_sense():
    assert all(ip_address(host) for host in interface_hosts())
