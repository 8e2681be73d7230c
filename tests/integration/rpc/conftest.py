import pytest
from integration.rpc.fleet import Founded


@pytest.fixture(scope="session")
def mesh() -> Founded:
    return Founded(1)


@pytest.fixture(scope="session")
def foreign() -> Founded:
    return Founded(2)
