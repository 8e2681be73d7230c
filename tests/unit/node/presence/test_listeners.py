"""Where a node is told to be, by mDNS and to everybody else."""

import psutil
import pytest

from meshnode.node.presence import addresses
from meshnode.node.presence.listeners import Listeners

HOME = ("192.0.2.1", "2001:db8::1")


@pytest.fixture
def told(monkeypatch):
    """Return what mDNS tells of a node with these settings."""

    def told(listen: str, advertise: str | None, hosts: tuple[str, ...] = HOME) -> tuple[str, ...]:
        monkeypatch.setattr(addresses, "interface_hosts", lambda: hosts)
        near = Listeners(None, listen, advertise).nearby()
        return tuple(f"{host}:{near.told_port}" for host in near.ipv4)

    return told


@pytest.mark.parametrize("public", ["203.0.113.9:9000", "gate.example:9000", "[2001:db8::9]:0"])
def test_the_same_network_is_told_this_machine_s_addresses_whatever_a_router_forwards(told, public):
    assert told("0.0.0.0:7707", public) == ("192.0.2.1:7707",)
    assert told("192.0.2.1:7707", public) == ("192.0.2.1:7707",)


def test_an_own_address_that_somebody_has_chosen_is_the_one_that_is_told(told):
    assert told("0.0.0.0:7707", "192.0.2.1:9000") == ("192.0.2.1:9000",)
    assert told("0.0.0.0:7707", "192.0.2.1:9000", ("10.0.0.1", *HOME)) == ("192.0.2.1:9000",)


def test_what_only_a_tunnel_reaches_is_told_as_it_is_advertised(told):
    assert told("127.0.0.1:7707", "203.0.113.9:9000") == ("203.0.113.9:9000",)
    assert told("[2001:db8::1]:7707", "203.0.113.9:9000") == ("203.0.113.9:9000",)
    assert told("0.0.0.0:7707", "203.0.113.9:9000", ("127.0.0.1",)) == ("203.0.113.9:9000",)


def test_without_advertising_it_is_where_it_was_seen_to_be(told):
    assert told("0.0.0.0:7707", None) == ("192.0.2.1:7707",)


def test_interfaces_that_cannot_be_seen_change_nothing(monkeypatch):
    def busy() -> dict:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(psutil, "net_if_stats", busy)
    assert Listeners(None, "0.0.0.0:7707", "203.0.113.9:9000").nearby().ipv4 == ("203.0.113.9",)
