"""What an idle node and a short command load: as little as they need, told by Python itself."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = str(Path(sys.executable).with_name("session-mesh"))
EXTRA = {"fastapi", "starlette", "uvicorn", "h11", "pydantic", "prometheus_client"}
OF_A_TERMINAL = {"typer", "rich", "session_mesh.dispatch", "session_mesh.output.render"}
OF_WHO_IS_ASKED = {  # by a user, by a file of theirs, or by a disk or a certificate that ends
    *("yaml", "psutil", "zoneinfo", "difflib", "statistics", "shutil", "platformdirs"),
    *("importlib.metadata", "email.message", "zipfile", "genai_prices", "watchfiles"),
    *(
        "meshnode.client.documents",
        "meshnode.node.configuration.config",
        "meshnode.node.homes.joining",
    ),
    *("meshnode.node.fronting", "meshnode.node.doctor.doctor", "meshnode.app.diagnosis.diagnosis"),
    *("meshnode.ingest.prices", "meshnode.ingest.follow", "meshnode.ingest.sources"),
    *("meshnode.ingest.claude", "meshnode.ingest.higress", "meshnode.gateway"),
}
OF_A_NODE = {
    *("cryptography", "msgpack", "sqlite3", "meshnode.node", "meshnode.rpc"),
    *("meshnode.store", "meshnode.app", "meshnode.core.keys", "meshnode.client.keys.authority"),
}
OF_OTHER_VERBS = {
    *("yaml", "psutil", "zoneinfo", "rich", "pydantic", "platformdirs"),
    *("importlib.metadata", "meshnode.client.connection.watching"),
    *("meshnode.v1.audit_service_pb2", "meshnode.v1.key_service_pb2"),
}
LINE = "import time:"  # of Python's -X importtime; a program that becomes another begins anew


def loaded_in(told: str) -> set[str]:
    lines = [line for line in told.splitlines() if line.startswith(LINE)]
    (*_, begun) = (place for place, line in enumerate(lines) if line.endswith("imported package"))
    return {line.rpartition("|")[2].strip() for line in lines[begun + 1 :]}


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What a node on loopback has loaded by its end, and `nodes` when it was asked."""
    home = tmp_path_factory.mktemp("home") / "h"
    kept = {name: text for name, text in os.environ.items() if not name.startswith("SESSION_")}
    told = kept | {"SESSION_MESH_HOME": str(home), "PYTHONPROFILEIMPORTTIME": "1"}
    up = [PROGRAM, "up", "--listen", "127.0.0.1:0", "--no-mdns", "-o", "json"]
    with subprocess.Popen(
        up, env=told, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as node:
        assert '"ready"' in node.stdout.readline()
        asked = subprocess.run(
            [PROGRAM, "nodes"], env=told, capture_output=True, text=True, check=True
        )
        node.send_signal(signal.SIGTERM)
        _, of_node = node.communicate()
    assert node.returncode == 0
    return loaded_in(of_node), loaded_in(asked.stderr)


def test_an_idle_node_loads_only_what_it_needs(seen):
    node, _ = seen
    assert {"grpc", "cryptography.x509", "meshnode.node.serving"} <= node
    assert (EXTRA | OF_A_TERMINAL | OF_WHO_IS_ASKED) & node == set()


def test_a_node_that_need_not_look_for_others_loads_no_mdns(seen):
    node, _ = seen
    assert {name for name in node if name.startswith(("zeroconf", "ifaddr"))} == set()


def test_a_short_command_loads_neither_a_node_nor_other_verbs(seen):
    _, verb = seen
    assert {"grpc", "typer", "meshnode.client.mesh"} <= verb
    assert (EXTRA | OF_A_NODE | OF_OTHER_VERBS) & verb == set()


def test_a_status_line_that_is_kept_loads_next_to_nothing(tmp_path):
    told = {"SESSION_MESH_HOME": str(tmp_path), "PYTHONPROFILEIMPORTTIME": "1"}
    tmp_path.chmod(0o700)
    loaded = []
    for _ in range(2):
        line = subprocess.run(
            [PROGRAM, "statusline"],
            env=os.environ | told,
            input="{}",
            capture_output=True,
            text=True,
            check=True,
        )
        loaded.append(loaded_in(line.stderr))
    asked, kept = loaded
    assert {"typer", "meshnode.node.ledger.glancing"} <= asked
    assert "grpc" not in asked
    slow = {"typer", "grpc", "dataclasses", "inspect", "pathlib", "sqlite3", "msgspec"}
    assert slow & kept == set()


def test_usage_without_a_node_loads_no_signatures(tmp_path):
    told = {"SESSION_MESH_HOME": str(tmp_path / "h"), "PYTHONPROFILEIMPORTTIME": "1"}
    words = ["usage", "--source", "claude", "--path", str(tmp_path)]
    done = subprocess.run(
        [PROGRAM, *words], env=os.environ | told, capture_output=True, text=True, check=True
    )
    loaded = loaded_in(done.stderr)
    assert "meshnode.node.ledger.usage" in loaded
    assert {"cryptography", "grpc", "zeroconf"} & loaded == set()
