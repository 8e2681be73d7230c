"""`receipt`: what a node has signed about a command, checked without asking anybody."""

from pathlib import Path
from typing import Annotated, Any

import typer

from meshnode.client.errors import NotFoundError, UsageError
from session_mesh.arguments.stdin import read_text
from session_mesh.call import Call
from session_mesh.output.escaping import escape
from session_mesh.output.render import View
from session_mesh.verbs import new_app, verb

app = new_app(help="Check what a node has signed about a command.")
NOT_GENUINE = 1


@app.callback()
def receipt() -> None:
    """Check what a node has signed about a command."""


@verb(
    "session-mesh steer builder hello -o json | session-mesh receipt verify -",
    "session-mesh receipt verify receipt.txt -o json",
    "session-mesh receipt verify receipt.txt --command command.bin",
    app=app,
)
def verify(
    call: Call,
    given: Annotated[str, typer.Argument(metavar="FILE|-", help="The receipt, or an answer.")],
    command: Annotated[
        str, typer.Option("--command", metavar="FILE", help="The command that it shall answer.")
    ] = "",
) -> View:
    """Verify a receipt offline.

    Says which node signed what about which command. With a home it also says whether that node is,
    or was, a member of its mesh; a receipt of a stranger is exit 1, as a forged one is.
    """
    from meshnode.client.commands import receipts  # noqa: PLC0415 - cryptography is slow to import

    said = receipts.receipt_in(_read(given, receipts.TEXT_BYTES_MAX))
    if command:
        receipts.check_answers(said, _read(command, receipts.TEXT_BYTES_MAX))
    value = receipts.described(said, *_known(call, said.node))
    value["answers_command"] = bool(command) or None
    stranger = value["is_member"] is False
    return View(
        value=value,
        human=_words(value),
        ids=[value["command_id"]],
        notes=["this home does not know that node as a member"] if stranger else [],
        exit_code=NOT_GENUINE if stranger else 0,
    )


def _read(given: str, bytes_max: int) -> bytes:
    if given == "-":
        return read_text(bytes_max + 1, "the receipt or the answer").encode()
    try:
        with Path(given).open("rb") as file:
            return file.read(bytes_max + 1)
    except FileNotFoundError:
        raise NotFoundError(f"{given[:200]} is missing") from None
    except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
        why = (getattr(error, "strerror", None) or str(error)).lower()
        raise UsageError(f"cannot read {given[:200]!r}: {why}") from error


def _known(call: Call, node_id: str) -> tuple[str | None, str | None]:
    """Return the mesh of this home, None without one, and the node's name if it knows a member."""
    if not call.home.initialised:
        return None, None
    from meshnode.client.keys.authority import mesh_id_of  # noqa: PLC0415 - as above

    said = call.read(lambda mesh: {"name": mesh.member_name(node_id)})
    return mesh_id_of(call.home), said["name"]


def _words(value: dict[str, Any]) -> tuple[str, ...]:
    member = {True: "is, or was, a member", False: "not a member", None: "membership not known"}
    detail = f" ({value['detail']})" if value["detail"] else ""
    name = f"{value['node_name']} " if value["node_name"] else ""
    lines = {
        "outcome": f"{value['outcome']}{detail}",
        "at": value["at"],
        "command": value["command_id"],
        "session": escape(value["session_id"] or "-"),
        "node": f"{name}{value['node_id']} ({member[value['is_member']]})",
        "mesh": escape(value["mesh_id"]),
    }
    return ("the signature is good", *(f"{k:<9}{v}" for k, v in lines.items()))
