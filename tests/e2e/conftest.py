"""Real nodes for end-to-end tests; each test gets a fleet of its own unless it only looks."""

import pytest
from e2e.fleet import Fleet
from e2e.hosts import HostedFleet, Hosts, obstacle
from e2e.web import door_of, gateways


@pytest.fixture
def fleet():
    fleet = Fleet()
    yield fleet
    fleet.close()


@pytest.fixture(scope="module")
def shared_fleet():
    fleet = Fleet()
    yield fleet
    fleet.close()


@pytest.fixture(scope="module")
def trio(shared_fleet):
    """Three nodes of one mesh, for tests that leave them as they were."""
    return shared_fleet.mesh("anna", "berta", "carl")


@pytest.fixture(scope="module")
def pair(shared_fleet):
    """Who is asked over HTTP, and who owns the agents; both have a front door."""
    return gateways(shared_fleet, "gate", "far")


@pytest.fixture(scope="module")
def door(pair):
    """The front door of who is asked, with a key for all that its operator may."""
    return door_of(pair[0])


@pytest.fixture
def hosted_fleet():
    """Nodes on hosts of their own; skipped, with the reason, where that is not permitted."""
    if reason := obstacle():
        pytest.skip(reason)
    with Hosts() as hosts:
        fleet = HostedFleet(hosts)
        yield fleet
        fleet.close()
