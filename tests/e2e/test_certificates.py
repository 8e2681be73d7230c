"""A member stays one: its certificate is renewed by itself, and one that has ended is explained."""

import pytest
from cryptography import x509
from e2e.clocks import clock_library_in, with_clock_off
from e2e.fleet import Fleet, Node, wait_until

DAY_S = 86400


def ends_at(node: Node) -> float:
    certificates = x509.load_pem_x509_certificates((node.home / "node.crt").read_bytes())
    return certificates[0].not_valid_after_utc.timestamp()


def certificate_check(node: Node) -> dict:
    checks = node.call("doctor", "-o", "json").json["checks"]
    return next(check for check in checks if check["id"] == "certificate")


def days_later(node: Node, days: int) -> None:
    node.extra["SM_TEST_CLOCK_OFFSET_S"] = str(days * DAY_S)


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
        listen = node.ready["listen"]
        node.flags = ("--listen", listen if isinstance(listen, str) else listen[0], "--no-mdns")
        node.end()
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
