"""The client and the service that it reaches over a real Unix socket."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import grpc
import pytest
from integration.client.service import (
    CHANCE,
    NOW_S,
    Service,
)

from meshnode.client.home import Home, make_private
from meshnode.client.keyfiles import write_secret
from meshnode.client.mesh import MeshClient
from meshnode.core.control import ControlSet
from meshnode.core.entries import role_entry
from meshnode.core.genesis import Genesis
from meshnode.core.keys import Key
from meshnode.core.roles import Role
from meshnode.v1.local_service_pb2_grpc import (
    add_LocalServiceServicer_to_server,
)


@pytest.fixture
def home():
    with TemporaryDirectory() as short:  # a socket's path has 108 bytes; tmp_path takes most
        home = Home(Path(short) / "100% #ü?")
        make_private(home.path)
        make_private(home.run)
        assert home.run.parent == home.path
        yield home


@pytest.fixture
def service(home):
    root, operator = Key.new(CHANCE), Key.new(CHANCE)
    genesis = Genesis((root.public,), 1, "test", CHANCE(16))
    home.genesis.write_bytes(genesis.to_bytes())
    write_secret(home.operator_key, operator.seed)
    write_secret(home.session_root, CHANCE(32))
    control = ControlSet(genesis)
    role = Role(operator.public, "operator", "me", root.public, int(NOW_S), None)
    control.add(role_entry(root, genesis.mesh_id, role, CHANCE), 0.0)
    service = Service(home, control, genesis.mesh_id)
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        add_LocalServiceServicer_to_server(service, server)
        server.add_insecure_port(_address(home))
        server.start()
        yield service
        server.stop(0).wait()


def _address(home: Home) -> str:
    return "unix:" + quote(str(home.socket))


@pytest.fixture
def environment() -> dict[str, str]:
    return {}


@pytest.fixture
def mesh(home, service, environment):
    with MeshClient(home, environment=environment, now=lambda: NOW_S, chance=CHANCE) as mesh:
        yield mesh
