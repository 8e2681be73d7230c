"""The process of a detached node: options come as JSON on stdin, one answer goes to stdout.

Started by `main.up_detached` only: the answer is the ready event, or the error that stopped it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from meshnode.core.errors import MeshError, fields_of
from meshnode.node.configuration.options import told_from
from meshnode.node.loading import no_collection


def main() -> int:
    """Read options, serve, answer once."""
    home, options = told_from(sys.stdin.read())
    if os.fork():
        os._exit(0)  # a node is nobody's child: `run` becomes a supervisor, which ends its own
    with no_collection():
        from meshnode.node.serving import serve  # noqa: PLC0415 - the whole node
    try:
        return serve(home, options, _answer, on_terminal=False)
    except MeshError as error:
        _answer({"error": fields_of(error)})
        return error.exit_code


def _answer(value: dict[str, Any]) -> None:
    line = json.dumps(value).encode() + b"\n"
    try:
        os.write(1, line)
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 1)  # whoever started us waits for the end of this pipe no longer
    except BrokenPipeError:
        pass  # the one who started us has gone; the node stays


if __name__ == "__main__":
    sys.exit(main())
