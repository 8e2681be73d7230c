"""The client and the service that it reaches over a real Unix socket."""

import pytest
from integration.client.service import CHANCE, NOW_S, served, short_home

from meshnode.client.mesh import MeshClient


@pytest.fixture
def home():
    with short_home() as home:
        yield home


@pytest.fixture
def service(home):
    with served(home) as service:
        yield service


@pytest.fixture
def environment() -> dict[str, str]:
    return {}


@pytest.fixture
def mesh(home, service, environment):
    with MeshClient(home, environment=environment, now=lambda: NOW_S, chance=CHANCE) as mesh:
        yield mesh
