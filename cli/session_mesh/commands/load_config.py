"""`load-config`: take a configuration file over into this home."""

from pathlib import Path
from typing import Annotated

import typer

from meshnode.client import selections
from meshnode.client.documents import DOCUMENT_BYTES_MAX, parse_document, read_bytes
from meshnode.client.errors import UsageError
from session_mesh.arguments.stdin import read_text
from session_mesh.call import Call
from session_mesh.output.render import View
from session_mesh.output.words import several
from session_mesh.verbs import verb


@verb(
    "session-mesh load-config config.yaml",
    "session-mesh load-config path/to/config.yaml -o json",
    "session-mesh load-config - < config.yaml",
)
def app(
    call: Call,
    file: Annotated[Path, typer.Argument(metavar="FILE|-", help="YAML; - reads stdin.")],
) -> View:
    """Take a configuration file over into this home.

    `sessions: [{id: 123}, {filter: alive}]` and `spec: S` become what `list` shows unless it is
    told otherwise; an empty list ends that. All else configures the node from its next start.
    """
    from meshnode.node.configuration import configuring  # noqa: PLC0415 - the composition root is large

    is_stdin = str(file) == "-"
    text = (
        read_text(DOCUMENT_BYTES_MAX + 1, "the configuration").encode()
        if is_stdin
        else read_bytes(file)
    )
    source = Path("stdin") if is_stdin else file
    document = parse_document(text, source.name)
    entries = document.map("the configuration")
    if not entries:
        raise UsageError(f"{source.name} says nothing", "sessions: [{filter: alive}], for one")
    for warning in configuring.checked(call.home, source, text)["warnings"]:
        call.streams.tell(f"warning: {warning}")
    chosen = selections.chosen_in(entries)
    of_node = sorted(key for key, one in entries.items() if not selections.is_of_list(key, one))
    if of_node:
        selections.install(call.home, text)
    if chosen is not None:
        selections.keep(call.home, text)
    said = []
    if of_node:
        said.append(f"{', '.join(of_node)}: in {call.home.config}, from the node's next start")
        said.append("what was there is in config.yaml.old, if there was anything")
    if chosen is not None:
        entries_said = several(len(chosen), "entry selects", "entries select")
        only = f"list shows only what {entries_said} from now on; --filter all shows the rest"
        said.append(only if chosen else "list shows all from now on: no entry selects")
    value = {
        "config": str(call.home.config) if of_node else None,
        "selection": None if chosen is None else len(chosen),
    }
    return View(value=value, human=tuple(said))
