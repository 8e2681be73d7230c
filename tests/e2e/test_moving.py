"""Machines whose addresses change while their nodes run: real interfaces, real mDNS, no seeds."""

from __future__ import annotations

import socket

import pytest
from e2e.fleet import wait_until
from e2e.hosts import PORT, HostedNode, Hosts

EVERYWHERE = f"0.0.0.0:{PORT}"


def move(hosts: Hosts, node: HostedNode, *addresses: str) -> None:
    """Take all addresses from a host's interface, and give it others."""
    hosts.run(node.host, "ip", "-4", "address", "flush", "dev", "eth0")
    for address in addresses:
        hosts.run(node.host, "ip", "address", "add", f"{address}/24", "dev", "eth0")
        hosts.run(node.host, "ip", "route", "replace", "224.0.0.0/4", "dev", "eth0")


def where(node: HostedNode) -> dict[str, tuple[str, list[str]]]:
    """Return what a node shows of all: by name the state, and the addresses."""
    with node.client() as mesh:
        listed = mesh.nodes()["nodes"]
    return {one["name"]: (one["state"], one["addresses"]) for one in listed}


def at(*hosts: str) -> tuple[str, list[str]]:
    return ("alive", [f"{host}:{PORT}" for host in hosts])


@pytest.fixture
def both(hosted_fleet):
    """Two nodes of a mesh that find each other by mDNS alone."""
    anna, berta = (hosted_fleet.node(name) for name in ("anna", "berta"))
    anna.json("init", "--name", "anna")
    anna.up("--listen", EVERYWHERE)
    hosted_fleet.join(anna, berta)
    return anna, berta


@pytest.mark.timeout(180)
def test_two_nodes_that_both_moved_find_each_other_again(hosted_fleet, both):
    anna, berta = both
    berta.up("--listen", EVERYWHERE)
    old = {"anna": at(anna.host.address), "berta": at(berta.host.address)}
    for node in both:
        wait_until(lambda node=node: where(node) == old, node.name)
    move(hosted_fleet.hosts, anna, "10.99.0.1")
    move(hosted_fleet.hosts, berta, "10.99.0.2")
    moved = {"anna": at("10.99.0.1"), "berta": at("10.99.0.2")}
    for node in both:
        wait_until(lambda node=node: where(node) == moved, node.name)
    assert anna.json("invite")["addresses"] == [f"10.99.0.1:{PORT + 1}"]
    assert "Traceback" not in anna.stderr + berta.stderr


@pytest.mark.timeout(180)
def test_a_node_that_was_started_before_the_network_is_found_once_there_is_one(hosted_fleet, both):
    anna, berta = both
    move(hosted_fleet.hosts, berta)
    berta.up("--listen", EVERYWHERE)
    assert where(berta)["berta"] == at("127.0.0.1")
    move(hosted_fleet.hosts, berta, berta.host.address)
    here = {"anna": at(anna.host.address), "berta": at(berta.host.address)}
    for node in both:
        wait_until(lambda node=node: where(node) == here, node.name)


@pytest.mark.timeout(180)
def test_nodes_of_one_network_find_each_other_whatever_their_routers_forward(hosted_fleet, both):
    both[0].end()
    for number, node in enumerate(both, 1):
        move(hosted_fleet.hosts, node, f"10.99.0.{number}")  # not where anna was when berta joined
        node.up("--listen", EVERYWHERE, "--advertise", f"203.0.113.{number}:9000")
    told = {name: ("alive", [f"203.0.113.{n}:9000"]) for n, name in enumerate(("anna", "berta"), 1)}
    for node in both:
        wait_until(lambda node=node: where(node) == told, node.name)


@pytest.mark.timeout(180)
@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6 here")
@pytest.mark.parametrize("everywhere", ["0.0.0.0", "[::]"])
def test_a_machine_without_ipv4_is_found_at_what_it_has(hosted_fleet, everywhere):
    anna = hosted_fleet.node("anna")
    hosted_fleet.hosts.run(anna.host, "ip", "-4", "address", "flush", "dev", "lo")
    hosted_fleet.hosts.run(anna.host, "ip", "-4", "address", "flush", "dev", "eth0")
    anna.json("init", "--name", "anna")
    anna.up("--listen", f"{everywhere}:{PORT}", "--no-mdns")
    assert where(anna)["anna"] == at("[::1]")
    assert anna.json("invite")["addresses"] == [f"[::1]:{PORT + 1}"]
    checks = {one["id"]: one["ok"] for one in anna.json("doctor")["checks"]}
    assert (checks["listening"], checks["joiners_port"]) == (True, True)
