"""An invite that does not admit."""

import time
from datetime import datetime

import pytest
from e2e.bad_input.refusal import LOCAL, refused
from e2e.fleet import wait_until


def test_an_expired_invite_admits_nobody(anna, fleet):
    made = anna.json("invite", "--ttl", "1s")
    ends_s = datetime.fromisoformat(made["expires_at"]).timestamp()
    wait_until(lambda: time.time() > ends_s + 1, "the end of it")
    guest = fleet.node("guest")
    refused(guest, 5, ("expired", "ask for a new one"), "join", "-", stdin=made["invite"])
    guest.up(*LOCAL)  # what the attempt left behind is in nobody's way
    assert guest.json("status")["role"] == "admin"


def test_an_invite_for_one_is_not_used_by_two(anna, fleet):
    invite = anna.json("invite", "--node-only")["invite"]
    first, second = fleet.node("first"), fleet.node("second")
    assert first.call("join", "-", stdin=invite).code == 0
    refused(second, 5, ("used up", "ask for a new one"), "join", "-", stdin=invite)
    refused(first, 7, ("already a member", "session-mesh up"), "join", "-", stdin=invite)


def test_a_home_with_members_leaves_before_it_joins_another_mesh(fleet, anna):
    berta, carl = fleet.mesh("berta", "carl")
    invite = anna.json("invite")["invite"]
    refused(carl, 7, ("already runs", "session-mesh down"), "join", "-", stdin=invite)
    for node in (berta, carl):
        node.end()
        refused(node, 7, ("other members", "session-mesh leave"), "join", "-", stdin=invite)
        node.up()
        wait_until(lambda: set(berta.states().values()) == {"alive"})
    assert len(carl.states()) == len((berta, carl))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda invite: invite[:-1],
        lambda invite: invite[:20],
        lambda invite: invite[:60] + ("a" if invite[60] != "a" else "b") + invite[61:],
        lambda invite: invite[:-1] + ("a" if invite[-1] != "a" else "b"),
        lambda invite: invite[1:],
        lambda invite: invite + "A",
        lambda _: "smj1_",
        lambda _: "smj1_" + "A" * 100_000,
        lambda _: "hello",
        lambda _: "smj1_\x1b[31m\u00e9",
    ],
)
def test_a_damaged_invite_is_known_as_such(anna, fleet, spoil):
    text = spoil(anna.json("invite")["invite"])
    guest = fleet.node("guest")
    refused(guest, 2, ("not an invite", "copy the whole line"), "join", "-", stdin=text)
    assert not guest.home.exists()


@pytest.mark.parametrize("text", ["", "\n", "   \n\n"])
def test_no_invite_is_said_to_be_missing(fleet, text):
    guest = fleet.node("guest")
    refused(guest, 2, ("no invite", "SESSION_MESH_INVITE"), "join", "-", stdin=text)


def test_an_invite_whose_host_is_down_works_once_it_is_back(home, fleet):
    home.up(*LOCAL)
    invite = home.json("invite")["invite"]
    home.end()
    guest = fleet.node("guest")
    refused(guest, 6, ("does not answer", "--seed HOST:PORT"), "join", "-", stdin=invite)
    refused(guest, 2, ("nonsense",), "join", "-", "--seed", "nonsense", stdin=invite)
    home.up(*LOCAL)
    moved_to = home.ready["enrolment"]
    assert guest.call("join", "-", "--seed", moved_to, stdin=invite).code == 0


def test_an_invite_for_one_device_admits_no_other(anna, fleet):
    meant, other = fleet.node("meant"), fleet.node("other")
    key = meant.json("id")["public_key"]
    invite = anna.json("invite", "--for-key", key)["invite"]
    refused(other, 5, ("another device", "--for-key"), "join", "-", stdin=invite)
    assert meant.call("join", "-", stdin=invite).code == 0
    refused(anna, 2, ("public key", "session-mesh id"), "invite", "--for-key", "nonsense")


@pytest.mark.parametrize("flags", [("--ttl", "0"), ("--ttl", "90d"), ("--ttl", "for ever")])
def test_an_invite_lives_no_longer_than_it_may(anna, flags):
    refused(anna, 2, (), "invite", *flags)
