"""What we ship and how it reads: modules that say what they are for, and a wheel of just them."""

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (ROOT / "meshnode", ROOT / "cli" / "session_mesh")
LINES_MAX = 400
BUILD = "meshnode/node/build.txt"
MAPPED_MIN = 12  # modules of a package whose docstring is a map of them

_spec = importlib.util.spec_from_file_location("generate", ROOT / "proto" / "generate.py")
generate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generate)


def modules() -> list[Path]:
    found = [file for package in PACKAGES for file in package.rglob("*.py")]
    return [file for file in found if "v1" not in file.relative_to(ROOT).parts]


def test_every_module_and_package_says_what_it_is_for():
    assert len(modules()) > 100
    silent = [file for file in modules() if not ast.get_docstring(ast.parse(file.read_bytes()))]
    assert silent == []


def test_every_folder_of_code_is_a_package():
    folders = {file.parent for file in modules()}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_every_large_package_says_where_its_modules_are():
    large = [folder for folder in {file.parent for file in modules()} if _rooms(folder)]
    assert len(large) >= 10
    for folder in large:
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_bytes())) or ""
        named = re.findall(r"`(\w+)`", text[text.index("\n- ") :])
        assert sorted(named) == sorted(_rooms(folder)), folder


def _rooms(folder: Path) -> list[str]:
    """Return what is in a package that is too large for its names alone."""
    inner = [file.parent.name for file in folder.glob("*/__init__.py") if file.parent.name != "v1"]
    found = inner + [file.stem for file in folder.glob("*.py") if not file.stem.startswith("__")]
    is_named = (len(found) < MAPPED_MIN and not inner) or folder.name == "commands"
    return [] if is_named else found


def test_nothing_is_raised_within_except_star():
    # Before Python 3.11.4 (Debian 12 has 3.11.2) such an error arrives in a group after all.
    raised = [
        f"{module}:{inner.lineno}"
        for module in modules()
        for outer in ast.walk(ast.parse(module.read_text()))
        if isinstance(outer, ast.TryStar)
        for handler in outer.handlers
        for inner in ast.walk(handler)
        if isinstance(inner, ast.Raise)
    ]
    assert raised == []


def test_no_module_is_longer_than_one_can_read():
    others = [file for folder in ("tests", "bench") for file in (ROOT / folder).rglob("*.py")]
    assert len(others) > 100
    long = {
        str(file.relative_to(ROOT))
        for file in (*modules(), *others)
        if len(file.read_text().splitlines()) > LINES_MAX
    }
    assert long == set()


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    return [name for name in listed.stdout.decode().split("\0") if name]


def test_every_folder_at_the_top_is_on_the_map(tracked):
    map_ = (ROOT / "README.md").read_text().partition("## Map of the tree")[2]
    mapped = {path.partition("/")[0] for path in re.findall(r"`([a-z_{},/]+/)", map_)}
    assert {name.partition("/")[0] for name in tracked if name[0] != "." and "/" in name} == mapped


def test_no_tracked_file_knows_a_machine(tracked):
    here = "|".join(re.escape(f"{place}/") for place in (ROOT, Path.home()) if place != Path("/"))
    machine = re.compile(rf"{here}|/(?:home|Users)/[a-z]".encode())
    knowing = []
    for name in tracked:
        file = ROOT / name
        if file.is_file() and (found := machine.search(file.read_bytes())):
            knowing.append((name, found[0]))
    assert knowing == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of a copy of the tree: building it writes the generated code anew."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in ("meshnode", "cli", "proto", "tests", "docs", "examples"):
        ignored = shutil.ignore_patterns("__pycache__", "v1" if name == "meshnode" else "")
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    options = ("--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "wheel", *options, "-w", str(out), "."]
    built = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (made,) = out.iterdir()
    return made


@pytest.mark.timeout(180)
def test_the_wheel_holds_the_two_packages_and_nothing_else(wheel):
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.partition("/")[0] for name in names}
    (info,) = [top for top in tops if top.endswith(".dist-info")]
    assert tops == {"meshnode", "session_mesh", info}
    for package in PACKAGES:
        written = {
            str(file.relative_to(package.parent))
            for file in package.rglob("*")
            if file.is_file() and "__pycache__" not in file.parts and "v1" not in file.parts
        }
        shipped = {name for name in names if name.startswith(f"{package.name}/")}
        made = {name for name in shipped if name.startswith("meshnode/v1/") or name == BUILD}
        assert shipped - made == written
    assert "meshnode/py.typed" in names
    protos = (ROOT / "proto").rglob("*.proto")
    for module in (str(file.relative_to(ROOT / "proto").with_suffix("")) for file in protos):
        for ending in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi"):
            assert module + ending in names
    assert not [name for name in names if "test" in Path(name).name]


@pytest.mark.timeout(180)
def test_the_wheel_says_what_it_was_built_of(wheel, tmp_path):
    with ZipFile(wheel) as archive:
        build = archive.read(BUILD).decode().strip()
        archive.extractall(tmp_path)
    assert len(build) == generate.BUILD_CHARS
    asked = "from meshnode.node import version; print(version.BUILD, version.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", asked],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [build, str(tmp_path / "meshnode/node/version.py")]


def test_other_sources_are_another_build_and_what_is_compiled_is_not(tmp_path, monkeypatch):
    for name in ("meshnode/node/a.py", "cli/session_mesh/b.py", "proto/c.proto"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("")
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "PROTO", tmp_path / "proto")
    names = [generate.build_name()]
    for name in ("meshnode/v1/a_pb2.py", "meshnode/node/__pycache__/a.pyc"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("made")
        assert generate.build_name() == names[0]
    for name in ("meshnode/node/a.py", "cli/session_mesh/b.py", "proto/c.proto"):
        (tmp_path / name).write_text("other")
        names.append(generate.build_name())
    (tmp_path / "meshnode/node/a.py").rename(tmp_path / "meshnode/node/d.py")
    assert len({*names, generate.build_name()}) == 5


@pytest.mark.timeout(180)
def test_the_wheel_has_one_command(wheel):
    with ZipFile(wheel) as archive:
        (found,) = [name for name in archive.namelist() if name.endswith("/entry_points.txt")]
        entry_points = ConfigParser()
        entry_points.read_string(archive.read(found).decode())
    assert entry_points.sections() == ["console_scripts"]
    assert dict(entry_points["console_scripts"]) == {"session-mesh": "session_mesh.main:main"}


def test_a_node_without_http_imports_nothing_of_the_extra():
    loaded = (
        "import sys, meshnode.node.serving, meshnode.node.node, meshnode.node.fronting\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True, cwd=ROOT
    )
    extra = {"fastapi", "starlette", "uvicorn", "h11", "pydantic", "prometheus_client"}
    assert not extra & set(done.stdout.split())
    assert "grpc" in done.stdout.split()
