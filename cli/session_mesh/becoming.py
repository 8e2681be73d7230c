"""`up` in the foreground: the command line gives way to the node.

A node runs for months; what it takes to parse a command line (8 MiB of it) shall not stay with it.
So `up` replaces its own process, keeping pid, terminal and standard streams.
"""

import os
import sys
from typing import NoReturn

from meshnode.client.errors import MeshError
from meshnode.node.main import up, without_secrets
from meshnode.node.options import told_from


def become_node(told: str) -> NoReturn:
    """Replace this process with a node that was told this."""
    sys.stdout.flush()
    sys.stderr.flush()
    argv = [sys.executable, "-P", "-m", "session_mesh.becoming", told]
    os.execve(argv[0], argv, without_secrets(os.environ))  # noqa: S606 - our own interpreter and module


def main() -> int:
    """Be the node; returns its exit code."""
    home, options = told_from(sys.argv[1])
    try:
        return up(home, options)
    except MeshError as error:
        from session_mesh.render import (  # noqa: PLC0415 - a node that runs renders nothing
            Failure,
            Streams,
            Style,
            render_failure,
        )

        failure = Failure(error.code, error.message, error.hint, error.exit_code)
        style = Style("json" if options.json_ready else "table", quiet=False)
        return render_failure(failure, Streams.of_process(), style)


if __name__ == "__main__":
    sys.exit(main())
