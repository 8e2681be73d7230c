"""Whatever is wrong with what a node is given, it says so in a sentence, and loses nothing.

Each case asks for the exit code of the contract, for words that name the fault, and for nothing
else on stderr: no traceback, and nothing that a library has to say.
"""

import pytest
from e2e.bad_input.refusal import LOCAL


@pytest.fixture(autouse=True)
def orderly(fleet, shared_fleet):
    """No node may end a test with a traceback or a background task that failed."""
    yield
    for node in (*fleet.nodes, *shared_fleet.nodes):
        for file in (node.home.parent / f"{node.name}.err", node.home / "node.log"):
            said = file.read_text() if file.is_file() else ""
            assert "Traceback" not in said, said
            assert "ssl_transport_security" not in said, said


@pytest.fixture
def home(fleet):
    """A mesh of one whose node does not run."""
    node = fleet.node("anna")
    node.json("init", "--mesh", "one", "--name", "anna")
    return node


@pytest.fixture(scope="module")
def anna(shared_fleet):
    """A running mesh of one that tests leave as it was."""
    anna = shared_fleet.node("anna")
    anna.json("init", "--mesh", "one", "--name", "anna")
    anna.up(*LOCAL)
    return anna


@pytest.fixture(scope="module")
def stopped(shared_fleet):
    """A mesh of one whose node does not run, for tests that leave it as it was."""
    node = shared_fleet.node("stopped")
    node.json("init", "--name", "stopped")
    return node
