"""`config`: whether a configuration is right, what a node takes from it, what may stand in it."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from meshnode.client.documents import DOCUMENT_BYTES_MAX
from session_mesh.arguments.stdin import read_text
from session_mesh.call import Call
from session_mesh.output.render import View
from session_mesh.output.tables import Table
from session_mesh.verbs import new_app, verb

app = new_app(help="Check a configuration, and show what a node takes from it.")
File = Annotated[
    str, typer.Argument(metavar="FILE|-", help="Else config.yaml in the home.", show_default=False)
]


@app.callback()
def config() -> None:
    """Check a configuration, and show what a node takes from it."""


@verb(
    "session-mesh config check",
    "session-mesh config check new.yaml && session-mesh load-config new.yaml",
    app=app,
)
def check(call: Call, file: File = "") -> View:
    """Check a configuration without starting or changing anything.

    What is misspelt or impossible is exit 2, with its line. What this version leaves aside, and
    what is off with the price file that it names, is a warning.
    """
    from meshnode.node.configuration import configuring  # noqa: PLC0415 - the composition root is large

    if file == "-":
        given = read_text(DOCUMENT_BYTES_MAX + 1, "the configuration").encode()
        value = configuring.checked(call.home, Path("stdin"), given)
    else:
        value = configuring.checked(call.home, Path(file) if file else None)
    count = len(value["warnings"])
    said = "is right" if not count else f"is right, with {count} warning{'s' if count > 1 else ''}"
    return View(
        value={**value, "ok": True},
        human=f"{value['file']} {said}",
        ids=[value["file"]],
        notes=[f"warning: {warning}" for warning in value["warnings"]],
    )


@verb(
    "session-mesh config show",
    "session-mesh config show new.yaml -o json",
    "session-mesh config show -o yaml > new.yaml",
    app=app,
)
def show(
    call: Call,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Else config.yaml in the home.")
    ] = None,
) -> View:
    """Show what a node takes from a configuration, with all defaults.

    As YAML or JSON it is a configuration itself. Flags of `up` come on top.
    """
    from meshnode.node.configuration import configuring  # noqa: PLC0415 - as above

    value = configuring.shown(call.home, file)
    given = value["given"]
    name = Path(value["file"]).name if value["file"] else ""
    rows = [
        (key, _words(said), name if key in given else "default")
        for key, said in value["config"].items()
    ]
    notes = [f"warning: {warning}" for warning in value["warnings"]]
    if value["file"] is None:
        notes.append(f"{call.home.config} is missing: these are the defaults")
    return View(
        value=value["config"],
        human=Table(("KEY", "VALUE", "FROM"), rows, flexible=("VALUE",)),
        ids=list(value["config"]),
        notes=notes,
    )


@verb(
    "session-mesh config schema > session-mesh.schema.json",
    "session-mesh config schema -o yaml",
    app=app,
)
def schema(call: Call) -> View:  # noqa: ARG001 - every verb is handed one
    """Print the JSON Schema of a configuration, for editors."""
    from meshnode.node.configuration import config_schema  # noqa: PLC0415 - as above

    value = config_schema.schema()
    lines = json.dumps(value, indent=2).splitlines()
    return View(value=value, human=tuple(lines), ids=list(value["properties"]))


def _words(said: Any) -> str:  # noqa: ANN401 - any value of a document
    if said is None or said in ([], {}):
        return "–"  # noqa: RUF001 - the mark for nothing
    return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
