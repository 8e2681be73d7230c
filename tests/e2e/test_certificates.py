"""A member stays one: its certificate is renewed by itself, and one that has ended is explained."""

import json
import time
from random import Random

import pytest
from cryptography import x509
from e2e.clocks import clock_library_in, with_clock_off
from e2e.fleet import Fleet, Node, wait_until

from meshnode.client.home import Home
from meshnode.core.ids import node_id_of
from meshnode.core.membership.certificates import from_pem, issue_node_ca, to_pem
from meshnode.node.homes.founding import device_key

DAY_S = 86400


def ends_at(node: Node) -> float:
    certificates = x509.load_pem_x509_certificates((node.home / "node.crt").read_bytes())
    return certificates[0].not_valid_after_utc.timestamp()


def certificate_check(node: Node) -> dict:
    checks = node.call("doctor", "-o", "json").json["checks"]
    return next(check for check in checks if check["id"] == "certificate")


def days_later(node: Node, days: int) -> None:
    node.extra["SM_TEST_CLOCK_OFFSET_S"] = str(days * DAY_S)


def end_where_it_listens(node: Node) -> None:
    """Stop a node that will be found at the same address when it is up again."""
    listen = node.ready["listen"]
    node.flags = ("--listen", listen if isinstance(listen, str) else listen[0], "--no-mdns")
    node.end()


def pair_with_clocks(fleet: Fleet) -> tuple[Node, Node]:
    """Return two of one mesh whose clocks a test may set; the second has joined and is not up."""
    library = clock_library_in(fleet.directory)
    anna, berta = (with_clock_off(fleet, name, library, 0) for name in ("anna", "berta"))
    anna.json("init", "--mesh", "test", "--name", "anna")
    anna.up("--listen", "127.0.0.1:0", "--no-mdns")
    fleet.join(anna, berta, "--node-only")
    return anna, berta


@pytest.mark.timeout(240)
def test_certificates_are_renewed_past_half_of_their_life_and_one_that_ended_is_made_good(fleet):
    anna, berta = pair_with_clocks(fleet)
    berta.up("--listen", "127.0.0.1:0", "--no-mdns")
    node_id = berta.ready["node_id"]
    before = {node.name: ends_at(node) for node in (anna, berta)}
    wait_until(lambda: berta.states() == {"anna": "alive", "berta": "alive"})
    for node in (anna, berta):
        end_where_it_listens(node)
        assert ends_at(node) == before[node.name], "nothing is due in the first year"

    for node in (anna, berta):
        days_later(node, 400)
        assert "due" in certificate_check(node)["detail"]
        node.up()
        wait_until(lambda node=node: ends_at(node) > before[node.name] + 390 * DAY_S, node.name)
        assert certificate_check(node)["ok"]
        assert "due" not in certificate_check(node)["detail"]
    wait_until(lambda: berta.states() == {"anna": "alive", "berta": "alive"})
    berta.end()
    anna.end()

    days_later(berta, 1200)
    check = certificate_check(berta)
    assert (check["ok"], "expired" in check["detail"]) == (False, True)
    assert "session-mesh join" in check["fix"]
    days_later(anna, 1200)
    anna.up()
    fleet.join(anna, berta, "--node-only")
    berta.up()
    assert berta.ready["node_id"] == node_id
    wait_until(lambda: anna.states() == {"anna": "alive", "berta": "alive"})
    assert certificate_check(berta)["ok"]


def test_a_machine_whose_clock_is_years_late_comes_up_and_is_let_in_once_it_is_right(fleet):
    """One without a clock of its own begins in 1970, before it has asked for the time."""
    _, berta = pair_with_clocks(fleet)
    days_later(berta, -20_000)
    berta.up("--listen", "127.0.0.1:0", "--no-mdns")
    assert berta.states()["berta"] == "alive"
    berta.end()
    days_later(berta, 0)
    berta.up()
    wait_until(lambda: berta.states() == {"anna": "alive", "berta": "alive"})


@pytest.mark.timeout(240)
def test_a_clock_that_was_ahead_at_one_start_cuts_an_admitter_off_from_nobody(fleet):
    anna, berta = pair_with_clocks(fleet)
    berta.up("--listen", "127.0.0.1:0", "--no-mdns")
    end_where_it_listens(anna)
    before = ends_at(anna)
    days_later(anna, 500)
    anna.up()
    assert ends_at(anna) > before + 490 * DAY_S, "it has issued itself one by that clock"
    anna.end()

    days_later(anna, 0)
    assert certificate_check(anna)["ok"], "it counts by the right clock, too"
    anna.up()
    wait_until(lambda: berta.states() == {"anna": "alive", "berta": "alive"})
    wait_until(lambda: anna.states() == {"anna": "alive", "berta": "alive"})
    assert certificate_check(anna)["ok"]


@pytest.mark.timeout(240)
def test_an_admitter_with_a_certificate_that_begins_later_issues_itself_one_at_its_start(fleet):
    """As versions before this one have left it, after a clock that was ahead."""
    anna, berta = pair_with_clocks(fleet)
    berta.up("--listen", "127.0.0.1:0", "--no-mdns")
    end_where_it_listens(anna)
    key = device_key(Home(anna.home))
    (_, admitter) = from_pem((anna.home / "node.crt").read_bytes())
    later_s = time.time() + 500 * DAY_S
    early = issue_node_ca(key, node_id_of(key.public), later_s, Random(1).randbytes)
    (anna.home / "node.crt").write_bytes(to_pem((early, admitter)))
    check = certificate_check(anna)
    assert (check["ok"], "its issuer's was ahead" in check["detail"]) == (False, True)
    assert "start the node again" in check["fix"]

    anna.up()
    wait_until(lambda: berta.states() == {"anna": "alive", "berta": "alive"})
    assert certificate_check(anna)["ok"]


@pytest.mark.timeout(240)
def test_a_member_keeps_its_certificate_where_the_admitters_clock_is_ahead(fleet):
    anna, berta = pair_with_clocks(fleet)
    berta.up("--listen", "127.0.0.1:0", "--no-mdns")
    before = ends_at(berta)
    wait_until(lambda: berta.states() == {"anna": "alive", "berta": "alive"})
    for node in (anna, berta):
        end_where_it_listens(node)
    days_later(anna, 405)
    days_later(berta, 400)
    anna.up()
    berta.up()
    log = berta.home / "node.log"
    wait_until(lambda: "does not count now" in log.read_text())
    assert ends_at(berta) == before
    wait_until(lambda: berta.states() == {"anna": "alive", "berta": "alive"})

    anna.end()
    days_later(anna, 400)
    anna.up()
    wait_until(lambda: ends_at(berta) > before + 390 * DAY_S)
    assert certificate_check(berta)["ok"]


@pytest.mark.timeout(240)
def test_a_member_that_can_dial_no_admitter_is_renewed_over_the_links_of_others(fleet):
    anna, berta = pair_with_clocks(fleet)
    berta.up("--listen", "127.0.0.1:0", "--no-mdns")
    before = ends_at(berta)
    for node in (anna, berta):
        end_where_it_listens(node)
        days_later(node, 400)
    # As behind a firewall: anna dials berta, and nobody can dial anna.
    anna.flags = ("--listen", "127.0.0.1:0", "--advertise", "127.0.0.1:9", "--no-mdns")
    (anna.home / "config.yaml").write_text(f"seeds: [{json.dumps(berta.flags[1])}]\n")
    berta.up()
    wait_until(lambda: "was not renewed" in (berta.home / "node.log").read_text())
    assert ends_at(berta) == before
    anna.up()
    wait_until(lambda: berta.states() == {"anna": "alive", "berta": "alive"})
    wait_until(lambda: ends_at(berta) > before + 390 * DAY_S)
    assert certificate_check(berta)["ok"]
