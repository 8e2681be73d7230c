"""The very `main` that a shell calls, in front of a mesh that only remembers."""

import io
import sys

import pytest
from unit.cli.doubles import NOW_S, Mesh

from session_mesh import call
from session_mesh.call import Call
from session_mesh.main import main
from session_mesh.output.render import Streams


@pytest.fixture
def mesh(monkeypatch) -> Mesh:
    fake = Mesh()
    monkeypatch.setattr(Call, "mesh", lambda _: fake)
    monkeypatch.setattr(call, "wall_s", lambda: NOW_S)
    return fake


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("SESSION_MESH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SESSION_MESH_INVITE", raising=False)

    def run(*words, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        streams = Streams(io.StringIO(), io.StringIO())
        code = main(words, streams)
        return code, streams.out.getvalue(), streams.err.getvalue()

    return run
