import subprocess
import sys
from pathlib import Path

import pytest

import meshnode
from meshnode.agents.environment import agent_environment

OPENED = {"session_id": "s1", "agent_id": "a1", "node_id": "n1", "ticket": "t1"}
SECRETS = (
    "SESSION_API_KEY",
    "SESSION_API_KEY_FILE",
    "SESSION_MESH_INVITE",
    "SESSION_MESH_HOME",
    "SESSION_MESH_ROOT_PASSPHRASE",
    "SESSION_MESH_TICKET_OF_TOMORROW",
)


def environment_of(**base):
    return agent_environment(base, OPENED, "/run/mesh.sock")


def test_an_agent_learns_its_own_names_and_keeps_its_callers_environment():
    assert environment_of(PATH="/bin", SESSION_MANAGER="local/x") == {
        "PATH": "/bin",
        "SESSION_MANAGER": "local/x",
        "SESSION_MESH_SESSION_ID": "s1",
        "SESSION_MESH_AGENT_ID": "a1",
        "SESSION_MESH_NODE_ID": "n1",
        "SESSION_MESH_TICKET": "t1",
        "SESSION_MESH_SOCKET": "/run/mesh.sock",
    }


@pytest.mark.parametrize("name", SECRETS)
def test_an_agent_inherits_no_key_invite_passphrase_or_home(name):
    assert environment_of(**{name: "x"}) == environment_of()


@pytest.mark.parametrize("mark", ["smk1_", "smj1_", "smt1_"])
def test_a_secret_under_another_name_is_withheld_too(mark):
    hidden = environment_of(A=f"{mark}abc", B=f"Authorization: Bearer {mark}abc")
    assert hidden == environment_of()


@pytest.mark.parametrize("name", ["SESSION_ID", "AGENT_ID", "NODE_ID", "TICKET", "SOCKET"])
def test_the_names_of_an_outer_session_are_replaced_by_ones_own(name):
    assert environment_of(**{f"SESSION_MESH_{name}": "outer"}) == environment_of()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, None),
        ({"LC_CTYPE": "C.UTF-8"}, "C.UTF-8"),
        ({"LC_CTYPE": "C"}, "C"),
        ({"LANG": "C"}, None),
    ],
    ids=["none", "its own", "replaced", "another"],
)
def test_a_locale_is_its_callers_and_not_what_python_makes_of_none(given, kept):
    code = (
        "import os\nfrom meshnode.agents.environment import uncoerced\n"
        "from meshnode.client.dumping import forbid_dumps\n"
        "forbid_dumps()\nprint(uncoerced(os.environ).get('LC_CTYPE'))\n"
    )
    assert said_by(code, **given) == str(kept)


def said_by(code, **given):
    environment = {"PYTHONPATH": str(Path(meshnode.__file__).parents[1]), **given}
    return subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).strip()


@pytest.mark.parametrize("name", ["агентызапуск", "a b) R 1 2 (c"])
def test_a_locale_is_found_behind_whatever_name_its_process_has(name):
    code = (
        "import ctypes, os\nfrom meshnode.agents.environment import uncoerced\n"
        f"ctypes.CDLL(None).prctl(15, {name.encode()!r})\n"  # PR_SET_NAME: of 15 bytes at most
        "print(uncoerced(os.environ).get('LC_CTYPE'))\n"
    )
    assert said_by(code, LC_CTYPE="C") == "C"
