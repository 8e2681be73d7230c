"""Plain values are taken as they are, and mean what typer makes of them."""

import subprocess
import sys
from typing import Annotated, Literal

import pytest
import typer
from typer.core import TyperCommand
from typer.exceptions import TyperException

from session_mesh.arguments.plain import PlainCommand

NOT_UTF8 = "caf\udce9"
GIVEN = (
    [],
    ["--text", "a", "--many", "b", "--many", "c", "--word", "yes", "--flag", "--number", "5"],
    ["--text", "", "--number", "-3", "--rate", "0.5", "one", "two"],
    ["--text", "Grüße", "--many", "Grüße", "Grüße"],
    ["--text", NOT_UTF8],
    ["--many", NOT_UTF8],
    ["--word", "maybe"],
    ["--word", "YES"],
    ["--number", "many"],
    ["--number", "11"],
    ["--rate", "nan"],
)


def outcome(kind: type[TyperCommand], words: list[str]) -> object:
    app = typer.Typer(add_completion=False)
    seen = []

    @app.command(cls=kind)
    def command(
        rest: Annotated[list[str] | None, typer.Argument()] = None,
        text: Annotated[str | None, typer.Option("--text")] = None,
        many: Annotated[list[str] | None, typer.Option("--many")] = None,
        word: Annotated[Literal["yes", "no"], typer.Option("--word")] = "no",
        flag: Annotated[bool, typer.Option("--flag")] = False,
        number: Annotated[int, typer.Option("--number", max=10)] = 7,
        rate: Annotated[float | None, typer.Option("--rate")] = None,
    ) -> None:
        seen.append((rest, text, many, word, flag, number, repr(rate)))

    try:
        typer.main.get_command(app).main(words, standalone_mode=False)
    except TyperException as error:
        return error.format_message()
    return seen


@pytest.mark.parametrize("words", GIVEN, ids=repr)
def test_a_value_means_what_it_meant_to_typer(words):
    assert outcome(PlainCommand, words) == outcome(TyperCommand, words)


@pytest.mark.parametrize("words", ["list", "kill x --yes", "steer x hello -o json", "nodes --help"])
def test_a_short_command_loads_no_validator(words, tmp_path):
    program = (
        "import sys; from session_mesh.main import main; main(sys.argv[1:]);"
        " sys.exit('pydantic' in sys.modules)"
    )
    home = {"SESSION_MESH_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", program, *words.split()], env=home, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
