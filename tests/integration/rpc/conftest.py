"""Two meshes in memory, and links of one of them."""

from contextlib import AsyncExitStack

import pytest
from integration.rpc.fleet import Founded
from integration.rpc.stations import Station, station


@pytest.fixture(scope="session")
def mesh() -> Founded:
    return Founded(1)


@pytest.fixture(scope="session")
def foreign() -> Founded:
    return Founded(2)


@pytest.fixture
async def stations(mesh):
    """Yield a function that starts stations, the lower node id first."""
    async with AsyncExitStack() as stack:

        async def start(count: int) -> list[Station]:
            members = sorted((mesh.node() for _ in range(count)), key=lambda one: one.node_id)
            return [await stack.enter_async_context(station(mesh, one)) for one in members]

        yield start


@pytest.fixture
async def pair(stations):
    """Two nodes without a link: anna has the lower node id."""
    return await stations(2)
